"""How atoms pass through each operator, and how its attributes follow a cut: one table."""

from __future__ import annotations

from collections.abc import Callable

from onnxopt.graph import Node
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.follow import (
    attention,
    elementwise,
    moving,
    normalizing,
    products,
    recurrent,
    reshaping,
)
from onnxopt.pruning.follow.control import follow_bodies
from onnxopt.pruning.tracker import Tracker

_MODULES = (elementwise, moving, normalizing, products, recurrent, reshaping, attention)

FOLLOW: dict[str, Callable[[Node, Tracker], None]] = {
    name: function for module in _MODULES for name, function in module.FOLLOW.items()
}
ADJUST: dict[str, Callable[[Node, Cut], None]] = {
    name: function
    for module in (moving, normalizing, products, recurrent, reshaping, attention)
    for name, function in module.ADJUST.items()
}

_FOLLOWED_CONTRIB = frozenset(
    ("BiasGelu", "FastGelu", "QuickGelu", "Gelu", "FusedConv", "FusedGemm", "MultiHeadAttention")
    + ("GroupQueryAttention", "RotaryEmbedding", "SkipLayerNormalization")
    + ("SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization")
    + ("QLinearAveragePool", "QLinearGlobalAveragePool", "QuantizeLinear", "DequantizeLinear")
)


def follow(node: Node, t: Tracker) -> None:
    """Label what a node makes; an operator that is not known pins all that it reads."""
    if node.bodies:
        follow_bodies(node, t, follow)
        return
    if node.op == "Attention" and node.domain == "com.microsoft":
        attention.packed_attention(node, t)
        return
    known = node.is_standard or (node.domain == "com.microsoft" and node.op in _FOLLOWED_CONTRIB)
    function = FOLLOW.get(node.op) if known else None
    if function is None or not all(map(t.is_known, node.inputs)):
        _pin_unknown(node, t)
        return
    function(node, t)


def _pin_unknown(node: Node, t: Tracker) -> None:
    if node.op in ("Shape", "Size"):
        why = "it is a size"
    else:
        why = f"{node.label()} is not followed"
        for value in node.reads():
            t.pin_value(value, why)
    for output in node.outputs:
        if not output.omitted:
            t.set(output, [why] * (t.rank(output) or 0))
