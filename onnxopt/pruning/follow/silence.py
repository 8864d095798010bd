"""Which values are zero where weights are zeroed: sums over those lose nothing with a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from onnxopt.graph import Constant, Graph, Node, Value
from onnxopt.pruning.follow.normalizing import SUMS
from onnxopt.pruning.follow.products import einsum_equation
from onnxopt.pruning.tracker import Tracker, is_labelled
from onnxopt.pruning.zeroing import nothing

_KEEP_ZERO = (
    "Abs Asin Asinh Atan Ceil Celu Elu Erf Floor Gelu HardSwish Identity LeakyRelu Mish Neg "
    "Relu Round Selu Shrink Sign Sin Sinh Softsign Sqrt Swish Tan Tanh ThresholdedRelu Cast "
    "CastLike Dropout PRelu FastGelu QuickGelu Reshape Flatten Squeeze Unsqueeze Transpose Slice "
    "Split Gather GatherElements Expand Tile MaxPool AveragePool GlobalAveragePool GlobalMaxPool "
    "LpPool GlobalLpPool DepthToSpace SpaceToDepth Resize Upsample RotaryEmbedding CumSum Crop "
    "QuantizeLinear DequantizeLinear ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 "
    "ReduceSumSquare"
)
"""Operators that make zeros of zeros in their first input."""

_ALL_KEEP_ZERO = frozenset(("Concat", "Max", "Min", "Where"))
_ADDING = frozenset(("Add", "Sub", "Sum", "Mean", "BiasGelu"))
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}
"""With the place of the weight."""


def mark_sums_that_change(graph: Graph, t: Tracker) -> None:
    """Sums over channels that are not zero when their weights are change with them."""
    silent: set[Value] = set()
    for inner in graph.walk():
        for node in inner.nodes:
            if node in t.followed:
                _mark(node, t, silent)
                if _keeps_silence(node, t, silent):
                    silent.update(node.outputs)


def _is_silent(value: Value | None, silent: set[Value]) -> bool:
    if isinstance(value, Constant):
        return nothing(value) is not None
    return value in silent


def _mark(node: Node, t: Tracker, silent: set[Value]) -> None:
    for value, others, axis in _summed(node, t):
        if not any(_is_silent(v, silent) for v in (value, *others)):
            label = t.axes(value)[axis]
            t.atoms.mark_changed(label, f"{node.label()} sums over channels that are not zero")


def _summed(node: Node, t: Tracker) -> Iterator[tuple[Value, tuple[Value, ...], int]]:
    """Values with the axes that the node sums over, and with what it multiplies them."""
    if node.op in SUMS:
        data = node.inputs[0]
        yield from ((data, (), axis) for axis in _gone(node, t) if is_labelled(t.axes(data)[axis]))
    elif node.op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        left, right = node.inputs[0], node.inputs[3 if node.op.startswith("QL") else 1]
        yield left, (right,), len(t.axes(left)) - 1
    elif node.op in ("Gemm", "FusedGemm"):
        yield node.inputs[0], (node.inputs[1],), 0 if node.attr("transA") else 1
    elif node.op in _CONVOLUTIONS:
        yield node.inputs[0], (node.inputs[_CONVOLUTIONS[node.op]],), 1
    elif node.op in ("LSTM", "GRU", "RNN"):
        yield node.inputs[0], (node.inputs[1],), 2
    elif node.op == "Einsum":
        yield from _letters(node)


def _letters(node: Node) -> Iterator[tuple[Value, tuple[Value, ...], int]]:
    left, _, result = einsum_equation(node).partition("->")
    terms = left.split(",")
    if "." in left:
        return  # it is not followed
    for term, value in zip(terms, node.inputs, strict=True):
        for axis, letter in enumerate(term):
            if letter not in result:
                pairs = zip(terms, node.inputs, strict=True)
                yield value, tuple(v for other, v in pairs if letter in other), axis


def _gone(node: Node, t: Tracker) -> list[int]:
    """The axes that a reduction sums over."""
    rank = len(t.axes(node.inputs[0]))
    given = node.input(1)
    axes = node.attr("axes") if given is None else t.integers(given)
    if axes is None or len(axes) == 0:
        return [] if node.attr("noop_with_empty_axes") else list(range(rank))
    return [int(a) % rank for a in axes]


def _keeps_silence(node: Node, t: Tracker, silent: set[Value]) -> bool:
    """Wherever a channel of what it makes is gone, there is zero if weights are zeroed."""
    quiet: Callable[[Value | None], bool] = lambda value: _is_silent(value, silent)  # noqa: E731
    given = [value for value in node.inputs if not value.omitted]
    if node.op in _KEEP_ZERO.split():
        return quiet(given[0])
    if node.op in _ALL_KEEP_ZERO:
        return all(map(quiet, given[1:] if node.op == "Where" else given))
    if node.op in _ADDING:
        return all(quiet(value) and _spans(value, node, t) for value in given)
    if node.op == "Mul":
        return any(quiet(value) and _spans(value, node, t) for value in given)
    if node.op == "Div":
        return quiet(given[0]) and _spans(given[0], node, t)
    if node.op == "Clip":
        return quiet(given[0]) and _clips_around_zero(node)
    if node.op == "Pad":
        return quiet(given[0]) and (len(given) < 3 or not _is_other_than_zero(given[2]))
    if node.op in ("Gemm", "FusedGemm"):
        return _only_axis(1, node, t) and all(map(quiet, given[1:]))
    if node.op == "Einsum":
        return _letters_are_silent(node, t, silent)
    if node.op == "MatMul":
        return any(map(quiet, given)) and _only_made_by_silent(node, t, silent)
    if node.op in ("Conv", "FusedConv", "ConvTranspose"):
        return _only_axis(1, node, t) and all(map(quiet, given[1:]))
    if node.op in ("BatchNormalization", "InstanceNormalization"):
        return _only_axis(1, node, t) and all(map(quiet, given[1:3]))
    if node.op == "LayerNormalization":
        return all(quiet(value) and _spans(value, node, t) for value in given[1:])
    return False


def _letters_are_silent(node: Node, t: Tracker, silent: set[Value]) -> bool:
    """Each axis that could be cut comes from a factor that is zero there."""
    left, _, result = einsum_equation(node).partition("->")
    pairs = list(zip(left.split(","), node.inputs, strict=True))
    cut = [
        c for c, label in zip(result, t.axes(node.outputs[0]), strict=False) if is_labelled(label)
    ]
    return "." not in left and all(
        any(letter in term and _is_silent(value, silent) for term, value in pairs) for letter in cut
    )


def _spans(value: Value, node: Node, t: Tracker) -> bool:
    """It has every axis on which the output could lose channels, in full."""
    made, own = t.axes(node.outputs[0]), t.shape(value) or ()
    shape = t.shape(node.outputs[0]) or ()
    missing = len(shape) - len(own)
    return all(
        not is_labelled(label) or (axis >= missing and own[axis - missing] == shape[axis])
        for axis, label in enumerate(made)
    )


def _only_axis(axis: int, node: Node, t: Tracker) -> bool:
    """Nothing else than that axis of its output could be cut."""
    made = t.axes(node.outputs[0])
    return not any(is_labelled(label) for place, label in enumerate(made) if place != axis)


def _only_made_by_silent(node: Node, t: Tracker, silent: set[Value]) -> bool:
    """Each axis that could be cut comes from a factor that is zero there."""
    left, right = node.inputs[:2]
    made = t.axes(node.outputs[0])
    for axis, label in enumerate(made):
        if not is_labelled(label):
            continue
        place = axis - len(made)
        sources = [left] if place == -2 else [right] if place == -1 else [left, right]
        spanning = [v for v in sources if -place <= len(t.axes(v))]
        if not any(_is_silent(v, silent) and len(t.axes(v)[place]) == len(label) for v in spanning):
            return False
    return True


def _clips_around_zero(node: Node) -> bool:
    low, high = node.attr("min"), node.attr("max")
    if node.opset >= 11:
        given = [node.input(1), node.input(2)]
        if any(v is not None and v.array is None for v in given):
            return False
        low, high = (None if v is None or v.array is None else v.array.item() for v in given)
    return (low is None or low <= 0) and (high is None or high >= 0)


def _is_other_than_zero(value: Value) -> bool:
    return value.array is None or bool(np.any(value.array != 0))
