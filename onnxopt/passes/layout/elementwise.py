"""Operators that treat each element alike: unary, and with broadcasting."""

from __future__ import annotations

import numpy as np

from onnxopt.changes import Numerics
from onnxopt.graph import Array, Node
from onnxopt.passes.layout.permutation import Perm
from onnxopt.passes.layout.switch import Rule, Switch, can_copy, only_first, rank_of, same_rank

EXACT = frozenset(
    [
        "Abs",
        "BitwiseNot",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "BitShift",
        "Cast",
        "CastLike",
        "Ceil",
        "Clip",
        "Dropout",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Neg",
        "Not",
        "Relu",
        "Round",
        "Sign",
        "ThresholdedRelu",
        "Where",
        "And",
        "Or",
        "Xor",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Sum",
        "PRelu",
        "Reciprocal",
        "Sqrt",
    ]
)
"""Their result does not depend on where in memory an element lies; kernels of the transcendental
functions work differently on the last few elements."""

UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
]

BROADCASTING = [
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
]

FIRST_OPSET_THAT_BROADCASTS = 7


def unary(node: Node, index: int, layout: Perm) -> Switch | None:
    """One data input; what else it reads (limits, types) is the same for all elements."""
    value = node.inputs[0]
    if not same_rank(layout, value):
        return None
    return only_first(node, layout, numerics=_numerics(node))


def dropout(node: Node, index: int, layout: Perm) -> Switch | None:
    return None if node.is_random or node.opset < 7 else unary(node, index, layout)


def broadcasting_input(node: Node, index: int, layout: Perm) -> Switch | None:
    rank = _rank(node)
    if rank is None or not same_rank(layout, node.inputs[index]):
        return None
    first = rank - len(layout)
    return broadcasting(node, (*range(first), *(axis + first for axis in layout)))


def broadcasting_output(node: Node, index: int, layout: Perm) -> Switch | None:
    return broadcasting(node, layout) if _rank(node) == len(layout) else None


def broadcasting(node: Node, layout: Perm) -> Switch | None:
    """Constants are stored in the layout; other inputs of lower rank must keep theirs."""
    if node.opset < FIRST_OPSET_THAT_BROADCASTS:
        return None
    inputs: list[Perm | None] = []
    arrays: dict[int, Array] = {}
    for index, value in enumerate(node.inputs):
        array = value.array
        if array is not None:
            if array.size > 1 and not can_copy(value):
                return None
            if array.size > 1:
                arrays[index] = constant_in(array, layout)
            inputs.append(None)
            continue
        wanted = _trailing(layout, rank_of(value))
        if wanted is None:
            return None
        inputs.append(wanted)
    return Switch(tuple(inputs), (layout,), {}, arrays, _numerics(node))


def _rank(node: Node) -> int | None:
    ranks = [rank_of(value) for value in node.inputs]
    known = [rank for rank in ranks if rank is not None]
    return max(known) if len(known) == len(ranks) and known else None


def _trailing(layout: Perm, rank: int | None) -> Perm | None:
    """The layout of an input of lower rank, which stands for the last axes only."""
    if rank is None:
        return None
    first = len(layout) - rank
    last = layout[first:]
    return tuple(axis - first for axis in last) if min(last, default=first) >= first else None


def constant_in(array: Array, layout: Perm) -> Array:
    """A constant that is broadcast to the rank of the layout, in that layout."""
    whole = array.reshape((1,) * (len(layout) - array.ndim) + array.shape).transpose(layout)
    while whole.ndim > max(array.ndim, 1) and whole.shape[0] == 1:
        whole = whole[0]
    return np.ascontiguousarray(whole)


def _numerics(node: Node) -> Numerics:
    return "exact" if node.op in EXACT else "rounding"


FORWARD: dict[str, Rule] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BROADCASTING, broadcasting_input),
    "Dropout": dropout,
    "CastLike": unary,
}
BACKWARD: dict[str, Rule] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BROADCASTING, broadcasting_output),
    "Dropout": dropout,
    "CastLike": unary,
}
