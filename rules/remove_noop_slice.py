"""Remove a Slice that takes everything: each step 1, from the first element to the last."""

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import LARGEST_INDEX, ints, shape_of


def rewrite(
    x: Value,
    starts: Array | None,
    ends: Array | None,
    axes: Array | None,
    steps: Array | None,
    y: Node,
) -> Result:
    first, last = ints(y, "starts", starts), ints(y, "ends", ends)
    if first is None or last is None:
        return Skip("the Slice has no bounds")
    along = ints(y, "axes", axes) or list(range(len(first)))
    shape = shape_of(x)
    for start, end, axis in zip(first, last, along, strict=True):
        size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        known = isinstance(size, int)
        if start != 0 and not (known and start <= -int(size or 0)):
            return Skip(f"the Slice leaves out the start of axis {axis}")
        if end < LARGEST_INDEX and not (known and end >= int(size or 0)):
            return Skip(f"the Slice may leave out the end of axis {axis}")
    if any(step != 1 for step in ints(y, "steps", steps) or []):
        return Skip("the Slice takes not every element, or in another order")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,4] x) => (float[N,3,4] y)
"""

OLD = """
    <ir_version: 8, opset_import: ["" : 9]>
    g (float[N,3,4] x) => (float[N,3,4] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Slice(x, starts, ends, axes, steps) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <int64[2] s = {{0, -3}}, int64[2] e = {{9223372036854775807, 3}},
                int64[2] axes = {{0, -2}}, int64[2] steps = {{1, 1}}>
            {{ a = Neg(x) b = Slice(a, s, e, axes, steps) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{OLD} {{
                a = Neg(x)
                b = Slice<axes = [1, 2], starts = [0, 0], ends = [3, 2147483647]>(a)
                y = Exp(b)
            }}""",
            after=f"{OLD} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(  # backwards
            before=f"""{MODEL} <int64[1] s = {{-1}}, int64[1] e = {{-5}},
                int64[1] axes = {{2}}, int64[1] steps = {{-1}}>
            {{ a = Neg(x) y = Slice(a, s, e, axes, steps) }}""",
            after=None,
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3,4] x) => (float[M,3,4] y) <int64[1] s = {0}, int64[1] e = {2}>
            { a = Neg(x) y = Slice(a, s, e) }""",
            after=None,
        ),
    ),
)
