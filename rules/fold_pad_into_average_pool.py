"""Fold a Pad with zeros into the padding of the AveragePool after it.

The zeros count in the averages, as do those of an AveragePool that includes its padding.
"""

from onnxopt.rewriting.padding import own_padding, padded, zeros_around
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, attr, op
from onnxopt.rewriting.words import shape_of


def rewrite(
    x: Value, pads: Array | None, fill: Array | None, axes: Array | None, p: Node, y: Node
) -> Result:
    kernel = attr(y, "kernel_shape")
    added = zeros_around(p, pads, fill, axes, len(kernel) + 2)
    own = own_padding(y, len(kernel))
    if isinstance(added, Skip):
        return added
    if isinstance(own, Skip):
        return own
    if any(own.pads) and not attr(y, "count_include_pad"):
        return Skip("the AveragePool does not count its own padding")
    if attr(y, "ceil_mode") or any(step != 1 for step in attr(y, "dilations") or []):
        return Skip("the last windows may reach beyond the padding")
    shape = shape_of(x)
    if shape is None or not all(isinstance(d, int) and d > 0 for d in shape[2:]):
        return Skip("the input may be empty, which AveragePool refuses")
    total = added + own
    if any(width >= size for width, size in zip(total.pads, [*kernel, *kernel], strict=True)):
        return Skip("the padding is as large as the windows")
    attrs = padded(y, total)
    return op("AveragePool", x, **{**attrs, "count_include_pad": 1})


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,1,4,5] x) => (float[N,1,H,W] y)
"""

rule = Rule(
    pattern="p (x) => (y) { p = Pad(x, pads, fill, axes) y = AveragePool(p) }",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <int64[8] pads = {{0, 0, 1, 0, 0, 0, 0, 2}}> {{
                p = Pad(x, pads)
                y = AveragePool<kernel_shape = [2, 3], strides = [1, 2]>(p)
            }}""",
            after=f"""{MODEL} {{
                y = AveragePool<kernel_shape = [2, 3], strides = [1, 2], pads = [1, 0, 0, 2],
                    count_include_pad = 1>(x)
            }}""",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 18]>
            g (float[N,1,4,5] x) => (float[N,1,H,W] y)
            <int64[2] pads = {2, 1}, int64[1] axes = {-1}, float fill = {0}> {
                p = Pad(x, pads, fill, axes)
                y = AveragePool<kernel_shape = [2, 3]>(p)
            }""",
            after="""
            <ir_version: 8, opset_import: ["" : 18]>
            g (float[N,1,4,5] x) => (float[N,1,H,W] y) {
                y = AveragePool<kernel_shape = [2, 3], pads = [0, 2, 0, 1],
                    count_include_pad = 1>(x)
            }""",
        ),
        Example(  # the last windows reach beyond the padding
            before=f"""{MODEL} <int64[8] pads = {{0, 0, 1, 0, 0, 0, 0, 1}}> {{
                p = Pad(x, pads)
                y = AveragePool<kernel_shape = [2, 3], strides = [2, 2], ceil_mode = 1>(p)
            }}""",
            after=None,
        ),
        Example(
            before=f"""{MODEL} <int64[8] pads = {{0, 0, 1, 0, 0, 0, 0, 1}}> {{
                p = Pad(x, pads)
                y = AveragePool<kernel_shape = [2, 3], pads = [0, 1, 1, 1]>(p)
            }}""",
            after=None,
        ),
    ),
)
