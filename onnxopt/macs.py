"""Multiply-accumulate operations of one node, from the shapes of what it reads and makes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from onnxopt.graph import Constant, Node, Shape, Value, Variable
from onnxopt.typed_copy import shape_of

Sizes = tuple[int, ...]


def assumed_sizes(value: Value) -> Sizes | None:
    """Its shape with 1 for every dimension that is not a number; None if its rank is unknown.

    Where inference knows nothing the file's declaration is good enough here.
    """
    shape = known_shape(value)
    return None if shape is None else tuple(d if isinstance(d, int) else 1 for d in shape)


def known_shape(value: Value) -> Shape | None:
    shape: Shape | None = value.shape
    if shape is None and isinstance(value, Variable) and value.info is not None:
        return shape_of(value.info.type)
    return shape


def is_exact(value: Value) -> bool:
    """All dimensions are numbers or symbolic dimensions of the model's inputs."""
    shape = known_shape(value)
    return shape is not None and all(
        isinstance(d, int) or (isinstance(d, str) and "#" in d) for d in shape
    )


def multiplies(operator: str) -> bool:
    """Multiplying and adding is what the operator is for."""
    return operator in _COUNTED or operator in UNCOUNTED


def macs(node: Node) -> int | None:
    """Multiply-accumulates of one run of the node; None if a shape that is needed is unknown."""
    count = _COUNTED.get(node.op)
    if count is None:
        return None if node.op in UNCOUNTED else 0
    return count(node)


def is_counted_exactly(node: Node) -> bool:
    values = [v for v in (*node.inputs[:4], *node.outputs[:1]) if not v.omitted]
    return all(isinstance(v, Constant) or v.rank == 0 or is_exact(v) for v in values)


def _sizes(values: list[Value], index: int) -> Sizes | None:
    if index >= len(values) or values[index].omitted:
        return None
    return assumed_sizes(values[index])


def _convolution(weight: int) -> Callable[[Node], int | None]:
    def count(node: Node) -> int | None:
        kernel, out = _sizes(node.inputs, weight), _sizes(node.outputs, 0)
        if not kernel or out is None:
            return None
        return prod(out) * prod(kernel[1:])

    return count


def _transposed_convolution(node: Node) -> int | None:
    data, kernel = _sizes(node.inputs, 0), _sizes(node.inputs, 1)
    if data is None or not kernel:
        return None
    return prod(data) * prod(kernel[1:])


def _product(node: Node) -> int | None:
    """Outputs times the length of the sums: the dimension that both factors share."""
    left, out = _sizes(node.inputs, 0), _sizes(node.outputs, 0)
    if not left or out is None:
        return None
    is_transposed = bool(node.attrs.get("transA")) and len(left) > 1
    shared = [left[-2 if is_transposed else -1]]
    right = _sizes(node.inputs, 1) if node.op in _RIGHT_IS_SECOND else None
    if right:
        is_transposed = bool(node.attrs.get("transB")) or len(right) == 1
        shared.append(right[-1 if is_transposed else -2])
    return prod(out) * max(shared)  # a dimension that is not known counts as 1


_RIGHT_IS_SECOND = frozenset(
    ("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat")
)


def _recurrent(node: Node) -> int | None:
    data = _sizes(node.inputs, 0)
    inner, recurrent = _sizes(node.inputs, 1), _sizes(node.inputs, 2)
    if data is None or len(data) != 3 or inner is None or recurrent is None:
        return None
    return data[0] * data[1] * (prod(inner) + prod(recurrent))


_COUNTED: dict[str, Callable[[Node], int | None]] = {
    **{op: _convolution(1) for op in ("Conv", "FusedConv", "ConvInteger", "DeformConv")},
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul"), _product),
    **dict.fromkeys(("MatMulInteger", "QLinearMatMul", "MatMulIntegerToFloat"), _product),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}

UNCOUNTED = frozenset(("Einsum", "Attention", "MultiHeadAttention", "QAttention", "MatMulNBits"))
"""Operators that multiply and add, for which there is no count: a model with one says so."""
