"""Remove a Transpose that leaves the axes in order."""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import permutation


def rewrite(x: Value, y: Node) -> Result:
    perm = permutation(y)
    if perm is None or perm != sorted(perm):
        return Skip("the Transpose may change the order of the axes")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,4] x) => (float[N,3,4] y)
"""

VECTOR = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x) => (float[N] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Transpose(x) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Transpose<perm = [0, 1, 2]>(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"{VECTOR} {{ a = Neg(x) b = Transpose(a) y = Exp(b) }}",
            after=f"{VECTOR} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3,4] x) => (float[3,N,4] y) { y = Transpose<perm = [1, 0, 2]>(x) }""",
            after=None,
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,M] x) => (float[M,N] y) { y = Transpose(x) }""",
            after=None,
        ),
    ),
)
