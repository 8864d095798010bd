"""Quantization, and the operators of com.microsoft that work on quantized values."""

from __future__ import annotations

from collections.abc import Callable

from onnxopt.graph import Node, Value
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.follow.elementwise import broadcast_axes
from onnxopt.pruning.follow.moving import concat_axes
from onnxopt.pruning.tracker import Tracker


def quantize(node: Node, t: Tracker) -> None:
    """Scales and zero points are one number, or one for each index of an axis."""
    data = node.inputs[0]
    axes = t.axes(data)
    for value in node.inputs[1:3]:
        if value.omitted:
            continue
        shape = t.shape(value) or ()
        if len(shape) == 1 and shape[0] > 1:
            axis = int(1 if node.attr("axis") is None else node.attr("axis")) % len(axes)
            t.unite(axes[axis], t.axes(value)[0])
        elif len(shape) > 1:
            t.pin_value(data, f"{node.label()} quantizes in blocks")
            t.pin_value(value, f"{node.label()} quantizes in blocks")
    t.set(node.outputs[0], axes)


def dynamic_quantize(node: Node, t: Tracker) -> None:
    for axis in t.axes(node.inputs[0]):
        t.atoms.mark_changed(axis, f"{node.label()} takes its scale from all channels")
    t.set(node.outputs[0], t.axes(node.inputs[0]))
    for output in node.outputs[1:]:
        t.set(output, [])


def quantized_sum(node: Node, t: Tracker) -> None:
    """QLinearAdd, QLinearMul: A, its scale and zero point, B, its scale and zero point, ..."""
    operands = [node.inputs[0], node.inputs[3]]
    _only_scalars([v for v in node.inputs if v not in operands], node, t)
    t.set(node.outputs[0], broadcast_axes(operands, node.outputs[0], t))


def quantized_unary(node: Node, t: Tracker) -> None:
    """QLinearSigmoid, QLinearLeakyRelu: X, scales and zero points."""
    _only_scalars(node.inputs[1:], node, t)
    t.set(node.outputs[0], t.axes(node.inputs[0]))


def quantized_concat(node: Node, t: Tracker) -> None:
    """QLinearConcat: scale and zero point of the output, then three inputs for each part."""
    parts = node.inputs[2::3]
    _only_scalars([v for v in node.inputs if v not in parts], node, t)
    concat_axes(node, parts, t)


def _only_scalars(values: list[Value], node: Node, t: Tracker) -> None:
    for value in values:
        if not value.omitted:
            t.pin_value(value, f"{node.label()} reads '{value.name}' as a parameter")


FOLLOW = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantize),
    "DynamicQuantizeLinear": dynamic_quantize,
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), quantized_sum),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu"), quantized_unary),
    "QLinearConcat": quantized_concat,
}

ADJUST: dict[str, Callable[[Node, Cut], None]] = {}
