"""Operators that drop or add axes: Reduce*, ArgMax, Squeeze, Unsqueeze, Gather of one index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxopt.changes import Numerics
from onnxopt.graph import Array, Node
from onnxopt.passes.layout.along_axes import gather
from onnxopt.passes.layout.permutation import Perm, with_axes, without_axes
from onnxopt.passes.layout.switch import (
    Rule,
    Switch,
    all_from_front,
    axis_of,
    integers,
    like,
    only_first,
    rank_of,
    same_rank,
)

REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]
EXACT_REDUCTIONS = ("ReduceMax", "ReduceMin", "ArgMax", "ArgMin")


@dataclass(frozen=True)
class Axes:
    """The axes that a node names, and how to name others instead.

    Attributes:
        axes: counted from the front, in the order of the node.
        rename: the edit that puts other axes in their place.
    """

    axes: list[int]
    rename: Callable[[list[int]], dict[str, Any]]


def _axes(node: Node, rank: int, first_opset_with_input: int) -> Axes | None:
    """Named in an attribute or, from that opset on, in a constant second input."""
    if node.opset < first_opset_with_input:
        named = node.attr("axes")
        front = None if named is None else all_from_front(list(named), rank)
        return None if front is None else Axes(front, lambda new: {"attrs": {"axes": new}})
    listed = integers(node, 1)
    front = None if listed is None else all_from_front(listed, rank)
    if front is None:
        return None
    array = node.inputs[1].array

    def rename(new: list[int]) -> dict[str, Any]:
        arrays: dict[int, Array] = {1: like(array, new)}
        return {"arrays": arrays}

    return Axes(front, rename)


def _unnamed(node: Node, rank: int) -> Axes | None:
    """What a node does that names no axes: Reduce takes all, Squeeze those of size 1."""
    if node.attr("axes") is not None or node.input(1) is not None:
        return None
    if node.op != "Squeeze":
        takes_all = not node.attr("noop_with_empty_axes")
        return Axes(list(range(rank)), lambda new: {}) if takes_all else None
    shape = node.inputs[0].static_shape
    if shape is None:
        return None
    return Axes([axis for axis in range(rank) if shape[axis] == 1], lambda new: {})


def _dropped(node: Node, rank: int) -> Axes | None:
    """The axes that a node works along and, without keepdims, drops."""
    if node.op in ("ArgMax", "ArgMin"):
        axis = axis_of(node, rank)
        return None if axis is None else Axes([axis], lambda new: {"attrs": {"axis": new[0]}})
    if node.op == "Gather":
        axis = axis_of(node, rank)
        if axis is None or node.inputs[1].rank != 0:
            return None
        return Axes([axis], lambda new: {"attrs": {"axis": new[0]}})
    if node.op in ("Squeeze", "ReduceSum"):
        first = 13
    else:
        first = 18
    found = _axes(node, rank, first)
    return _unnamed(node, rank) if found is None or not found.axes else found


def _keeps(node: Node) -> bool:
    return node.op not in ("Squeeze", "Gather") and bool(node.attr("keepdims"))


def _numerics(node: Node) -> Numerics:
    exact = node.op in EXACT_REDUCTIONS or node.op in ("Squeeze", "Gather")
    return "exact" if exact else "rounding"


def dropping_input(node: Node, index: int, layout: Perm) -> Switch | None:
    """The layout is that of the first input."""
    if node.op == "Gather" and node.inputs[1].rank == 1:
        return gather(node, index, layout)
    found = _dropped(node, len(layout)) if same_rank(layout, node.inputs[0]) else None
    if found is None or index != 0:
        return None
    edit = found.rename(sorted(layout.index(axis) for axis in found.axes))
    made = layout if _keeps(node) else without_axes(layout, found.axes)
    return only_first(node, layout, made, numerics=_numerics(node), **edit)


def dropping_output(node: Node, index: int, layout: Perm) -> Switch | None:
    """The layout is that of the output: dropped axes stay in their places."""
    rank = rank_of(node.inputs[0])
    if rank is None or (node.op == "Gather" and node.inputs[1].rank == 1):
        return None if rank is None else gather(node, index, layout)
    if _keeps(node):
        return dropping_input(node, 0, layout)
    found = _dropped(node, rank)
    if found is None or len(found.axes) + len(layout) != rank:
        return None
    return dropping_input(node, 0, with_axes(layout, found.axes))


def unsqueeze_output(node: Node, index: int, layout: Perm) -> Switch | None:
    """The layout is that of the output."""
    found = _axes(node, len(layout), 13)
    if found is None or rank_of(node.inputs[0]) != len(layout) - len(found.axes):
        return None
    edit = found.rename(sorted(layout.index(axis) for axis in found.axes))
    return only_first(node, without_axes(layout, found.axes), layout, **edit)


def unsqueeze_input(node: Node, index: int, layout: Perm) -> Switch | None:
    """The layout is that of the input: new axes stay in their places."""
    if index != 0 or not same_rank(layout, node.inputs[0]):
        return None
    count = len(node.attr("axes") or []) if node.opset < 13 else len(integers(node, 1) or [])
    found = _axes(node, len(layout) + count, 13)
    return None if found is None else unsqueeze_output(node, 0, with_axes(layout, found.axes))


def size(node: Node, index: int, layout: Perm) -> Switch | None:
    return Switch((layout,), (None,))


_dropping = (*REDUCTIONS, "ArgMax", "ArgMin", "Squeeze", "Gather")
FORWARD: dict[str, Rule] = {
    **dict.fromkeys(_dropping, dropping_input),
    "Unsqueeze": unsqueeze_input,
    "Size": size,
}
BACKWARD: dict[str, Rule] = {
    **dict.fromkeys(_dropping, dropping_output),
    "Unsqueeze": unsqueeze_output,
}
