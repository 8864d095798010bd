"""Remove a Pad that adds nothing anywhere, whatever its mode."""

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import ints


def rewrite(
    x: Value, pads: Array | None, fill: Value | None, axes: Value | None, y: Node
) -> Result:
    widths = ints(y, "pads", pads)
    if widths is None or any(widths):
        return Skip("the Pad changes the shape")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Pad(x, pads, fill, axes) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <int64[4] pads = {{0, 0, 0, 0}}>
            {{ a = Neg(x) b = Pad<mode = "reflect">(a, pads) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 10]>
            g (float[N,3] x) => (float[N,3] y)
            { a = Neg(x) b = Pad<pads = [0, 0, 0, 0], value = 5.0>(a) y = Exp(b) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 10]>
            g (float[N,3] x) => (float[N,3] y) { a = Neg(x) y = Exp(a) }""",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 18]>
            g (float[N,3] x) => (float[N,3] y)
            <int64[2] pads = {0, 0}, float fill = {7}, int64[1] axes = {1}>
            { a = Neg(x) b = Pad(a, pads, fill, axes) y = Exp(b) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 18]>
            g (float[N,3] x) => (float[N,3] y) { a = Neg(x) y = Exp(a) }""",
        ),
        Example(  # one off at the start, one more at the end
            before=f"""{MODEL} <int64[4] pads = {{0, -1, 0, 1}}>
            {{ a = Neg(x) y = Pad(a, pads) }}""",
            after=None,
        ),
    ),
)
