"""Remove a Split into one part."""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value


def rewrite(x: Value, sizes: Value | None, y: Node) -> Result:
    if len(y.outputs) != 1:
        return Skip("the Split makes several parts")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Split(x, sizes) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <int64[1] s = {{3}}>
            {{ a = Neg(x) b = Split<axis = 1>(a, s) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(  # the part that is not used is none the less left out
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,4] x) => (float[N,2] y) { a = Neg(x) y, z = Split<axis = 1>(a) }""",
            after=None,
        ),
    ),
)
