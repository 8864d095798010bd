"""How atoms pass through each operator, and how its attributes follow a cut: one table."""

from __future__ import annotations

from collections.abc import Callable

from onnxopt.graph import Graph, Node
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.follow import (
    attention,
    elementwise,
    moving,
    normalizing,
    padding,
    picking,
    products,
    quantizing,
    recurrent,
    reshaping,
)
from onnxopt.pruning.follow.control import follow_bodies
from onnxopt.pruning.tracker import Tracker

_MODULES = (
    *(elementwise, moving, picking, padding, normalizing, products),
    *(recurrent, reshaping, attention, quantizing),
)

FOLLOW: dict[str, Callable[[Node, Tracker], None]] = {
    name: function for module in _MODULES for name, function in module.FOLLOW.items()
}
ADJUST: dict[str, Callable[[Node, Cut], None]] = {
    name: function for module in _MODULES for name, function in module.ADJUST.items()
}

_FOLLOWED_CONTRIB = frozenset(
    ("BiasGelu", "FastGelu", "QuickGelu", "Gelu", "FusedConv", "FusedGemm", "MultiHeadAttention")
    + ("GroupQueryAttention", "RotaryEmbedding", "SkipLayerNormalization")
    + ("SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization")
    + ("QLinearAveragePool", "QLinearGlobalAveragePool", "QuantizeLinear", "DequantizeLinear")
    + ("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearConcat")
)


def follow(node: Node, t: Tracker) -> None:
    """Label what a node makes; an operator that is not known pins all that it reads."""
    outer, t.reading = t.reading, node
    if node.bodies:
        follow_bodies(node, t, follow)
    elif (function := _function(node)) is None:
        _pin_unknown(node, t, f"{node.label()} is not followed")
    elif not all(map(t.is_known, node.inputs)):
        _pin_unknown(node, t, f"{node.label()} reads a value of unknown rank")
    else:
        t.followed.add(node)
        function(node, t)
    t.reading = outer


def _function(node: Node) -> Callable[[Node, Tracker], None] | None:
    if node.op == "Attention" and node.domain == "com.microsoft":
        return attention.packed_attention
    if node.is_standard and not (node.opset < 7 and node.attr("broadcast")):
        return FOLLOW.get(node.op)
    is_contrib = node.domain == "com.microsoft" and node.op in _FOLLOWED_CONTRIB
    return FOLLOW.get(node.op) if is_contrib else None


def pin_parameters(graph: Graph, t: Tracker) -> None:
    """What a node reads without regard for its labels must stay as it is."""
    for inner in graph.walk():
        for node in inner.nodes:
            if node.op in ("Shape", "Size") and node.is_standard:
                continue
            for place, value in enumerate(node.inputs):
                if t.is_parameter(node, value) and (node.op, place) != ("CastLike", 1):
                    t.pin_value(value, f"{node.label()} reads '{value.name}' as a parameter")


def _pin_unknown(node: Node, t: Tracker, why: str) -> None:
    if node.op in ("Shape", "Size") and node.is_standard:
        why = "it is a size"
    else:
        for value in node.reads():
            t.pin_value(value, why)
    for output in node.outputs:
        if not output.omitted:
            t.set(output, [why] * (t.rank(output) or 0))
