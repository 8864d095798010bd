"""Fused attention: heads leave as a whole, with the key and value heads that they share."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Node, Value
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.tracker import Tracker


def _heads(t: Tracker, value: Value, axis: int, count: int) -> Axis:
    """One atom for each head of an axis [heads * size], or the axis itself if it is [heads]."""
    label = t.axes(value)[axis]
    if isinstance(label, str) or len(label) == count:
        return label
    t.join_blocks(label, count)
    return label.reshape(count, -1)[:, 0]


def _share(t: Tracker, queries: Axis, keys: Axis) -> Axis:
    """Each key head serves as many query heads."""
    if isinstance(queries, str) or isinstance(keys, str) or len(queries) == len(keys):
        return t.unite(queries, keys)
    return t.unite(queries, np.repeat(keys, len(queries) // len(keys)))


def attention(node: Node, t: Tracker) -> None:
    """Q, K, V [B, S, H D] or [B, H, S, D]: ONNX's Attention, MultiHeadAttention, GroupQuery..."""
    query, key, value = (node.input(i) for i in range(3))
    packed = key is None or value is None or query is None
    if packed or any(not v.omitted for v in node.inputs[4:]) or len(node.outputs) > 1:
        _refuse(node, t)
        return
    assert query is not None and key is not None and value is not None
    four = t.rank(query) == 4
    counts = _counts(node, t)
    axis = 1 if four else 2
    heads = _heads(t, query, axis, counts[0])
    for other in (key, value):
        joined = _heads(t, other, 1 if t.rank(other) == 4 else 2, counts[1])
        heads = _share(t, heads, joined)
    _mask(node, t, heads)
    if four:
        t.unite(t.axes(query)[3], t.axes(key)[3])
        t.pin(t.axes(query)[3], f"{node.label()} scales by the size of a head")
        axes = t.axes(query)
        t.set(node.outputs[0], [axes[0], heads, axes[2], t.axes(value)[3]])
        return
    width = (t.shape(node.outputs[0]) or (0, 0, 0))[2] // counts[0]
    made = heads if isinstance(heads, str) else np.repeat(heads, width)
    t.set(node.outputs[0], [*t.axes(query)[:2], made])


def _counts(node: Node, t: Tracker) -> tuple[int, int]:
    if t.rank(node.inputs[0]) == 4:
        shapes = [t.shape(node.inputs[i]) or (1, 1, 1, 1) for i in (0, 1)]
        return shapes[0][1], shapes[1][1]
    query = int(node.attr("q_num_heads") or node.attr("num_heads"))
    return query, int(node.attr("kv_num_heads") or query)


def _mask(node: Node, t: Tracker, heads: Axis) -> None:
    """A mask [..., H, S, S] follows the heads."""
    mask = node.input(3)
    if mask is None or node.domain not in ("", "ai.onnx"):
        if mask is not None:
            _refuse(node, t)
        return
    axes, shape = t.axes(mask), t.shape(mask) or ()
    if len(axes) > 2 and shape[-3] > 1:
        t.unite(heads, axes[-3])


def packed_attention(node: Node, t: Tracker) -> None:
    """com.microsoft.Attention: X [B, S, I], W [I, 3 H D], b [3 H D]."""
    if any(not v.omitted for v in node.inputs[4:]) or node.attr("qkv_hidden_sizes"):
        _refuse(node, t)
        return
    x, w, bias = node.inputs[0], node.inputs[1], node.input(2)
    t.unite(t.axes(x)[2], t.axes(w)[0])
    label = t.axes(w)[1]
    if bias is not None:
        t.unite(label, t.axes(bias)[0])
    heads = int(node.attr("num_heads"))
    made: Axis = label
    if not isinstance(label, str):
        thirds = t.join_across(label, 3)
        t.join_blocks(thirds, heads)
        made = thirds
    t.role(node, w, 0, "in")
    t.role(node, w, 1, "out")
    t.set(node.outputs[0], [*t.axes(x)[:2], made])


def rotary(node: Node, t: Tracker) -> None:
    """Angles are shared by all heads: a 4-D input loses whole heads, others stay."""
    data = node.inputs[0]
    axes = t.axes(data)
    why = f"{node.label()} turns pairs of this axis"
    count = int(node.attr("num_heads") or 0)
    if len(axes) == 3 and count:
        t.join_blocks(axes[2], count)
    else:
        t.pin(axes[-1], why)
    for value in node.inputs[1:]:
        if not value.omitted:
            t.pin_value(value, why)
    t.set(node.outputs[0], axes)


def _refuse(node: Node, t: Tracker) -> None:
    why = f"{node.label()} has inputs that are not followed"
    for value in node.inputs:
        if not value.omitted:
            t.pin_value(value, why)
    for output in node.outputs:
        if not output.omitted:
            t.set(output, [why] * (t.rank(output) or 0))


def adjust_heads(node: Node, cut: Cut) -> None:
    """`num_heads` and its kin follow the width of queries and keys."""
    t = cut.tracker
    packed = node.op == "Attention" and node.domain == "com.microsoft"
    names = {"q_num_heads": 0, "num_heads": 1 if packed else 0, "kv_num_heads": 1}
    for name, place in names.items():
        if not node.attrs.get(name):
            continue
        axis = 1 if packed else len(t.axes(node.inputs[place])) - 1
        stays = cut.kept(node.inputs[place], axis)
        if stays is not None:
            node.attrs[name] = int(node.attrs[name]) * int(stays.sum()) // len(stays)


FOLLOW = dict.fromkeys(("Attention", "MultiHeadAttention", "GroupQueryAttention"), attention)
FOLLOW["RotaryEmbedding"] = rotary

ADJUST = dict.fromkeys(
    ("Attention", "MultiHeadAttention", "GroupQueryAttention", "RotaryEmbedding"), adjust_heads
)
