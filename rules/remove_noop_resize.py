"""Remove a Resize or Upsample by a factor of exactly 1 on every axis.

Only where the coordinates then fall on the elements (crops and tf_half_pixel_for_nn do not) and the
interpolation between elements has no part in it (cubic has).
"""

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, attr
from onnxopt.rewriting.words import shape_of

ALIGNED = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)


def rewrite(
    x: Value, roi: Value | None, scales: Array | None, sizes: Array | None, y: Node
) -> Result:
    if attr(y, "mode") not in ("nearest", "linear") or attr(y, "antialias"):
        return Skip("the interpolation looks at neighbours")
    if y.op == "Resize" and y.opset > 10:
        if attr(y, "coordinate_transformation_mode") not in ALIGNED:
            return Skip("the coordinates do not fall on the elements")
        if attr(y, "keep_aspect_ratio_policy") not in (None, "stretch"):
            return Skip("the sizes are changed to keep the aspect ratio")
    factors = y.attrs.get("scales") if scales is None or not scales.size else scales.tolist()
    if factors is not None and all(factor == 1 for factor in factors):
        return x
    if factors is None and sizes is not None and attr(y, "axes") is None:
        if shape_of(x) == tuple(sizes.tolist()):
            return x
    return Skip("the size is not known to stay the same")


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2,1,4,3] x) => (float[2,1,4,3] y)
"""

OLD = """
    <ir_version: 8, opset_import: ["" : 9]>
    g (float[2,1,4,3] x) => (float[2,1,4,3] y)
"""

rule = Rule(
    pattern=(
        "p (x) => (y) { y = Resize(x, roi, scales, sizes) }",
        "p (x) => (y) { y = Resize(x, scales) }",
        "p (x) => (y) { y = Upsample(x, scales) }",
    ),
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <float[0] roi = {{}}, float[4] s = {{1, 1, 1, 1}}>
            {{ a = Neg(x) b = Resize<mode = "linear">(a, roi, s) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{MODEL} <float[0] none = {{}}, int64[4] s = {{2, 1, 4, 3}}>
            {{ a = Neg(x) b = Resize(a, none, none, s) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{OLD} <float[4] s = {{1, 1, 1, 1}}>
            {{ a = Neg(x) b = Upsample(a, s) y = Exp(b) }}""",
            after=f"{OLD} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(  # the same size, but other coordinates
            before=f"""{MODEL} <float[0] roi = {{}}, float[4] s = {{1, 1, 1.1, 1}}>
            {{ a = Neg(x) y = Resize<mode = "linear">(a, roi, s) }}""",
            after=None,
        ),
        Example(  # crops
            before=f"""{MODEL} <float[8] roi = {{0, 0, 0.5, 0, 1, 1, 1, 1}}, float[0] none = {{}},
                int64[4] s = {{2, 1, 4, 3}}> {{
                a = Neg(x)
                y = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(a, roi, none, s)
            }}""",
            after=None,
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[2,1,4,3] x) => (float[2,1,3,4] y)
            <float[0] none = {}, int64[4] s = {2, 1, 3, 4}>
            { a = Neg(x) y = Resize(a, none, none, s) }""",
            after=None,
        ),
    ),
)
