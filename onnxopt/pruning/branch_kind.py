"""What a branch is: which kind of layers it has, and along which axis its channels lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from onnxopt.graph import Node, Value

Kind: TypeAlias = Literal["attention", "recurrent", "convolution", "mlp", "pooling", "other"]

_CONVOLUTIONS = frozenset(
    ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "FusedConv")
)
_PRODUCTS = frozenset(
    ("MatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul", "FusedGemm", "FusedMatMul")
    + ("MatMulNBits", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "TransposeMatMul")
)
_RECURRENT = frozenset(("LSTM", "GRU", "RNN"))
_POOLING = frozenset(("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"))
_ATTENTION = frozenset(
    ("Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention", "PackedAttention")
    + ("PackedMultiHeadAttention", "DecoderMaskedMultiHeadAttention", "LongformerAttention")
    + ("DecoderAttention", "SparseAttention", "LinearAttention")
)
_LAYERS = _CONVOLUTIONS | _PRODUCTS | _RECURRENT | _POOLING | _ATTENTION

_AXIS_ONE = (
    _CONVOLUTIONS | _POOLING | {"BatchNormalization", "InstanceNormalization", "GroupNormalization"}
)
_AXIS_LAST = _PRODUCTS - {"Einsum"} | _ATTENTION | {"LayerNormalization"}
_SAME_AXES = frozenset(
    ("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu")
    + ("Selu", "Gelu", "Mish", "Softplus", "Erf", "Identity", "Dropout", "Cast", "Neg")
    + ("QuantizeLinear", "DequantizeLinear", "Add", "Sub", "Mul", "Div", "Sum", "Resize", "Pad")
)

FARTHEST = 64
"""Nodes between a value and the layer that its axes are read from."""

IsFixed = Callable[[Value], bool]
Shape = Callable[[Value], tuple[int, ...] | None]


def is_layer(node: Node) -> bool:
    """It brings positions or channels together; what does not is arithmetic."""
    return node.op in _LAYERS


def kind_of(nodes: Sequence[Node], is_fixed: IsFixed) -> Kind:
    """What nodes do that are a branch.

    Attention multiplies matrices that are both computed, twice: queries with keys, and what comes
    of that with values. A branch of products with weights alone is an mlp.
    """
    operators = {node.op for node in nodes}
    both = [n for n in nodes if n.op in _PRODUCTS and not any(map(is_fixed, n.inputs[:2]))]
    if operators & _ATTENTION or len(both) >= 2:
        return "attention"
    if operators & _RECURRENT:
        return "recurrent"
    if operators & _CONVOLUTIONS:
        return "convolution"
    if operators & _PRODUCTS and not both:
        return "mlp"
    return "pooling" if operators & _POOLING else "other"


def channel_axis(value: Value, shape: Shape, is_fixed: IsFixed) -> int | None:
    """The axis of the channels of a value: 1, or -1 for the last; None if that is not known.

    It is the one along which the last layer before it makes its outputs.
    """
    found = _axis(value, shape, is_fixed)
    rank = len(shape(value) or ())
    if found is None or rank < 2:
        return None
    return -1 if found == rank - 1 else found if found == 1 else None


def _axis(value: Value, shape: Shape, is_fixed: IsFixed, left: int = FARTHEST) -> int | None:
    node, dims = value.producer, shape(value)
    if node is None or dims is None or not left:
        return None
    if node.op in _AXIS_ONE:
        return 1
    if node.op in _AXIS_LAST:
        return len(dims) - 1
    computed = [v for v in node.inputs if not is_fixed(v)]
    if node.op == "Transpose":
        inner = _axis(node.inputs[0], shape, is_fixed, left - 1)
        order = node.attr("perm") or range(len(dims))[::-1]
        return None if inner is None else list(order).index(inner)
    if node.op == "Reshape":
        inner, before = _axis(node.inputs[0], shape, is_fixed, left - 1), shape(node.inputs[0])
        is_last = inner is not None and before is not None and inner == len(before) - 1
        return len(dims) - 1 if is_last and before and before[-1] == dims[-1] else None
    if node.op in _SAME_AXES:
        whole = (v for v in computed if len(shape(v) or ()) == len(dims))
        found = (_axis(v, shape, is_fixed, left - 1) for v in whole)
        return next((axis for axis in found if axis is not None), None)
    return None
