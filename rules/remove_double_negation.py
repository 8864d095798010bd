"""Remove Neg of Neg, Not of Not and BitwiseNot of BitwiseNot."""

from onnxopt.rewriting.rule import Example, Result, Rule, Value


def rewrite(x: Value) -> Result:
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (float[N,3] x) => (float[N,3] y)
"""

LOGIC = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (bool[N,3] x, bool[N,3] z) => (bool[N,3] y)
"""

BITS = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (int32[N,3] x) => (int32[N,3] y)
"""

rule = Rule(
    pattern=(
        "p (x) => (y) { a = Neg(x) y = Neg(a) }",
        "p (x) => (y) { a = Not(x) y = Not(a) }",
        "p (x) => (y) { a = BitwiseNot(x) y = BitwiseNot(a) }",
    ),
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} {{ n = Exp(x) a = Neg(n) b = Neg(a) y = Abs(b) }}",
            after=f"{MODEL} {{ n = Exp(x) y = Abs(n) }}",
        ),
        Example(
            before=f"{LOGIC} {{ n = Or(x, z) a = Not(n) b = Not(a) y = And(b, z) }}",
            after=f"{LOGIC} {{ n = Or(x, z) y = And(n, z) }}",
        ),
        Example(
            before=f"{BITS} {{ n = Neg(x) a = BitwiseNot(n) b = BitwiseNot(a) y = Abs(b) }}",
            after=f"{BITS} {{ n = Neg(x) y = Abs(n) }}",
        ),
        Example(before=f"{MODEL} {{ a = Neg(x) b = Exp(a) y = Neg(b) }}", after=None),
    ),
)
