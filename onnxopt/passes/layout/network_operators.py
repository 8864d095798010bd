"""Operators with axes of their own: products, normalizations, resizing, quantization."""

from __future__ import annotations

from onnxopt.graph import Array, Node, Value
from onnxopt.passes.layout.along_axes import moved_axes
from onnxopt.passes.layout.permutation import Perm, permuted
from onnxopt.passes.layout.switch import (
    Rule,
    Switch,
    axis_of,
    only_first,
    same_rank,
)


def quantize(node: Node, index: int, layout: Perm) -> Switch | None:
    """QuantizeLinear and DequantizeLinear: per tensor, or per element of an axis."""
    scale = node.inputs[1].static_shape
    if not same_rank(layout, node.inputs[0]) or scale is None or node.attr("block_size"):
        return None
    if len(scale) == 0:
        return only_first(node, layout)
    axis = axis_of(node, len(layout))
    if len(scale) != 1 or axis is None:
        return only_first(node, layout) if scale == (1,) and node.opset < 13 else None
    return only_first(node, layout, attrs={"axis": layout.index(axis)})


def resize(node: Node, index: int, layout: Perm) -> Switch | None:
    """Resize and Upsample that pick neighbours: each axis for itself, so any layout will do."""
    if node.attr("mode") != "nearest" or not same_rank(layout, node.inputs[0]):
        return None
    if node.attr("keep_aspect_ratio_policy") not in (None, "stretch"):
        return None
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    if node.op == "Upsample" and node.opset < 9:
        scales = node.attr("scales")
        if scales is None or len(scales) != len(layout):
            return None
        return only_first(node, layout, attrs={"scales": list(permuted(scales, layout))})
    if node.attr("axes"):
        moved = moved_axes(node.attr("axes"), layout)
        return None if moved is None else only_first(node, layout, attrs={"axes": moved})
    first = 1 if node.op == "Upsample" or node.opset < 11 else 2
    arrays = {i: _permuted(node.input(i), layout) for i in range(first, len(node.inputs))}
    kept: dict[int, Array] = {i: a for i, a in arrays.items() if a is not None}
    given = [i for i in arrays if _is_given(node.input(i))]
    return only_first(node, layout, arrays=kept) if given and given == list(kept) else None


def _is_given(value: Value | None) -> bool:
    """An empty constant stands for an omitted input too."""
    return value is not None and not (value.array is not None and value.array.size == 0)


def _permuted(value: Value | None, layout: Perm) -> Array | None:
    array = None if value is None else value.array
    return None if array is None or array.shape != (len(layout),) else array[list(layout)]


def fixed(first: int) -> Rule:
    """Operators whose first so many axes must stay where they are; the others are alike."""

    def rule(node: Node, index: int, layout: Perm) -> Switch | None:
        if layout[:first] != tuple(range(first)) or not same_rank(layout, node.inputs[0]):
            return None
        if len(node.outputs) > 1 or node.attr("spatial") == 0 or node.attr("training_mode"):
            return None
        return only_first(node, layout, numerics="rounding")

    return rule


def layer_norm(node: Node, index: int, layout: Perm) -> Switch | None:
    axis = axis_of(node, len(layout))
    if axis is None or layout[axis:] != tuple(range(axis, len(layout))):
        return None
    if len(node.outputs) > 1 or not same_rank(layout, node.inputs[0]):
        return None
    return only_first(node, layout, attrs={"axis": axis}, numerics="rounding")


def matmul(node: Node, index: int, layout: Perm) -> Switch | None:
    """Rows of the first factor may move if the second is one matrix; batches if both have them."""
    a, b = node.inputs
    rank = len(layout)
    if not same_rank(layout, a) or rank < 2 or b.rank is None or a is b:
        return None
    if index == 1 and b.rank != rank:
        return None
    if b.rank == 2 and layout[-1] == rank - 1:
        return only_first(node, layout, numerics="rounding")
    if b.rank != rank or layout[-2:] != (rank - 2, rank - 1) or b.array is not None:
        return None
    return Switch((layout, layout), (layout,), numerics="rounding")


RULES: dict[str, Rule] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": quantize,
    "Resize": resize,
    "Upsample": resize,
    "BatchNormalization": fixed(2),
    "InstanceNormalization": fixed(2),
    "GlobalAveragePool": fixed(2),
    "GlobalMaxPool": fixed(2),
    "LayerNormalization": layer_norm,
    "MatMul": matmul,
}
"""The layout is that of the data input and of all outputs: it does not matter which is given."""
