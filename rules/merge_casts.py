"""Merge two Casts where the first one loses nothing.

    Cast(Cast(x, A), B) = Cast(x, B)    if A holds every value that the type of x holds

Casts from a floating type to an integer type are left alone unless they cannot overflow: what
overflow gives is undefined.
"""

import onnx.helper

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value, attr, op
from onnxopt.rewriting.words import is_float, loses_nothing


def rewrite(x: Value, a: Node, y: Node) -> Result:
    if x.dtype is None:
        return Skip("the type of the input is unknown")
    middle = onnx.helper.tensor_dtype_to_np_dtype(attr(a, "to"))
    last = onnx.helper.tensor_dtype_to_np_dtype(attr(y, "to"))
    if not loses_nothing(x.dtype, middle):
        return Skip(f"a Cast from {x.dtype} to {middle} may lose something")
    if x.dtype == last:
        return x
    if last.kind not in "iufb" and not is_float(last):
        return Skip(f"a Cast to {last} may depend on the type")
    if last.kind in "iu" and is_float(middle) and not loses_nothing(x.dtype, last):
        return Skip(f"a Cast from {middle} to {last} may overflow")
    return op("Cast", x, **y.attrs)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (int8[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { a = Cast(x) y = Cast(a) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} {{ a = Cast<to = 7>(x) y = Cast<to = 1>(a) }}",
            after=f"{MODEL} {{ y = Cast<to = 1>(x) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float16[N,3] x) => (float16[N,3] y)
            { a = Neg(x) b = Cast<to = 1>(a) c = Cast<to = 10>(b) y = Abs(c) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float16[N,3] x) => (float16[N,3] y) { a = Neg(x) y = Abs(a) }""",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x) => (float[N,3] y)
            { a = Cast<to = 10>(x) y = Cast<to = 1>(a) }""",
            after=None,
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (int8[N,3] x) => (uint8[N,3] y)
            { a = Cast<to = 1>(x) y = Cast<to = 2>(a) }""",
            after=None,
        ),
    ),
)
