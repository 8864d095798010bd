"""Remove an operator that repeats the one before it, where once is as good as twice."""

from onnxopt.rewriting.rule import Example, Result, Rule, Value


def rewrite(a: Value) -> Result:
    return a


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern=(
        "p (x) => (y) { a = Relu(x) y = Relu(a) }",
        "p (x) => (y) { a = Abs(x) y = Abs(a) }",
        "p (x) => (y) { a = Ceil(x) y = Ceil(a) }",
        "p (x) => (y) { a = Floor(x) y = Floor(a) }",
        "p (x) => (y) { a = Round(x) y = Round(a) }",
        "p (x) => (y) { a = Sign(x) y = Sign(a) }",
    ),
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} {{ a = Relu(x) b = Relu(a) y = Neg(b) }}",
            after=f"{MODEL} {{ a = Relu(x) y = Neg(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Abs(x) b = Abs(a) y = Neg(b) }}",
            after=f"{MODEL} {{ a = Abs(x) y = Neg(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Ceil(x) b = Ceil(a) y = Neg(b) }}",
            after=f"{MODEL} {{ a = Ceil(x) y = Neg(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Floor(x) b = Floor(a) y = Neg(b) }}",
            after=f"{MODEL} {{ a = Floor(x) y = Neg(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Round(x) b = Round(a) y = Neg(b) }}",
            after=f"{MODEL} {{ a = Round(x) y = Neg(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Sign(x) b = Sign(a) y = Neg(b) }}",
            after=f"{MODEL} {{ a = Sign(x) y = Neg(a) }}",
        ),
        Example(before=f"{MODEL} {{ a = Ceil(x) y = Abs(a) }}", after=None),
        Example(before=f"{MODEL} {{ a = Exp(x) y = Exp(a) }}", after=None),
    ),
)
