"""Fold a constant that is added before a Conv, Gemm or MatMul into the bias after it.

    W * (x + k) + b = W * x + (b + W * k)

k may be one number, or one for each channel in any shape that broadcasts along the channels only.
Not before a convolution that pads: zeros are put around x + k, not around x, so at the edges the
constant reaches fewer weights. A MatMul of more than two axes has its bias in the Add after it.
"""

from dataclasses import replace

import numpy as np

from onnxopt.rewriting.linear import Affine, absorb, by_channel, output_rank
from onnxopt.rewriting.padding import own_padding
from onnxopt.rewriting.rule import Array, Example, Node, Op, Result, Rule, Skip, Value, attr, op
from onnxopt.rewriting.words import copy_needed, is_float, keeps_shape, narrowed


def rewrite(x: Value, k: Array, W: Array, b: Array | None, a: Node, y: Node) -> Result:
    (c,) = a.outputs[0].consumers
    if not is_float(W.dtype) or not keeps_shape(x, k.shape):
        return Skip("the constant may enlarge the shape")
    rank = output_rank(c)
    axis = -1 if c.op in ("Gemm", "MatMul") else 1 - W.ndim
    summands = None if rank is None else by_channel(k, rank, axis)
    if summands is None:
        return Skip("the summand is not one number for each channel")
    with np.errstate(all="ignore"):
        moved = _moved(c, W, summands.astype(np.float64) * (-1 if a.op == "Sub" else 1))
    if isinstance(moved, Skip):
        return moved
    if y is not c:
        return _with_sum(x, b, moved, c, y)
    made = absorb(c, Affine(np.ones(()), moved))
    return replace(made, inputs=(x, *made.inputs[1:])) if isinstance(made, Op) else made


def _moved(c: Node, W: Array, k: Array) -> Array | Skip:
    """W * k, one number for each output: [O]."""
    if c.op in ("Gemm", "MatMul"):
        if W.ndim != 2 or attr(c, "transA"):
            return Skip("the product is not one with a matrix of weights")
        weight = W.astype(np.float64).T if attr(c, "transB") else W.astype(np.float64)
        alpha = float(attr(c, "alpha")) if c.op == "Gemm" else 1.0
        return np.asarray(np.broadcast_to(k, weight.shape[:1]) @ weight) * alpha
    padding = own_padding(c, W.ndim - 2)
    if isinstance(padding, Skip):
        return padding
    if any(padding.pads):
        return Skip("the convolution puts zeros around its input, not the constant")
    group = attr(c, "group")
    taps = W.astype(np.float64).sum(axis=tuple(range(2, W.ndim)))  # [O, I / group]
    if group < 1 or len(taps) % group or k.size not in (1, taps.shape[1] * group):
        return Skip("the channels do not fit the weights")
    inputs = np.broadcast_to(k.reshape(-1), (taps.shape[1] * group,)).reshape(group, -1)
    parts = taps.reshape(group, -1, taps.shape[1])
    return np.asarray(np.einsum("goi,gi->go", parts, inputs).reshape(-1))


def _with_sum(x: Value, b: Array | None, moved: Array, c: Node, y: Node) -> Result:
    """A product whose bias is in the Add after it."""
    assert b is not None
    total = b.astype(np.float64) + moved
    if total.size > max(b.size, moved.size):
        return Skip("the new bias is larger than both")
    for place in (0, 1):
        if (reason := copy_needed(y, place)) is not None:
            return reason
    bias = narrowed(total, b.dtype)
    if bias is None:
        return Skip(f"the new bias is too large for {b.dtype}")
    return op("Add", op("MatMul", x, c.inputs[1]), bias)


HEAD = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2,3,3] x) => (float[N,2,A,B] y)
"""

WEIGHTS = "float[2,2,1,2] W = {1, 2, 3, 4, -1, 0.5, 2, -3}, float[2] b = {0.5, -1}"

K = "float[2,1,1] k = {2, -4}"

GROUPED = "float[2,1,1,2] W = {1, 2, 3, 4}"

PRODUCT = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,S,3] x) => (float[N,S,2] y)
"""

MATRIX = "float[3,2] W = {1, 2, 3, 4, -1, 0.5}"

