"""Fold a Pad with zeros into the padding of the Conv after it.

Both put zeros around the spatial axes, so their widths add up.
"""

from onnxopt.rewriting.padding import own_padding, padded, zeros_around
from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import rank_of


def rewrite(
    x: Value,
    pads: Array | None,
    fill: Array | None,
    axes: Array | None,
    W: Value,
    b: Value | None,
    p: Node,
    y: Node,
) -> Result:
    rank = rank_of(W)
    if rank is None or rank < 3:
        return Skip("the rank is unknown")
    added, own = zeros_around(p, pads, fill, axes, rank), own_padding(y, rank - 2)
    if isinstance(added, Skip):
        return added
    if isinstance(own, Skip):
        return own
    return op("Conv", x, W, b, **padded(y, added + own))


MODEL = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (float[N,1,3,4] x) => (float[N,1,H,W] y)
"""

WEIGHTS = "float[1,1,2,2] W = {1, 2, 3, 4}"

OLD = """
    <ir_version: 8, opset_import: ["" : 10]>
    g (float[N,1,3,4] x) => (float[N,1,H,W] y)
"""

rule = Rule(
    pattern="p (x, W, b) => (y) { p = Pad(x, pads, fill, axes) y = Conv(p, W, b) }",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <{WEIGHTS}, int64[8] pads = {{0, 0, 1, 2, 0, 0, 3, 4}}>
            {{ p = Pad(x, pads) y = Conv<pads = [5, 6, 7, 8], strides = [2, 1]>(p, W) }}""",
            after=f"""{MODEL} <{WEIGHTS}>
            {{ y = Conv<pads = [6, 8, 10, 12], strides = [2, 1]>(x, W) }}""",
        ),
        Example(
            before=f"""{MODEL} <{WEIGHTS}, int64[4] pads = {{1, 2, 3, 4}},
                int64[2] axes = {{-1, 2}}, float fill = {{0}}>
            {{ p = Pad(x, pads, fill, axes) y = Conv<auto_pad = "VALID">(p, W) }}""",
            after=f"{MODEL} <{WEIGHTS}> {{ y = Conv<pads = [2, 1, 4, 3]>(x, W) }}",
        ),
        Example(
            before=f"""{OLD} <{WEIGHTS}>
            {{ p = Pad<pads = [0, 0, 1, 2, 0, 0, 3, 4]>(x) y = Conv(p, W) }}""",
            after=f"{OLD} <{WEIGHTS}> {{ y = Conv<pads = [1, 2, 3, 4]>(x, W) }}",
        ),
        Example(
            before=f"""{OLD} <{WEIGHTS}>
            {{ p = Pad<pads = [0, 0, 1, 2, 0, 0, 3, 4], value = 0.5>(x) y = Conv(p, W) }}""",
            after=None,
        ),
        Example(
            before=f"""{OLD} <{WEIGHTS}>
            {{ p = Pad<pads = [0, 0, 1, 2, 0, 0, 1, 2], mode = "edge">(x) y = Conv(p, W) }}""",
            after=None,
        ),
        Example(  # cuts off one
            before=f"""{MODEL} <{WEIGHTS}, int64[8] pads = {{0, 0, 1, -1, 0, 0, 3, 4}}>
            {{ p = Pad(x, pads) y = Conv(p, W) }}""",
            after=None,
        ),
        Example(
            before=f"""{MODEL} <{WEIGHTS}, int64[8] pads = {{0, 0, 1, 2, 0, 0, 3, 4}}>
            {{ p = Pad(x, pads) y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(p, W) }}""",
            after=None,
        ),
    ),
)
