"""Operators of one rank in and out that name axes: Concat, Split, Slice, Pad, Softmax, others."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Array, Node, Shape
from onnxopt.passes.layout.permutation import Perm, permuted
from onnxopt.passes.layout.switch import (
    Rule,
    Switch,
    all_from_front,
    axis_of,
    can_copy,
    integers,
    like,
    only_first,
    same_rank,
)

FIRST_OPSET_OF_ONE_AXIS_SOFTMAX = 13


def concat(node: Node, index: int, layout: Perm) -> Switch | None:
    rank = len(layout)
    axis = axis_of(node, rank)
    if axis is None:
        return None
    inputs: list[Perm | None] = []
    arrays: dict[int, Array] = {}
    for place, value in enumerate(node.inputs):
        array = value.array
        if not same_rank(layout, value) or (array is not None and not can_copy(value)):
            return None
        if array is None:
            inputs.append(layout)
        else:
            inputs.append(None)
            arrays[place] = np.ascontiguousarray(array.transpose(layout))
    return Switch(tuple(inputs), (layout,), {"axis": layout.index(axis)}, arrays)


def one_axis(node: Node, index: int, layout: Perm) -> Switch | None:
    """Split, TopK, LpNormalization: the axis attribute, of the first input, moves along."""
    axis = axis_of(node, len(layout))
    if axis is None or not same_rank(layout, node.inputs[0]):
        return None
    exact = node.op in ("Split", "TopK")
    attrs = {"axis": layout.index(axis)}
    return only_first(node, layout, attrs=attrs, numerics="exact" if exact else "rounding")


def softmax(node: Node, index: int, layout: Perm) -> Switch | None:
    value = node.inputs[0]
    axis = axis_of(node, len(layout))
    if axis is None or not same_rank(layout, value):
        return None
    exact = node.op == "Hardmax"
    if node.opset < FIRST_OPSET_OF_ONE_AXIS_SOFTMAX:
        new = _flattened_axis(layout, axis, value.shape)
    else:
        new = layout.index(axis)
    if new is None:
        return None
    return only_first(node, layout, attrs={"axis": new}, numerics="exact" if exact else "rounding")


def _flattened_axis(layout: Perm, axis: int, shape: Shape | None) -> int | None:
    """Before opset 13 all axes from the given one on are one: they must stay the last ones."""
    if shape is None:
        return None
    wide = {a for a in range(len(shape)) if shape[a] != 1}
    together = {a for a in wide if a >= axis}
    for new in range(len(layout)):
        if {a for a in layout[new:] if a in wide} == together:
            return new
    return None


def slice_attributes(node: Node, index: int, layout: Perm) -> Switch | None:
    """Slice before opset 10."""
    axes = node.attr("axes")
    axes = list(range(len(node.attr("starts")))) if axes is None else axes
    moved = moved_axes(axes, layout)
    if moved is None or not same_rank(layout, node.inputs[0]):
        return None
    return only_first(node, layout, attrs={"axes": moved})


def slice_(node: Node, index: int, layout: Perm) -> Switch | None:
    if node.opset < 10:
        return slice_attributes(node, index, layout)
    if not same_rank(layout, node.inputs[0]):
        return None
    axes = integers(node, 3)
    if axes is None:
        starts = node.inputs[1].static_shape
        if node.input(3) is not None or starts is None or len(starts) != 1:
            return None
        axes = list(range(starts[0]))
    moved = moved_axes(axes, layout)
    if moved is None:
        return None
    array = like(_array(node, 3), moved)
    if node.input(3) is None:
        array = array.astype(node.inputs[1].dtype or np.int64)
    return only_first(node, layout, arrays={3: array})


def pad(node: Node, index: int, layout: Perm) -> Switch | None:
    rank = len(layout)
    if not same_rank(layout, node.inputs[0]) or node.opset < 2:
        return None
    if node.opset < 11:
        moved = _moved_pads(node.attr("pads"), layout)
        return None if moved is None else only_first(node, layout, attrs={"pads": moved})
    if node.input(3) is not None:
        axes = integers(node, 3)
        named = None if axes is None else moved_axes(axes, layout)
        if named is None:
            return None
        return only_first(node, layout, arrays={3: like(_array(node, 3), named)})
    pads = integers(node, 1)
    if pads is None or len(pads) != 2 * rank:
        return None
    moved = _moved_pads(pads, layout)
    return (
        None if moved is None else only_first(node, layout, arrays={1: np.array(moved, np.int64)})
    )


def _moved_pads(pads: list[int] | None, layout: Perm) -> list[int] | None:
    if pads is None or len(pads) != 2 * len(layout):
        return None
    rank = len(layout)
    return [*permuted(pads[:rank], layout), *permuted(pads[rank:], layout)]


def moved_axes(axes: list[int], layout: Perm) -> list[int] | None:
    front = all_from_front(list(axes), len(layout))
    return None if front is None else [layout.index(axis) for axis in front]


def _array(node: Node, index: int) -> Array | None:
    value = node.input(index)
    return None if value is None else value.array


def per_axis_list(node: Node, index: int, layout: Perm) -> Switch | None:
    """Tile and Expand: one number per axis in a constant second input."""
    numbers = integers(node, 1)
    if numbers is None or not same_rank(layout, node.inputs[0]) or len(numbers) > len(layout):
        return None
    if node.op == "Tile" and (node.opset < 6 or len(numbers) < len(layout)):
        return None
    whole = [1] * (len(layout) - len(numbers)) + numbers
    return only_first(node, layout, arrays={1: np.array(permuted(whole, layout), np.int64)})


def cumsum(node: Node, index: int, layout: Perm) -> Switch | None:
    axes = integers(node, 1)
    moved = None if axes is None or len(axes) != 1 else moved_axes(axes, layout)
    if moved is None or not same_rank(layout, node.inputs[0]):
        return None
    return only_first(node, layout, arrays={1: like(_array(node, 1), moved)}, numerics="rounding")


def gather(node: Node, index: int, layout: Perm) -> Switch | None:
    """Gather with a list of indices, which keeps the rank."""
    axis = axis_of(node, len(layout))
    if axis is None or node.inputs[1].rank != 1 or not same_rank(layout, node.inputs[0]):
        return None
    return only_first(node, layout, attrs={"axis": layout.index(axis)})


def mean_variance(node: Node, index: int, layout: Perm) -> Switch | None:
    moved = moved_axes(node.attr("axes"), layout)
    if moved is None or not same_rank(layout, node.inputs[0]):
        return None
    return only_first(node, layout, attrs={"axes": sorted(moved)}, numerics="rounding")


RULES: dict[str, Rule] = {
    "Concat": concat,
    "Split": one_axis,
    "TopK": one_axis,
    "LpNormalization": one_axis,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Hardmax": softmax,
    "Slice": slice_,
    "Pad": pad,
    "Tile": per_axis_list,
    "Expand": per_axis_list,
    "CumSum": cumsum,
    "Gather": gather,
    "MeanVarianceNormalization": mean_variance,
}
"""The layout is that of the data input and of all outputs: it does not matter which is given."""
