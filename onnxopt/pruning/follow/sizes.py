"""Where the entries of a shape that is computed come from: numbers, or sizes of other values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnxopt.graph import Graph, Node, Value
from onnxopt.pruning.cut import Cut, replace_input
from onnxopt.pruning.tracker import Tracker, is_labelled


@dataclass(frozen=True)
class FromShape:
    """The size of an axis of a value, read when the model runs."""

    value: Value
    axis: int


Entry: TypeAlias = int | FromShape | None
"""A number in the file, a size that follows a cut, or something computed."""

CARRIERS = frozenset(
    ("Shape", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape")
)
"""Operators that hand entries on."""

TARGETS = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0, "Resize": 3}
"""Where operators read the shape that they make."""

LONGEST = 64
"""Constants with more elements are no shapes."""


def entries(value: Value, t: Tracker) -> list[Entry] | None:
    """One entry for each element of a scalar or vector; None for anything else."""
    if value not in t.entries:
        t.entries[value] = _entries(value, t)
    return t.entries[value]


def _entries(value: Value, t: Tracker) -> list[Entry] | None:
    if value.array is not None:
        array = value.array
        if array.size > LONGEST:
            return None
        return [int(n) if array.dtype.kind in "iu" else None for n in array.ravel()]
    node = value.producer
    if node is None or not _carries(node):
        shape = t.shape(value)
        is_short = shape is not None and len(shape) < 2 and sum(shape) <= LONGEST
        return [None] * (shape[0] if shape else 1) if shape is not None and is_short else None
    if node.op == "Shape":
        rank = t.rank(node.inputs[0])
        if rank is None:
            return None
        start, end = int(node.attr("start") or 0), node.attr("end")
        axes = range(rank)[start : rank if end is None else int(end)]
        return [FromShape(node.inputs[0], axis) for axis in axes]
    if node.op == "Concat":
        parts = [entries(part, t) for part in node.inputs]
        return None if any(p is None for p in parts) else [e for p in parts for e in p or []]
    data = entries(node.inputs[0], t)
    return data if data is None or node.op not in ("Gather", "Slice") else _picked(node, data)


def _carries(node: Node) -> bool:
    return node.is_standard and node.op in CARRIERS


def _picked(node: Node, data: list[Entry]) -> list[Entry] | None:
    numbers = [value.array for value in node.inputs[1:] if not value.omitted]
    if any(array is None for array in numbers):
        return None
    flat = [[int(n) for n in array.ravel()] for array in numbers if array is not None]
    if node.op == "Gather":
        return (
            [data[i] for i in flat[0]]
            if all(-len(data) <= i < len(data) for i in flat[0])
            else None
        )
    if node.opset < 10:
        flat = [[int(n) for n in node.attr("starts")], [int(n) for n in node.attr("ends")]]
    if len(flat) < 2:
        return None
    step = flat[3][0] if len(flat) > 3 else 1
    return data[flat[0][0] : flat[1][0] : step]


def origins(value: Value, t: Tracker) -> Iterator[FromShape]:
    """The sizes that a value holds, at least: all that may have gone into it, where unsure."""
    pending, seen = [value], {value}
    while pending:
        found = entries(one := pending.pop(), t)
        if found is not None:
            yield from (entry for entry in found if isinstance(entry, FromShape))
        elif (node := one.producer) is not None and _carries(node) and node.op != "Shape":
            sources = node.inputs if node.op == "Concat" else node.inputs[:1]
            pending += [v for v in sources if not v.omitted and v not in seen]
            seen.update(sources)


def pin_origins(value: Value, t: Tracker, why: str) -> None:
    """Sizes that a value holds are data: their axes must keep them."""
    if value.array is None and not value.omitted:
        for origin in origins(value, t):
            labels = t.axes(origin.value)
            if origin.axis < len(labels):
                t.pin(labels[origin.axis], f"{why} the size of '{origin.value.name}'")


def pin_sizes_that_are_read(graph: Graph, t: Tracker) -> None:
    """A size that anything but a target reads is data: its axis must keep it."""
    for inner in graph.walk():
        for node in inner.nodes:
            if node.op == "Size":
                t.pin_value(node.inputs[0], f"{node.label()} counts its elements")
            for value in _read_as_data(node):
                pin_origins(value, t, f"{node.label()} reads")
        for value in inner.outputs:
            pin_origins(value, t, f"the output '{value.name}' tells")


def _read_as_data(node: Node) -> Iterator[Value]:
    for place, value in enumerate(node.inputs):
        carried = _carries(node) and (place == 0 or node.op == "Concat")
        is_target = node.is_standard and place == TARGETS.get(node.op)
        if not (carried or is_target):
            yield value


def check_target(node: Node, place: int, t: Tracker, axes: Iterable[tuple[int, int]]) -> None:
    """A target that is computed must be one that follows, or that can be made to follow.

    Args:
        axes: the axes of the output that the target tells, with the places where it does.
    """
    target = node.inputs[place]
    if target.array is not None:
        return
    found, labels = entries(target, t), t.axes(node.outputs[0])
    why = f"{node.label()} computes its target"
    if found is None:
        pin_origins(target, t, f"{node.label()} computes its target with")
    for axis, index in axes:
        entry = None if found is None or not 0 <= index < len(found) else found[index]
        if isinstance(entry, FromShape):
            if entry.axis < len(source := t.axes(entry.value)):
                t.unite(source[entry.axis], labels[axis])
        elif not isinstance(entry, int) and is_labelled(labels[axis]):
            t.pin(labels[axis], why)


def set_in_input(
    node: Node, place: int, numbers: Mapping[int, tuple[int, int]], count: int
) -> None:
    """Set numbers that a node reads: in a constant of its own, or by adding when the model runs.

    Args:
        numbers: the old and the new number for some of the elements.
        count: how many elements there are.
    """
    graph, old = node.graph, node.inputs[place]
    assert graph is not None
    if all(before == after for before, after in numbers.values()):
        return
    if old.array is not None:
        made = np.array(old.array)
        for index, (_, after) in numbers.items():
            made.flat[index] = after
        replace_input(node, place, made)
        return
    change = np.zeros(count, np.int64)
    for index, (before, after) in numbers.items():
        change[index] = after - before
    made = graph.new_value(f"{old.name}_kept")
    dtype = np.int64 if old.dtype is None else old.dtype
    addend = graph.add_initializer(change.astype(dtype), f"{old.name}_change")
    adding = Node("Add", [old, addend], [made], opset=graph.opsets.get("", node.opset))
    adding.graph = graph
    graph.nodes.insert(graph.nodes.index(node), adding)
    node.inputs[place] = made


def adjust_target(node: Node, place: int, cut: Cut, axes: Iterable[tuple[int, int]]) -> None:
    """New sizes in a target; -1 and sizes that are read follow by themselves.

    Args:
        axes: the axes of the output that the target tells, with the places where it does.
    """
    old = cut.tracker.shape(node.outputs[0]) or ()
    found = entries(node.inputs[place], cut.tracker) or []
    numbers: dict[int, tuple[int, int]] = {}
    for axis, index in axes:
        size = cut.size(node.outputs[0], axis)
        if size is not None and 0 <= index < len(found) and found[index] == old[axis]:
            numbers[index] = (old[axis], size)
    set_in_input(node, place, numbers, len(found))
