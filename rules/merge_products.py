"""Merge two products with constant matrices into one, where nothing lies between.

    (x W + b) V + d = x (W V) + (b V + d)      in Gemm and MatMul

Only where the merged matrix is no larger than both, so that there is less to multiply too: two
narrow factors of a wide matrix stay.
"""

import numpy as np

from onnxopt.rewriting.linear import by_channel
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, attr, op
from onnxopt.rewriting.words import copy_needed, is_float, narrowed


def rewrite(
    x: Value, W: Array, b: Array | None, V: Array, d: Array | None, c: Node, y: Node
) -> Result:
    if not is_float(W.dtype) or W.dtype != V.dtype or W.ndim != 2 or V.ndim != 2:
        return Skip("the weights are not two matrices of one type")
    if attr(c, "transA") or attr(y, "transA"):
        return Skip("a product transposes what it reads")
    for node in (c, y):
        if (reason := copy_needed(node, 1)) is not None:
            return reason
    first, second = _factor(c, W), _factor(y, V)
    if first.shape[1] != second.shape[0]:
        return Skip("the matrices do not fit")
    if first.shape[0] * second.shape[1] > W.size + V.size:
        return Skip("the merged matrix is larger than both")
    offsets = [_offset(node, array, m) for node, array, m in ((c, b, first), (y, d, second))]
    if offsets[0] is None or offsets[1] is None:
        return Skip("a bias is not one number for each output")
    with np.errstate(all="ignore"):
        weight = narrowed(first @ second, W.dtype, 1)
        bias = narrowed(offsets[0] @ second + offsets[1], W.dtype)
    if weight is None or bias is None:
        return Skip(f"the merged weights are too large or too small for {W.dtype}")
    if c.op == y.op == "MatMul":
        return op("MatMul", x, weight)
    return op("Gemm", x, weight, None if b is None and d is None and y.opset >= 11 else bias)


def _factor(node: Node, weight: Array) -> Array:
    """What a product multiplies with, [inputs, outputs]."""
    exact = weight.astype(np.float64)
    if node.op == "MatMul":
        return exact
    return (exact.T if attr(node, "transB") else exact) * float(attr(node, "alpha"))


def _offset(node: Node, bias: Array | None, factor: Array) -> Array | None:
    """What it adds, [outputs]; None if that differs from row to row."""
    if bias is None:
        return np.zeros(factor.shape[1])
    channels = by_channel(bias, 2, -1)
    if channels is None or channels.size not in (1, factor.shape[1]):
        return None
    exact = channels.astype(np.float64) * float(attr(node, "beta"))
    return np.asarray(np.broadcast_to(exact.reshape(-1), factor.shape[1:]))


HEAD = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2] x) => (float[N,3] y)
"""

WEIGHTS = "float[2,2] W = {1, 2, 3, 4}, float[2,3] V = {1, 2, 3, 4, -1, 0.5}"

MERGED = "float[2,3] V = {9, 0, 4, 19, 2, 11}"

rule = Rule(
    pattern=(
        "p (x) => (y) { c = MatMul(x, W) y = MatMul(c, V) }",
        "p (x) => (y) { c = Gemm(x, W, b) y = Gemm(c, V, d) }",
        "p (x) => (y) { c = MatMul(x, W) y = Gemm(c, V, d) }",
        "p (x) => (y) { c = Gemm(x, W, b) y = MatMul(c, V) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"{HEAD} <{WEIGHTS}> {{ c = MatMul(x, W) y = MatMul(c, V) }}",
            after=f"{HEAD} <{MERGED}> {{ y = MatMul(x, V) }}",
        ),
        Example(
            before=f"""{HEAD} <{WEIGHTS}, float[2] b = {{2, -4}}, float[3] d = {{1, 2, 3}}>
            {{ c = Gemm<beta = 0.5>(x, W, b) y = Gemm<alpha = 2.0>(c, V, d) }}""",
            after=f"""{HEAD} <float[2,3] V = {{18, 0, 8, 38, 4, 22}},
                float[3] d = {{-13, 10, 7}}> {{ y = Gemm(x, V, d) }}""",
        ),
        Example(
            before=f"{HEAD} <{WEIGHTS}> {{ c = MatMul(x, W) y = Gemm(c, V) }}",
            after=f"{HEAD} <{MERGED}> {{ y = Gemm(x, V) }}",
        ),
        Example(
            before=f"""{HEAD} <{WEIGHTS}, float[1,2] b = {{2, -4}}>
            {{ c = Gemm<transB = 1>(x, W, b) y = MatMul(c, V) }}""",
            after=f"""{HEAD} <float[2,3] V = {{13, -1, 4.5, 18, 0, 8}},
                float[3] d = {{-14, 8, 4}}> {{ y = Gemm(x, V, d) }}""",
        ),
        Example(  # two narrow factors
            before=f"""{HEAD} <float[2,1] W = {{1, 2}}, float[1,3] V = {{1, 2, 3}}>
            {{ c = MatMul(x, W) y = MatMul(c, V) }}""",
            after=None,
        ),
        Example(  # a bias for each row
            before=f"""
            <ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x) => (float[2,3] y)
            <{WEIGHTS}, float[2,1] b = {{2, -4}}>
            {{ c = Gemm(x, W, b) y = Gemm(c, V) }}""",
            after=None,
        ),
    ),
)
