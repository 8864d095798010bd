"""Fold a constant for each channel into the BatchNormalization before it.

    (scale * n + shift) * k = (scale * k) * n + shift * k    and so for a division by k
    (scale * n + shift) + k = scale * n + (shift + k)
    (scale * n + shift) - k = scale * n + (shift - k)
    k - (scale * n + shift) = (-scale) * n + (k - shift)

n is the input normalized by mean, var and epsilon.
"""

from onnxopt.rewriting.linear import arithmetic, by_channel, rescaled
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip
from onnxopt.rewriting.words import rank_of


def rewrite(
    scale: Array,  # [C], as are shift, mean and var
    shift: Array,
    mean: Array,
    var: Array,
    k: Array,
    n: Node,
    y: Node,
) -> Result:
    rank = rank_of(n.outputs[0])
    numbers = by_channel(k, rank, 1 - rank if rank else 0)
    if numbers is None:
        return Skip("the constant is not one number for each channel")
    affine = arithmetic(y, numbers, constant_first=y.inputs[0] is not n.outputs[0])
    return affine if isinstance(affine, Skip) else rescaled(n, affine)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2,3] x) => (float[N,2,3] y)
"""

STATISTICS = "float[2] mean = {0.5, -0.25}, float[2] var = {0.15, 3.9}"
BEFORE = f"float[2] scale = {{2, -3}}, float[2] shift = {{1, 2}}, {STATISTICS}"

rule = Rule(
    pattern=(
        "p (x, k) => (y) { n = BatchNormalization(x, scale, shift, mean, var) y = Mul(n, k) }",
        "p (x, k) => (y) { n = BatchNormalization(x, scale, shift, mean, var) y = Div(n, k) }",
        "p (x, k) => (y) { n = BatchNormalization(x, scale, shift, mean, var) y = Add(n, k) }",
        "p (x, k) => (y) { n = BatchNormalization(x, scale, shift, mean, var) y = Sub(n, k) }",
        "p (x, k) => (y) { n = BatchNormalization(x, scale, shift, mean, var) y = Sub(k, n) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <{BEFORE}, float[2,1] k = {{4, -0.5}}> {{
                n = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var)
                y = Mul(k, n)
            }}""",
            after=f"""{MODEL} <float[2] scale = {{8, 1.5}}, float[2] shift = {{4, -1}},
                {STATISTICS}>
            {{ y = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var) }}""",
        ),
        Example(
            before=f"""{MODEL} <{BEFORE}, float k = {{4}}> {{
                n = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var)
                y = Div(n, k)
            }}""",
            after=f"""{MODEL} <float[2] scale = {{0.5, -0.75}}, float[2] shift = {{0.25, 0.5}},
                {STATISTICS}>
            {{ y = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var) }}""",
        ),
        Example(
            before=f"""{MODEL} <{BEFORE}, float[1,2,1] k = {{4, -0.5}}> {{
                n = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var)
                y = Add(n, k)
            }}""",
            after=f"""{MODEL} <float[2] scale = {{2, -3}}, float[2] shift = {{5, 1.5}},
                {STATISTICS}>
            {{ y = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var) }}""",
        ),
        Example(
            before=f"""{MODEL} <{BEFORE}, float[2,1] k = {{4, -0.5}}> {{
                n = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var)
                y = Sub(n, k)
            }}""",
            after=f"""{MODEL} <float[2] scale = {{2, -3}}, float[2] shift = {{-3, 2.5}},
                {STATISTICS}>
            {{ y = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var) }}""",
        ),
        Example(
            before=f"""{MODEL} <{BEFORE}, float[2,1] k = {{4, -0.5}}> {{
                n = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var)
                y = Sub(k, n)
            }}""",
            after=f"""{MODEL} <float[2] scale = {{-2, 3}}, float[2] shift = {{3, -2.5}},
                {STATISTICS}>
            {{ y = BatchNormalization<epsilon = 0.1>(x, scale, shift, mean, var) }}""",
        ),
        Example(  # along the last axis
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,2,2] x) => (float[N,2,2] y)
            <float[2] scale = {2, -3}, float[2] shift = {1, 2}, float[2] mean = {0.5, -0.25},
                float[2] var = {0.15, 3.9}, float[2] k = {4, -0.5}> {
                n = BatchNormalization(x, scale, shift, mean, var)
                y = Mul(n, k)
            }""",
            after=None,
        ),
    ),
)
