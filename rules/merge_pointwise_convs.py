"""Merge two Convs into one where either of them is 1x1 and nothing lies between.

    V * (W * x + b) + d = (V W) * x + (V b + d)

Where the first is 1x1 and the second pads, only without b: zeros are put around what the first
gives, and there b would have been missing. Only where the merged weights are no more than the
weights of both, so that there is less to multiply too: the narrow middle of a bottleneck stays.
"""

from typing import Any

import numpy as np

from onnxopt.rewriting.padding import own_padding
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, attr, op
from onnxopt.rewriting.words import copy_needed, is_float, narrowed


def rewrite(
    x: Value,
    W: Array,  # [M, I, *kernel]
    b: Array | None,  # [M]
    V: Array,  # [O, M, *kernel]
    d: Array | None,  # [O]
    c: Node,
    y: Node,
) -> Result:
    if not is_float(W.dtype) or W.dtype != V.dtype or W.ndim != V.ndim or W.ndim < 3:
        return Skip("the weights are of other types or ranks")
    if attr(c, "group") != 1 or attr(y, "group") != 1 or V.shape[1] != W.shape[0]:
        return Skip("a convolution has groups")
    if any(k is not None and k.shape != w.shape[:1] for k, w in ((b, W), (d, V))):
        return Skip("a bias does not fit the weights")
    for node in (c, y):
        if (reason := copy_needed(node, 1)) is not None:
            return reason
    attrs = _attributes(c, y, W, V, has_bias=b is not None and bool(b.any()))
    if isinstance(attrs, Skip):
        return attrs
    with np.errstate(all="ignore"):  # the kernel of one of them is broadcast
        exact = np.einsum("om...,mi...->oi...", V.astype(np.float64), W.astype(np.float64))
        bias = np.zeros(len(V)) if d is None else d.astype(np.float64)
        if b is not None:
            bias = bias + V.astype(np.float64).reshape(*V.shape[:2], -1).sum(-1) @ b
    if exact.size > W.size + V.size:
        return Skip("the merged weights are more than those of both")
    weight, offset = narrowed(exact, W.dtype, 0), narrowed(bias, W.dtype)
    if weight is None or offset is None:
        return Skip(f"the merged weights are too large or too small for {W.dtype}")
    return op("Conv", x, weight, None if b is None and d is None else offset, **attrs)


def _attributes(c: Node, y: Node, W: Array, V: Array, *, has_bias: bool) -> dict[str, Any] | Skip:
    """Of the merged convolution."""
    spatial = W.ndim - 2
    if _is_pointwise(c, W) and not any(s != 1 for s in _strides(c, spatial)):
        padding = own_padding(y, spatial)
        if has_bias and (isinstance(padding, Skip) or any(padding.pads)):
            return Skip("the second puts zeros around what it reads, where the bias is missing")
        return dict(y.attrs)
    if not _is_pointwise(y, V):
        return Skip("neither convolution is 1x1 at every position")
    strides = [s * t for s, t in zip(_strides(c, spatial), _strides(y, spatial), strict=True)]
    if strides == _strides(c, spatial):
        return dict(c.attrs)
    if attr(c, "auto_pad") not in ("NOTSET", "VALID"):
        return Skip("the padding of the first depends on its strides")
    return {**c.attrs, "strides": strides}


def _is_pointwise(node: Node, weight: Array) -> bool:
    """1x1 without padding."""
    padding = own_padding(node, weight.ndim - 2)
    zero = not isinstance(padding, Skip) and not any(padding.pads)
    return zero and all(size == 1 for size in weight.shape[2:])


def _strides(node: Node, spatial: int) -> list[int]:
    return [int(s) for s in node.attrs.get("strides") or [1] * spatial]


