"""Remove Identity: its readers can read what it reads."""

from onnxopt.rewriting.rule import Example, Result, Rule, Value


def rewrite(x: Value) -> Result:
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x) => (float[N] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Identity(x) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=MODEL + "{ a = Neg(x) b = Identity(a) y = Exp(b) }",
            after=MODEL + "{ a = Neg(x) y = Exp(a) }",
        ),
        Example(before=MODEL + "{ y = Identity(x) }", after=None),
    ),
)
