"""Remove an Expand that leaves the shape as it is."""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import keeps_shape, same_shape


def rewrite(x: Value, target: Value, y: Node) -> Result:
    if same_shape(x, y.outputs[0]):
        return x
    if target.array is not None and keeps_shape(x, tuple(target.array.tolist())):
        return x
    return Skip("the shape is not known to stay the same")


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Expand(x, target) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <int64[2] s = {{1, 3}}>
            {{ a = Neg(x) b = Expand(a, s) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x) => (float[1,N,3] y) <int64[3] s = {1, 1, 1}>
            { a = Neg(x) y = Expand(a, s) }""",
            after=None,
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[1,3] x) => (float[2,3] y) <int64[2] s = {2, 1}>
            { a = Neg(x) y = Expand(a, s) }""",
            after=None,
        ),
    ),
)
