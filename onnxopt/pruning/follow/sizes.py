"""Where the entries of a shape that is computed come from: numbers, or sizes of other values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from onnxopt.graph import Graph, Node, Value
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

TARGETS = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}
"""Where operators read the shape that they make."""


def entries(value: Value, t: Tracker) -> list[Entry] | None:
    """One entry for each element of an integer scalar or vector; None for anything else."""
    if value.array is not None:
        return [int(n) for n in value.array.ravel()] if value.array.dtype.kind in "iu" else None
    if value.name not in t.instance.integers:
        return None
    node = value.producer
    if node is None or not node.is_standard or node.op not in CARRIERS:
        shape = t.shape(value)
        return None if shape is None or len(shape) > 1 else [None] * (shape[0] if shape else 1)
    if node.op == "Shape":
        rank = t.rank(node.inputs[0]) or 0
        start, end = int(node.attr("start") or 0), node.attr("end")
        axes = range(rank)[start : rank if end is None else int(end)]
        return [FromShape(node.inputs[0], axis) for axis in axes]
    if node.op == "Concat":
        parts = [entries(part, t) for part in node.inputs]
        return None if any(p is None for p in parts) else [e for p in parts for e in p or []]
    data = entries(node.inputs[0], t)
    if data is None or node.op not in ("Gather", "Slice"):
        return data
    return _picked(node, data)


def _picked(node: Node, data: list[Entry]) -> list[Entry] | None:
    numbers = [value.array for value in node.inputs[1:] if not value.omitted]
    if any(array is None for array in numbers):
        return None
    flat = [[int(n) for n in array.ravel()] for array in numbers if array is not None]
    if node.op == "Gather":
        return [data[i] for i in flat[0]]
    if len(flat) < 2:
        return None
    step = flat[3][0] if len(flat) > 3 else 1
    return data[flat[0][0] : flat[1][0] : step]


def pin_sizes_that_are_read(graph: Graph, t: Tracker) -> None:
    """A size that anything but a target reads is data: its axis must keep it."""
    for inner in graph.walk():
        for node in inner.nodes:
            for value, axis in _read_as_data(node, t):
                labels = t.axes(value)
                if axis < len(labels) and is_labelled(labels[axis]):
                    t.pin(labels[axis], f"{node.label()} reads the size of '{value.name}'")


def _read_as_data(node: Node, t: Tracker) -> Iterator[tuple[Value, int]]:
    graph = node.graph
    if node.op == "Shape" and graph is not None and graph.parent is not None:
        yield from ((node.inputs[0], axis) for axis in range(t.rank(node.inputs[0]) or 0))
    for place, value in enumerate(node.inputs):
        carried = node.op in CARRIERS and (place == 0 or node.op == "Concat")
        is_target = place == TARGETS.get(node.op)
        if carried or is_target or value.array is not None:
            continue
        if value.name in t.instance.integers:
            for entry in entries(value, t) or ():
                if isinstance(entry, FromShape):
                    yield entry.value, entry.axis