GEMM = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
"""

rule = Rule(
    pattern=(
        "p (x) => (y) { a = Add(x, k) y = Conv(a, W, b) }",
        "p (x) => (y) { a = Sub(x, k) y = Conv(a, W, b) }",
        "p (x) => (y) { a = Add(x, k) y = Gemm(a, W, b) }",
        "p (x) => (y) { a = Sub(x, k) y = Gemm(a, W, b) }",
        "p (x) => (y) { a = Add(x, k) y = MatMul(a, W) }",
        "p (x) => (y) { a = Sub(x, k) y = MatMul(a, W) }",
        "p (x) => (y) { a = Add(x, k) c = MatMul(a, W) y = Add(c, b) }",
        "p (x) => (y) { a = Sub(x, k) c = MatMul(a, W) y = Add(c, b) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"{HEAD} <{WEIGHTS}, {K}> {{ a = Add(x, k) y = Conv(a, W, b) }}",
            after=f"""{HEAD} <{WEIGHTS.split(", float[2] b")[0]}, float[2] b = {{-21.5, 2}}>
            {{ y = Conv(x, W, b) }}""",
        ),
        Example(
            before=f"""{HEAD} <{GROUPED}, {K}>
            {{ a = Sub(x, k) y = Conv<group = 2, strides = [2, 1]>(a, W) }}""",
            after=f"""{HEAD} <{GROUPED}, float[2] b = {{-6, 28}}>
            {{ y = Conv<group = 2, strides = [2, 1]>(x, W, b) }}""",
        ),
        Example(
            before=f"""{GEMM} <{MATRIX}, float[3] k = {{2, -4, 1}}, float[2] b = {{3, 5}}>
            {{ a = Add(x, k) y = Gemm<alpha = 0.5, beta = 2.0>(a, W, b) }}""",
            after=f"""{GEMM} <{MATRIX}, float[2] b = {{0.5, 4.25}}>
            {{ y = Gemm<alpha = 0.5>(x, W, b) }}""",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,4,3,3] x) => (float[N,2,3,2] y) <float[2,2,1,2] W = {1, 2, 3, 4, 5, 6, 7, 8},
                float[1,4,1,1] k = {2, -4, 1, 3}>
            { a = Add(k, x) y = Conv<group = 2>(a, W) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,4,3,3] x) => (float[N,2,3,2] y)
            <float[2,2,1,2] W = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] b = {-22, 56}>
            { y = Conv<group = 2>(x, W, b) }""",
        ),
        Example(
            before=f"""
            <ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,3] y)
            <{MATRIX}, float[2] k = {{2, -4}}> {{ a = Add(x, k) y = Gemm<transB = 1>(a, W) }}""",
            after=f"""
            <ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,3] y)
            <{MATRIX}, float[3] b = {{-6, -10, -4}}> {{ y = Gemm<transB = 1>(x, W, b) }}""",
        ),
        Example(
            before=f"""{GEMM} <{MATRIX}, float[3] k = {{2, -4, 1}}>
            {{ a = Add(x, k) y = MatMul(a, W) }}""",
            after=f"{GEMM} <{MATRIX}, float[2] b = {{-11, -11.5}}> {{ y = Gemm(x, W, b) }}",
        ),
        Example(
            before=f"""{PRODUCT} <{MATRIX}, float[3] k = {{2, -4, 1}}, float[2] b = {{3, 5}}>
            {{ a = Add(x, k) c = MatMul(a, W) y = Add(c, b) }}""",
            after=f"""{PRODUCT} <{MATRIX}, float[2] b = {{-8, -6.5}}>
            {{ c = MatMul(x, W) y = Add(c, b) }}""",
        ),
        Example(  # at the edges there are zeros, and no constant
            before=f"""{HEAD} <{WEIGHTS}, {K}>
            {{ a = Add(x, k) y = Conv<pads = [0, 1, 0, 0]>(a, W, b) }}""",
            after=None,
        ),
        Example(  # along a spatial axis
            before=f"""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,2,3,2] x) => (float[N,2,A,B] y) <{WEIGHTS}, float[2] k = {{2, -4}}>
            {{ a = Add(x, k) y = Conv(a, W, b) }}""",
            after=None,
        ),
        Example(  # there is nothing to add it to
            before=f"""{PRODUCT} <{MATRIX}, float[3] k = {{2, -4, 1}}>
            {{ a = Add(x, k) y = MatMul(a, W) }}""",
            after=None,
        ),
        Example(
            before=f"""{HEAD} <{WEIGHTS}, {K}>
            {{ a = Add(x, k) c = Conv(a, W, b) d = Conv(a, W) y = Sub(c, d) }}""",
            after=None,
        ),
    ),
)
