"""Merge two BatchNormalizations in a row into the first one.

y = gain * (scale * n + shift) + offset        n: normalized by mean, var and epsilon
  = (gain * scale) * n + (gain * shift + offset)
"""

from onnxopt.rewriting.linear import batchnorm, rescaled
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip


def rewrite(
    scale: Array,  # [C], as are all others
    shift: Array,
    mean: Array,
    var: Array,
    scale2: Array,
    shift2: Array,
    mean2: Array,
    var2: Array,
    n: Node,
    y: Node,
) -> Result:
    affine = batchnorm(y, scale2, shift2, mean2, var2)
    return affine if isinstance(affine, Skip) else rescaled(n, affine)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2,3] x) => (float[N,2,3] y)
"""

FIRST = """
    float[2] scale = {2, -3}, float[2] shift = {1, 2}, float[2] mean = {0.5, -0.25},
    float[2] var = {0.15, 3.9}
"""

SECOND = """
    float[2] scale2 = {5, 7}, float[2] shift2 = {-3, 4}, float[2] mean2 = {0.25, 2},
    float[2] var2 = {0.25, 4}
"""

rule = Rule(
    pattern="""
        p (x) => (y) {
            n = BatchNormalization(x, scale, shift, mean, var)
            y = BatchNormalization(n, scale2, shift2, mean2, var2)
        }""",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <{FIRST}, {SECOND}> {{
                n = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var)
                y = BatchNormalization<epsilon = 0.0>(n, scale2, shift2, mean2, var2)
            }}""",
            after=f"""{MODEL} <float[2] scale = {{20, -10.5}}, float[2] shift = {{4.5, 4}},
                float[2] mean = {{0.5, -0.25}}, float[2] var = {{0.15, 3.9}}>
            {{ y = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var) }}""",
        ),
    ),
)
