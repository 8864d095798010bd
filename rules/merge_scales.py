"""Merge two multiplications (or divisions) by constants into one multiplication.

    (x * a) * b = x * (a * b)    (x * a) / b = x * (a / b)    (x / a) / b = x * (1 / (a * b))

Only where the product of the constants is no larger than both together.
"""

import numpy as np

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import copy_needed, is_float, narrowed


def rewrite(x: Value, a: Array, b: Array, m: Node, y: Node) -> Result:
    if not is_float(a.dtype):
        return Skip("the numbers are not floating-point numbers")
    first, second = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        first = 1 / first if m.op == "Div" else first
        second = 1 / second if y.op == "Div" else second
        product = first * second
    if product.size > max(a.size, b.size):
        return Skip("the product of the constants is larger than both")
    factor = narrowed(product, a.dtype)
    if factor is None or ((factor == 0) & (product != 0)).any():
        return Skip(f"the product of the constants is too large or too small for {a.dtype}")
    for node in (m, y):
        if (reason := copy_needed(node, 0) or copy_needed(node, 1)) is not None:
            return reason
    return op("Mul", x, factor)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2] x) => (float[N,2] y)
"""

rule = Rule(
    pattern=(
        "p (x, a, b) => (y) { m = Mul(x, a) y = Mul(m, b) }",
        "p (x, a, b) => (y) { m = Mul(x, a) y = Div(m, b) }",
        "p (x, a, b) => (y) { m = Div(x, a) y = Mul(m, b) }",
        "p (x, a, b) => (y) { m = Div(x, a) y = Div(m, b) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <float[2] a = {{3, 5}}, float b = {{0.5}}>
            {{ m = Mul(a, x) y = Mul(m, b) }}""",
            after=f"{MODEL} <float[2] c = {{1.5, 2.5}}> {{ y = Mul(x, c) }}",
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{3, 5}}, float[2] b = {{2, -4}}>
            {{ m = Mul(x, a) y = Div(m, b) }}""",
            after=f"{MODEL} <float[2] c = {{1.5, -1.25}}> {{ y = Mul(x, c) }}",
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{2, 8}}, float[2] b = {{3, 5}}>
            {{ m = Div(x, a) y = Mul(b, m) }}""",
            after=f"{MODEL} <float[2] c = {{1.5, 0.625}}> {{ y = Mul(x, c) }}",
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{2, 8}}, float[2] b = {{4, 0.5}}>
            {{ m = Div(x, a) y = Div(m, b) }}""",
            after=f"{MODEL} <float[2] c = {{0.125, 0.25}}> {{ y = Mul(x, c) }}",
        ),
        Example(  # the product has four elements
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,2,2] x) => (float[N,2,2] y)
            <float[2] a = {2, 8}, float[2,1] b = {4, 0.5}> { m = Mul(x, a) y = Mul(m, b) }""",
            after=None,
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{2, 8}}, float b = {{4}}>
            {{ m = Div(a, x) y = Mul(m, b) }}""",
            after=None,
        ),
    ),
)
