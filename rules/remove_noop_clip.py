"""Remove a Clip or Relu where a Clip or Relu before it has left nothing to cut off.

    Clip(Clip(x, a, b), c, d) = Clip(x, a, b)    if c <= a <= b <= d

Relu is a Clip from 0 to infinity. A Clip without an end still cuts off infinities.
"""

import numpy as np

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, attr
from onnxopt.rewriting.words import FLOATS


def rewrite(
    a: Value,
    low: Array | None,
    high: Array | None,
    lowest: Array | None,
    highest: Array | None,
    y: Node,
) -> Result:
    inner = a.producer
    if inner is None or a.dtype not in FLOATS or a.dtype.itemsize < 4:
        return Skip("the type is not known to be float or double")
    first, last = _range(inner, low, high), _range(y, lowest, highest)
    if not last[0] <= first[0] <= first[1] <= last[1]:
        return Skip("the second one may cut off more")
    return a


def _range(node: Node, low: Array | None, high: Array | None) -> tuple[float, float]:
    if node.op == "Relu":
        return 0.0, np.inf
    widest = np.finfo(node.outputs[0].dtype or np.float32)
    ends = [float(widest.min), float(widest.max)]
    for i, (name, given) in enumerate((("min", low), ("max", high))):
        if attr(node, name) is not None:
            ends[i] = attr(node, name)
        elif given is not None:
            ends[i] = float(given.reshape(())) if given.size == 1 else np.nan
    return ends[0], ends[1]


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

OLD = """
    <ir_version: 8, opset_import: ["" : 10]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern=(
        "p (x) => (y) { a = Clip(x, low, high) y = Clip(a, lowest, highest) }",
        "p (x) => (y) { a = Clip(x, low, high) y = Relu(a) }",
        "p (x) => (y) { a = Relu(x) y = Clip(a, lowest, highest) }",
    ),
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <float l = {{-1}}, float h = {{2}}, float m = {{3}}>
            {{ a = Clip(x, l, h) b = Clip(a, l, m) y = Neg(b) }}""",
            after=f"""{MODEL} <float l = {{-1}}, float h = {{2}}>
            {{ a = Clip(x, l, h) y = Neg(a) }}""",
        ),
        Example(
            before=f"""{OLD} {{ a = Clip<min = 0.5, max = 6.0>(x) b = Relu(a) y = Neg(b) }}""",
            after=f"""{OLD} {{ a = Clip<min = 0.5, max = 6.0>(x) y = Neg(a) }}""",
        ),
        Example(
            before=f"""{MODEL} <float l = {{-1}}, float h = {{2}}>
            {{ a = Clip(x, l) y = Clip(a, l, h) }}""",
            after=None,
        ),
        Example(before=f"{MODEL} {{ a = Relu(x) y = Clip(a) }}", after=None),
    ),
)
