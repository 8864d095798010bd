"""Fold BatchNormalization into the Conv before it.

At inference both are affine in the channels, so their composition is one Conv:

    gain = scale / sqrt(var + epsilon)
    W'   = W * gain                    (gain runs along the output channels)
    b'   = (b - mean) * gain + shift
"""

from onnxopt.rewriting.linear import absorb, batchnorm
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip


def rewrite(
    W: Array,  # [O, I / group, *kernel]
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
    g (float[N,1,3,3] x) => (float[N,2,2,2] y)
"""

BATCHNORM = """
    float[2] scale = {2, -3}, float[2] shift = {1, 2}, float[2] mean = {0.5, -0.25},
    float[2] var = {0.15, 3.9}
"""

WEIGHTS = "float[2,1,2,2] W = {1, 2, 3, 4, -1, 0.5, 2, -3}, float[2] b = {0.5, -1}"

GROUPED = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4,5] x) => (float[N,2,K] y)
"""

rule = Rule(
    pattern="""
        p (x) => (y) {
            c = Conv(x, W, b)
            y = BatchNormalization(c, scale, shift, mean, var)
        }""",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <{WEIGHTS}, {BATCHNORM}> {{
                c = Conv(x, W, b)
                y = BatchNormalization<epsilon = 0.1>(c, scale, shift, mean, var)
            }}""",
            after=f"""{MODEL}
            <float[2,1,2,2] W = {{4, 8, 12, 16, 1.5, -0.75, -3, 4.5}}, float[2] b = {{1, 3.125}}>
            {{ y = Conv(x, W, b) }}""",
        ),
        Example(
            before=f"""{GROUPED} <float[2,2,3] W = {{1, 2, 3, -4, 5, 6, 7, -8, 9, 0.5, 11, 12}},
                {BATCHNORM}> {{
                c = Conv<group = 2, pads = [1, 0], strides = [2]>(x, W)
                y = BatchNormalization<epsilon = 0.1>(c, scale, shift, mean, var)
            }}""",
            after=f"""{GROUPED} <float[2,2,3] W = {{4, 8, 12, -16, 20, 24, -10.5, 12, -13.5, -0.75,
                -16.5, -18}}, float[2] b = {{-1, 1.625}}>
            {{ y = Conv<group = 2, pads = [1, 0], strides = [2]>(x, W, b) }}""",
        ),
        Example(
            before=f"""{MODEL} <{WEIGHTS}, {BATCHNORM}> {{
                c = Conv(x, W, b)
                y, m, v = BatchNormalization<training_mode = 1>(c, scale, shift, mean, var)
            }}""",
            after=None,
        ),
    ),
)
