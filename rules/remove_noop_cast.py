"""Remove a Cast to the element type that its input has already."""

import onnx.helper

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value, attr


def rewrite(x: Value, y: Node) -> Result:
    if x.dtype is None or x.dtype != onnx.helper.tensor_dtype_to_np_dtype(attr(y, "to")):
        return Skip("the input is not known to have this type already")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Cast(x) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Cast<to = 1>(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x) => (double[N,3] y) { a = Neg(x) y = Cast<to = 11>(a) }""",
            after=None,
        ),
    ),
)
