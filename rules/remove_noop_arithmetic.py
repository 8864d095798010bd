"""Remove arithmetic that changes nothing, not even a bit.

    x * 1    x / 1    x ** 1    x - 0    x + (-0.0)    and, for integers, x + 0

Only where broadcasting with the constant does not enlarge x. In floating-point numbers x + 0.0
turns -0.0 into 0.0; see remove-add-zero.
"""

import numpy as np

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import all_equal, is_float, keeps_shape


def rewrite(x: Value, k: Array, y: Node) -> Result:
    if not all_equal(k, 0 if y.op in ("Add", "Sub") else 1) or not k.size:
        return Skip("the constant has an effect")
    negative = is_float(k.dtype) and np.signbit(k.astype(np.float64))
    if y.op == "Add" and is_float(k.dtype) and not np.all(negative):
        return Skip("it makes 0.0 of -0.0")
    if y.op == "Sub" and np.any(negative):
        return Skip("it makes 0.0 of -0.0")
    if y.op == "Pow" and not is_float(x.dtype):
        return Skip("powers of integers may be computed in floating-point numbers")
    if not keeps_shape(x, k.shape):
        return Skip("the constant may enlarge the shape")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

AFTER = f"{MODEL} {{ a = Neg(x) y = Exp(a) }}"

rule = Rule(
    pattern=(
        "p (x, k) => (y) { y = Mul(x, k) }",
        "p (x, k) => (y) { y = Div(x, k) }",
        "p (x, k) => (y) { y = Pow(x, k) }",
        "p (x, k) => (y) { y = Sub(x, k) }",
        "p (x, k) => (y) { y = Add(x, k) }",
    ),
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} <float[3] k = {{1, 1, 1}}> {{ a = Neg(x) b = Mul(k, a) y = Exp(b) }}",
            after=AFTER,
        ),
        Example(
            before=f"{MODEL} <float[1,1] k = {{1}}> {{ a = Neg(x) b = Div(a, k) y = Exp(b) }}",
            after=AFTER,
        ),
        Example(
            before=f"{MODEL} <int32 k = {{1}}> {{ a = Neg(x) b = Pow(a, k) y = Exp(b) }}",
            after=AFTER,
        ),
        Example(
            before=f"{MODEL} <float k = {{0}}> {{ a = Neg(x) b = Sub(a, k) y = Exp(b) }}",
            after=AFTER,
        ),
        Example(
            before=f"{MODEL} <float k = {{-0.0}}> {{ a = Neg(x) b = Add(a, k) y = Exp(b) }}",
            after=AFTER,
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (int64[N,3] x) => (int64[N,3] y) <int64 k = {0}>
            { a = Neg(x) b = Add(k, a) y = Abs(b) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (int64[N,3] x) => (int64[N,3] y) { a = Neg(x) y = Abs(a) }""",
        ),
        Example(  # 1 / x
            before=f"{MODEL} <float k = {{1}}> {{ a = Neg(x) y = Div(k, a) }}", after=None
        ),
        Example(  # a higher rank
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x) => (float[1,N,3] y) <float[1,1,3] k = {1, 1, 1}>
            { a = Neg(x) y = Mul(a, k) }""",
            after=None,
        ),
        Example(  # a larger dimension
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[2,1] x) => (float[2,3] y) <float[3] k = {1, 1, 1}>
            { a = Neg(x) y = Mul(a, k) }""",
            after=None,
        ),
    ),
)
