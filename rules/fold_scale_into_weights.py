"""Fold a constant factor for each output channel into Conv, ConvTranspose, Gemm or MatMul.

    (W * x + b) * k = (W * k) * x + b * k      and so for a division by k

k may be one number, or one for each channel in any shape that broadcasts along the channels only.
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
    factors = None if axis is None else by_channel(k, output_rank(c), axis)
    if factors is None:
        return Skip("the factor is not one number for each output channel")
    affine = arithmetic(y, factors, constant_first=y.inputs[0] is not c.outputs[0])
    return absorb(c, affine) if isinstance(affine, Affine) else affine


CONV = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,1,3,3] x) => (float[N,2,2,2] y)
"""

CONV_WEIGHTS = "float[2,1,2,2] W = {1, 2, 3, 4, -1, 0.5, 2, -3}, float[2] b = {0.5, -1}"

TRANSPOSED = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2,3] x) => (float[N,4,K] y)
"""

MATMUL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,S,3] x) => (float[N,S,2] y)
"""

GEMM = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
"""

rule = Rule(
    pattern=(
        "p (x) => (y) { c = AnyLinear(x, W, b) y = Mul(c, k) }",
        "p (x) => (y) { c = AnyLinear(x, W, b) y = Div(c, k) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{CONV} <{CONV_WEIGHTS}, float[2,1,1] k = {{2, -4}}>
            {{ c = Conv(x, W, b) y = Mul(k, c) }}""",
            after=f"""{CONV} <float[2,1,2,2] W = {{2, 4, 6, 8, 4, -2, -8, 12}},
                float[2] b = {{1, 4}}> {{ y = Conv(x, W, b) }}""",
        ),
        Example(
            before=f"""{TRANSPOSED} <float[2,2,2] W = {{1, 2, 3, 4, -1, 0.5, 2, -3}},
                float[1,4,1] k = {{2, -4, 8, -0.5}}>
            {{ c = ConvTranspose<group = 2>(x, W) y = Div(c, k) }}""",
            after=f"""{TRANSPOSED} <float[2,2,2] W = {{0.5, 1, -0.75, -1, -0.125, 0.0625, -4, 6}}>
            {{ y = ConvTranspose<group = 2>(x, W) }}""",
        ),
        Example(
            before=f"""{MATMUL} <float[3,2] W = {{1, 2, 3, 4, -1, 0.5}}, float[2] k = {{2, -4}}>
            {{ c = MatMul(x, W) y = Mul(c, k) }}""",
            after=f"""{MATMUL} <float[3,2] W = {{2, -8, 6, -16, -2, -2}}> {{ y = MatMul(x, W) }}""",
        ),
        Example(
            before=f"""{GEMM} <float[3,2] W = {{1, 2, 3, 4, -1, 0.5}}, float[2] b = {{3, 5}},
                float k = {{-2}}>
            {{ c = Gemm<beta = 0.5>(x, W, b) y = Mul(c, k) }}""",
            after=f"""{GEMM} <float[3,2] W = {{-2, -4, -6, -8, 2, -1}}, float[2] b = {{-3, -5}}>
            {{ y = Gemm(x, W, b) }}""",
        ),
        Example(  # along a spatial axis
            before=f"""{CONV} <{CONV_WEIGHTS}, float[2,1] k = {{2, -4}}>
            {{ c = Conv(x, W, b) y = Mul(c, k) }}""",
            after=None,
        ),
        Example(  # k / c is not linear
            before=f"""{CONV} <{CONV_WEIGHTS}, float[2,1,1] k = {{2, -4}}>
            {{ c = Conv(x, W, b) y = Div(k, c) }}""",
            after=None,
        ),
    ),
)
