"""Fold a constant summand for each output channel into Conv, ConvTranspose or Gemm.

    (W * x + b) + k = W * x + (b + k)
    (W * x + b) - k = W * x + (b - k)
    k - (W * x + b) = (-W) * x + (k - b)

k may be one number, or one for each channel in any shape that broadcasts along the channels only.
For a MatMul, which has no bias, see merge-matmul-add.
"""

from onnxopt.rewriting.linear import (
    Affine,
    absorb,
    arithmetic,
    by_channel,
    channel_axis,
    output_rank,
)
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip


def rewrite(W: Array, b: Array | None, k: Array, c: Node, y: Node) -> Result:
    axis = channel_axis(c)
    summands = None if axis is None else by_channel(k, output_rank(c), axis)
    if summands is None or c.op == "MatMul":
        return Skip("there is no bias that the constant could be added to")
    affine = arithmetic(y, summands, constant_first=y.inputs[0] is not c.outputs[0])
    return absorb(c, affine) if isinstance(affine, Affine) else affine


CONV = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,1,3,3] x) => (float[N,2,2,2] y)
"""

CONV_WEIGHTS = "float[2,1,2,2] W = {1, 2, 3, 4, -1, 0.5, 2, -3}, float[2] b = {0.5, -1}"

GEMM = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
"""

GEMM_WEIGHTS = "float[3,2] W = {1, 2, 3, 4, -1, 0.5}"

rule = Rule(
    pattern=(
        "p (x) => (y) { c = AnyLinear(x, W, b) y = Add(c, k) }",
        "p (x) => (y) { c = AnyLinear(x, W, b) y = Sub(c, k) }",
        "p (x) => (y) { c = AnyLinear(x, W, b) y = Sub(k, c) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{CONV} <{CONV_WEIGHTS}, float[2,1,1] k = {{2, -4}}>
            {{ c = Conv(x, W, b) y = Add(c, k) }}""",
            after=f"""{CONV} <float[2,1,2,2] W = {{1, 2, 3, 4, -1, 0.5, 2, -3}},
                float[2] b = {{2.5, -5}}> {{ y = Conv(x, W, b) }}""",
        ),
        Example(
            before=f"""{CONV} <{CONV_WEIGHTS}, float[1,2,1,1] k = {{2, -4}}>
            {{ c = Conv(x, W, b) y = Sub(k, c) }}""",
            after=f"""{CONV} <float[2,1,2,2] W = {{-1, -2, -3, -4, 1, -0.5, -2, 3}},
                float[2] b = {{1.5, -3}}> {{ y = Conv(x, W, b) }}""",
        ),
        Example(
            before=f"""{GEMM} <{GEMM_WEIGHTS}, float[2] k = {{3, 5}}>
            {{ c = Gemm<alpha = 0.5>(x, W) y = Sub(c, k) }}""",
            after=f"""{GEMM} <{GEMM_WEIGHTS}, float[2] b = {{-3, -5}}>
            {{ y = Gemm<alpha = 0.5>(x, W, b) }}""",
        ),
        Example(  # along a spatial axis
            before=f"""{CONV} <{CONV_WEIGHTS}, float[2] k = {{2, -4}}>
            {{ c = Conv(x, W, b) y = Add(c, k) }}""",
            after=None,
        ),
    ),
)
