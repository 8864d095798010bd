"""Operators that treat each element alike, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable

from onnxopt.graph import Node, Value
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.tracker import Tracker


def broadcast(node: Node, t: Tracker) -> None:
    """All outputs have the shape to which the inputs broadcast."""
    operands = [value for value in node.inputs if not value.omitted]
    for output in node.outputs:
        if not output.omitted:
            t.set(output, broadcast_axes(operands, output, t))


def broadcast_axes(operands: list[Value], output: Value, t: Tracker) -> list[Axis]:
    shape = t.shape(output)
    shapes = {value: t.shape(value) for value in operands}
    if shape is None or any(s is None for s in shapes.values()):
        return unknown(operands, output, t)
    result: list[Axis] = []
    for axis, size in enumerate(shape):
        label: Axis | None = None
        for value in operands:
            own = shapes[value] or ()
            place = axis - (len(shape) - len(own))
            if place < 0 or (own[place] != size and not _is_open(value, place)):
                continue  # it is repeated along this axis
            found = t.axes(value)[place]
            label = found if label is None else t.unite(label, found)
        result.append("no input has this axis" if label is None else label)
    return result


def _is_open(value: Value, axis: int) -> bool:
    """That it has one index there was so in one run only."""
    return value.shape is not None and not isinstance(value.shape[axis], int)


def unknown(operands: list[Value], output: Value, t: Tracker) -> list[Axis]:
    """Shapes that are not known cannot be followed."""
    why = f"the shape of '{output.name}' is not known"
    for value in operands:
        t.pin_value(value, why)
    return [why] * (t.rank(output) or 0)


def like_first(node: Node, t: Tracker) -> None:
    """The first input decides; the others are scalars (Clip, Dropout, CumSum, casts)."""
    for output in node.outputs:
        if not output.omitted:
            t.set(output, t.axes(node.inputs[0]))


_BROADCASTING = (
    "Add Sub Mul Div Pow Mod And Or Xor Not Equal Greater GreaterOrEqual Less LessOrEqual BitShift "
    "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot Where Max Min Sum Mean PRelu Abs Acos Acosh Asin "
    "Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "IsInf IsNaN LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh "
    "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Cast BiasGelu FastGelu QuickGelu"
)

FOLLOW = {
    **dict.fromkeys(_BROADCASTING.split(), broadcast),
    **dict.fromkeys(("Clip", "Dropout", "CastLike"), like_first),
}

ADJUST: dict[str, Callable[[Node, Cut], None]] = {}
