"""Fold BatchNormalization into the Gemm or two-dimensional MatMul before it.

    gain = scale / sqrt(var + epsilon)
    B'   = B * gain                          (gain runs along the columns of the result)
    C'   = (beta * C - mean) * gain + shift

A MatMul becomes a Gemm, which has room for C'.
"""

from onnxopt.rewriting.linear import absorb, batchnorm
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip


def rewrite(
    B: Array,  # [K, N], or [N, K] with transB
    C: Array | None,  # broadcast to [M, N]
    scale: Array,  # [N], as are shift, mean and var
    shift: Array,
    mean: Array,
    var: Array,
    c: Node,
    y: Node,
) -> Result:
    affine = batchnorm(y, scale, shift, mean, var)
    return affine if isinstance(affine, Skip) else absorb(c, affine)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
"""

BATCHNORM = """
    float[2] scale = {2, -3}, float[2] shift = {1, 2}, float[2] mean = {0.5, -0.25},
    float[2] var = {0.15, 3.9}
"""

THREE_DIMENSIONAL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2,3] x) => (float[N,2,2] y)
"""

rule = Rule(
    pattern=(
        """p (x) => (y) {
            c = Gemm(x, B, C)
            y = BatchNormalization(c, scale, shift, mean, var)
        }""",
        """p (x) => (y) {
            c = MatMul(x, B)
            y = BatchNormalization(c, scale, shift, mean, var)
        }""",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <float[2,3] B = {{1, 2, 3, 4, -1, 0.5}},
                float[1,2] C = {{0.5, -1}}, {BATCHNORM}> {{
                c = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, B, C)
                y = BatchNormalization<epsilon = 0.1>(c, scale, shift, mean, var)
            }}""",
            after=f"""{MODEL} <float[2,3] B = {{4, 8, 12, -6, 1.5, -0.75}},
                float[2] C = {{3, 4.625}}>
            {{ y = Gemm<transB = 1, alpha = 0.5>(x, B, C) }}""",
        ),
        Example(
            before=f"""{MODEL} <float[3,2] B = {{1, 2, 3, 4, -1, 0.5}}, {BATCHNORM}> {{
                c = MatMul(x, B)
                y = BatchNormalization<epsilon = 0.1>(c, scale, shift, mean, var)
            }}""",
            after=f"""{MODEL} <float[3,2] B = {{4, -3, 12, -6, -4, -0.75}},
                float[2] C = {{-1, 1.625}}>
            {{ y = Gemm(x, B, C) }}""",
        ),
        Example(  # the channels of BatchNormalization are the middle axis, those of MatMul the last
            before=f"""{THREE_DIMENSIONAL} <float[3,2] B = {{1, 2, 3, 4, -1, 0.5}}, {BATCHNORM}> {{
                c = MatMul(x, B)
                y = BatchNormalization(c, scale, shift, mean, var)
            }}""",
            after=None,
        ),
    ),
)
