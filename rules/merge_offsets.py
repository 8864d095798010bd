"""Merge two additions (or subtractions) of constants into one addition.

    (x + a) + b = x + (a + b)    (x + a) - b = x + (a - b)    (x - a) - b = x + (-a - b)

Not where the constants cancel: (x + 12582912) - 12582912 rounds x. And only where the sum of the
constants is no larger than both together.
"""

import numpy as np

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import copy_needed, is_float, narrowed


def rewrite(x: Value, a: Array, b: Array, m: Node, y: Node) -> Result:
    if not is_float(a.dtype):
        return Skip("the numbers are not floating-point numbers")
    first = a.astype(np.float64) * (-1 if m.op == "Sub" else 1)
    second = b.astype(np.float64) * (-1 if y.op == "Sub" else 1)
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        return Skip("the constants are not finite")
    total = first + second
    if total.size > max(a.size, b.size):
        return Skip("the sum of the constants is larger than both")
    if (first * second < 0).any():
        return Skip("the constants cancel, which may be there to round")
    offset = narrowed(total, a.dtype)
    if offset is None:
        return Skip(f"the sum of the constants is too large for {a.dtype}")
    for node in (m, y):
        if (reason := copy_needed(node, 0) or copy_needed(node, 1)) is not None:
            return reason
    return op("Add", x, offset)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2] x) => (float[N,2] y)
"""

rule = Rule(
    pattern=(
        "p (x, a, b) => (y) { m = Add(x, a) y = Add(m, b) }",
        "p (x, a, b) => (y) { m = Add(x, a) y = Sub(m, b) }",
        "p (x, a, b) => (y) { m = Sub(x, a) y = Add(m, b) }",
        "p (x, a, b) => (y) { m = Sub(x, a) y = Sub(m, b) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <float[2] a = {{3, 5}}, float b = {{0.5}}>
            {{ m = Add(a, x) y = Add(m, b) }}""",
            after=f"{MODEL} <float[2] c = {{3.5, 5.5}}> {{ y = Add(x, c) }}",
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{3, 5}}, float[2] b = {{-2, -4}}>
            {{ m = Add(x, a) y = Sub(m, b) }}""",
            after=f"{MODEL} <float[2] c = {{5, 9}}> {{ y = Add(x, c) }}",
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{3, -5}}, float[2] b = {{-2, 4}}>
            {{ m = Sub(x, a) y = Add(b, m) }}""",
            after=f"{MODEL} <float[2] c = {{-5, 9}}> {{ y = Add(x, c) }}",
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{3, -5}}, float[2] b = {{2, -4}}>
            {{ m = Sub(x, a) y = Sub(m, b) }}""",
            after=f"{MODEL} <float[2] c = {{-5, 9}}> {{ y = Add(x, c) }}",
        ),
        Example(
            before=f"""{MODEL} <float a = {{12582912}}>
            {{ m = Add(x, a) y = Sub(m, a) }}""",
            after=None,
        ),
        Example(
            before=f"""{MODEL} <float[2] a = {{3, 5}}, float[2] b = {{2, 4}}>
            {{ m = Sub(a, x) y = Add(m, b) }}""",
            after=None,
        ),
    ),
)
