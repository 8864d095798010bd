"""Remove Reshape, Flatten, Squeeze or Unsqueeze that leaves the shape as it is.

The elements stay in order, so equal shapes mean equal tensors. One dimension may be unknown, as the
number of elements does not change.
"""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import same_after_reshape


def rewrite(x: Value, target: Value | None, y: Node) -> Result:
    array = target.array if target is not None and y.op == "Reshape" else None
    if not same_after_reshape(x, y.outputs[0], array):
        return Skip("the shape is not known to stay the same")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,4] x) => (float[N,3,4] y)
"""

FLAT = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = AnyReshape(x, target) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <int64[3] s = {{-1, 3, 4}}>
            {{ a = Neg(x) b = Reshape(a, s) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{MODEL} <int64[3] s = {{0, 0, -1}}>
            {{ a = Neg(x) b = Reshape(a, s) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"{FLAT} {{ a = Neg(x) b = Flatten(a) y = Exp(b) }}",
            after=f"{FLAT} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3,4] x) => (float[M,4,3] y) <int64[3] s = {-1, 4, 3}>
            { a = Neg(x) y = Reshape(a, s) }""",
            after=None,
        ),
        Example(  # N and M may swap
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,M] x, int64[2] s) => (float[A,B] y) { a = Neg(x) y = Reshape(a, s) }""",
            after=None,
        ),
    ),
)
