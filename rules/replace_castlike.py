"""Replace a CastLike by a Cast to the element type that it takes over.

    CastLike(x, like) = Cast<to = type of like>(x)

Only the type of `like` counts. Exporters write the zero bias of a Conv as
Expand(CastLike(0, data), size): without the data it is a constant.
"""

import onnx.helper

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value, op


def rewrite(x: Value, like: Value, y: Node) -> Result:
    if like.dtype is None:
        return Skip("the type to cast to is unknown")
    return op("Cast", x, to=onnx.helper.np_dtype_to_tensor_dtype(like.dtype), **y.attrs)


rule = Rule(
    pattern="p (x, like) => (y) { y = CastLike(x, like) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (int64[N,3] x, float16[M] z) => (float16[N,3] y, float16[M] w)
            { w = Neg(z) a = Abs(x) y = CastLike(a, w) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (int64[N,3] x, float16[M] z) => (float16[N,3] y, float16[M] w)
            { w = Neg(z) a = Abs(x) y = Cast<to = 10>(a) }""",
        ),
        Example(
            before="""
            <ir_version: 9, opset_import: ["" : 19]>
            g (float[N,3] x) => (float8e4m3fn[N,3] y) <float8e4m3fn[1] f = {1}>
            { a = Neg(x) y = CastLike<saturate = 0>(a, f) }""",
            after="""
            <ir_version: 9, opset_import: ["" : 19]>
            g (float[N,3] x) => (float8e4m3fn[N,3] y)
            { a = Neg(x) y = Cast<saturate = 0, to = 17>(a) }""",
        ),
    ),
)
