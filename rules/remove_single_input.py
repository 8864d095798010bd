"""Remove Concat, Sum, Max, Min and Mean of a single tensor."""

from onnxopt.rewriting.rule import Example, Result, Rule, Value


def rewrite(x: Value) -> Result:
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern=(
        "p (x) => (y) { y = Concat(x) }",
        "p (x) => (y) { y = Sum(x) }",
        "p (x) => (y) { y = Max(x) }",
        "p (x) => (y) { y = Min(x) }",
        "p (x) => (y) { y = Mean(x) }",
    ),
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Concat<axis = 1>(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Sum(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Max(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Min(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Mean(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(before=f"{MODEL} {{ a = Neg(x) y = Mean(a, x) }}", after=None),
    ),
)
