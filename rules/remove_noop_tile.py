"""Remove a Tile that repeats every axis once."""

from onnxopt.rewriting.rule import Array, Example, Result, Rule, Skip, Value
from onnxopt.rewriting.words import all_equal


def rewrite(x: Value, repeats: Array) -> Result:
    return x if all_equal(repeats, 1) else Skip("the Tile repeats something")


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Tile(x, repeats) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} <int64[2] r = {{1, 1}}> {{ a = Neg(x) b = Tile(a, r) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x) => (float[N,6] y) <int64[2] r = {1, 2}>
            { a = Neg(x) y = Tile(a, r) }""",
            after=None,
        ),
    ),
)
