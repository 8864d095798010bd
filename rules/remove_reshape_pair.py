"""Remove two of Reshape, Flatten, Squeeze and Unsqueeze where the second one undoes the first.

The elements stay in order, so equal shapes mean equal tensors. What the first one makes may be read
by others too.
"""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import same_after_reshape


def rewrite(x: Value, s: Value | None, t: Value | None, y: Node) -> Result:
    if not same_after_reshape(x, y.outputs[0]):
        return Skip("the shape is not known to be what it was before")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,4] x) => (float[N,3,4] y)
"""

rule = Rule(
    pattern="p (x) => (y) { a = AnyReshape(x, s) y = AnyReshape(a, t) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <int64[2] s = {{0, 12}}, int64[3] t = {{0, 3, 4}}>
            {{ n = Neg(x) a = Reshape(n, s) b = Reshape(a, t) y = Exp(b) }}""",
            after=f"{MODEL} {{ n = Neg(x) y = Exp(n) }}",
        ),
        Example(
            before=f"""{MODEL} <int64[1] s = {{1}}>
            {{ n = Neg(x) a = Unsqueeze(n, s) b = Squeeze(a, s) y = Exp(b) }}""",
            after=f"{MODEL} {{ n = Neg(x) y = Exp(n) }}",
        ),
        Example(
            before=f"""{MODEL} <int64[3] t = {{-1, 3, 4}}>
            {{ n = Neg(x) a = Flatten(n) b = Reshape(a, t) y = Exp(b) }}""",
            after=f"{MODEL} {{ n = Neg(x) y = Exp(n) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3,4] x) => (float[N,4,3] y) <int64[3] t = {-1, 4, 3}>
            { n = Neg(x) a = Flatten(n) y = Reshape(a, t) }""",
            after=None,
        ),
    ),
)
