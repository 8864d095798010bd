"""Remove the addition of 0.0, or the subtraction of -0.0.

They change nothing but -0.0, which becomes 0.0: hence "rounding".
"""

from onnxopt.rewriting.rule import Array, Example, Result, Rule, Skip, Value
from onnxopt.rewriting.words import all_equal, is_float, keeps_shape


def rewrite(x: Value, k: Array) -> Result:
    if not is_float(k.dtype) or not k.size or not all_equal(k, 0):
        return Skip("the constant has an effect")
    if not keeps_shape(x, k.shape):
        return Skip("the constant may enlarge the shape")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern=("p (x, k) => (y) { y = Add(x, k) }", "p (x, k) => (y) { y = Sub(x, k) }"),
    rewrite=rewrite,
    numerics="rounding",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} <float[3] k = {{0, 0, 0}}> {{ a = Neg(x) b = Add(k, a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{MODEL} <float[3] k = {{-0.0, 0, 0}}>
            {{ a = Neg(x) b = Sub(a, k) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(before=f"{MODEL} <float k = {{0}}> {{ a = Exp(x) y = Sub(k, a) }}", after=None),
        Example(
            before=f"{MODEL} <float[3] k = {{0, 0.001, 0}}> {{ a = Exp(x) y = Add(a, k) }}",
            after=None,
        ),
    ),
)