HEAD = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2,5,5] x) => (float[N,2,A,B] y)
"""

FIRST = "float[2,2,1,1] W = {1, 2, 3, 4}"

BIAS = "float[2] b = {1, -2}"

SECOND = "float[2,2,1,2] V = {1, 2, 3, 4, -1, 0.5, 2, -3}"

MERGED = "float[2,2,1,2] V = {10, 14, 14, 20, 5, -8.5, 6, -11}"

WIDE = "float[2,2,3,1] W = {1, 2, 3, 4, -1, 0.5, 2, -3, 1, -2, 4, 2}"

rule = Rule(
    pattern="p (x) => (y) { c = Conv(x, W, b) y = Conv(c, V, d) }",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(  # padded, which is right without a bias
            before=f"""{HEAD} <{FIRST}, {SECOND}, float[2] d = {{5, 7}}>
            {{ c = Conv(x, W) y = Conv<pads = [1, 0, 1, 2], strides = [2, 1]>(c, V, d) }}""",
            after=f"""{HEAD} <{MERGED}, float[2] d = {{5, 7}}>
            {{ y = Conv<pads = [1, 0, 1, 2], strides = [2, 1]>(x, V, d) }}""",
        ),
        Example(
            before=f"{HEAD} <{FIRST}, {BIAS}, {SECOND}> {{ c = Conv(x, W, b) y = Conv(c, V) }}",
            after=f"{HEAD} <{MERGED}, float[2] d = {{-11, 1.5}}> {{ y = Conv(x, V, d) }}",
        ),
        Example(  # the second is 1x1
            before=f"""{HEAD} <{WIDE}, {BIAS}, float[2,2,1,1] V = {{2, 1, 0, 3}}>
            {{ c = Conv<pads = [1, 0, 1, 0], strides = [1, 2]>(x, W, b)
            y = Conv<strides = [2, 1]>(c, V) }}""",
            after=f"""{HEAD} <float[2,2,3,1] W = {{4, 1, 7, 6, 2, 3, 6, -9, 3, -6, 12, 6}},
                float[2] b = {{0, -6}}>
            {{ y = Conv<pads = [1, 0, 1, 0], strides = [2, 2]>(x, W, b) }}""",
        ),
        Example(  # around the zeros of the padding there is no bias of the first
            before=f"""{HEAD} <{FIRST}, {BIAS}, {SECOND}>
            {{ c = Conv(x, W, b) y = Conv<pads = [1, 0, 1, 0]>(c, V) }}""",
            after=None,
        ),
        Example(  # the middle is narrow
            before=f"""{HEAD} <float[1,2,1,1] W = {{1, 2}}, float[8,1,1,2] V = {{1, 2, 3, 4, 5, 6,
                7, 8, 1, 2, 3, 4, 5, 6, 7, 8}}>
            {{ c = Conv(x, W) e = Conv(c, V) y = ReduceMax<axes = [1]>(e) }}""",
            after=None,
        ),
        Example(
            before=f"""{HEAD} <{WIDE}, {SECOND}> {{ c = Conv(x, W) y = Conv(c, V) }}""",
            after=None,
        ),
        Example(
            before=f"""{HEAD} <{FIRST}, float[2,1,1,2] V = {{1, 2, 3, 4}}>
            {{ c = Conv(x, W) y = Conv<group = 2>(c, V) }}""",
            after=None,
        ),
        Example(
            before=f"""{HEAD} <float[2,1,1,1] W = {{1, 2}}, {SECOND}>
            {{ c = Conv<group = 2>(x, W) y = Conv(c, V) }}""",
            after=None,
        ),
        Example(  # with other strides the padding would be another one
            before=f"""{HEAD} <{WIDE}, float[2,2,1,1] V = {{2, 1, 0, 3}}>
            {{ c = Conv<auto_pad = "SAME_UPPER">(x, W) y = Conv<strides = [2, 2]>(c, V) }}""",
            after=None,
        ),
        Example(
            before=f"""{HEAD} <{FIRST}, {SECOND}>
            {{ c = Conv<strides = [2, 2]>(x, W) y = Conv(c, V) }}""",
            after=None,
        ),
    ),
)
