"""Fold BatchNormalization into the ConvTranspose before it.

As for Conv, but output channels lie along the second axis of the weights, group by group:

    gain               = scale / sqrt(var + epsilon)
    W'[i, o, *kernel]  = W[i, o, *kernel] * gain[g * (O / group) + o]    (i is in group g)
    b'                 = (b - mean) * gain + shift
"""

from onnxopt.rewriting.linear import absorb, batchnorm
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip


def rewrite(
    W: Array,  # [I, O / group, *kernel]
    b: Array | None,  # [O]
    scale: Array,  # [O], as are shift, mean and var
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
    g (float[N,2,3] x) => (float[N,2,K] y)
"""

BATCHNORM = """
    float[2] scale = {2, -3}, float[2] shift = {1, 2}, float[2] mean = {0.5, -0.25},
    float[2] var = {0.15, 3.9}
"""

rule = Rule(
    pattern="""
        p (x) => (y) {
            c = ConvTranspose(x, W, b)
            y = BatchNormalization(c, scale, shift, mean, var)
        }""",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <float[2,2,2] W = {{1, 2, 3, 4, -1, 0.5, 2, -3}},
                float[2] b = {{0.5, -1}}, {BATCHNORM}> {{
                c = ConvTranspose<strides = [2]>(x, W, b)
                y = BatchNormalization<epsilon = 0.1>(c, scale, shift, mean, var)
            }}""",
            after=f"""{MODEL} <float[2,2,2] W = {{4, 8, -4.5, -6, -4, 2, -3, 4.5}},
                float[2] b = {{1, 3.125}}>
            {{ y = ConvTranspose<strides = [2]>(x, W, b) }}""",
        ),
        Example(
            before=f"""{MODEL} <float[2,1,3] W = {{1, 2, 3, 4, -1, 0.5}}, {BATCHNORM}> {{
                c = ConvTranspose<group = 2, output_padding = [1], strides = [2]>(x, W)
                y = BatchNormalization<epsilon = 0.1>(c, scale, shift, mean, var)
            }}""",
            after=f"""{MODEL} <float[2,1,3] W = {{4, 8, 12, -6, 1.5, -0.75}},
                float[2] b = {{-1, 1.625}}>
            {{ y = ConvTranspose<group = 2, output_padding = [1], strides = [2]>(x, W, b) }}""",
        ),
    ),
)
