"""Fold BatchNormalization into the Conv before it.

At inference both are affine in the channels, so their composition is one Conv:

    gain = scale / sqrt(var + epsilon)
    W'   = W * gain                    (gain runs along the output channels)
    b'   = (b - mean) * gain + shift
"""

import numpy as np

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value, attr, op


def rewrite(
    x: Value,
    W: Array,  # [O, I / group, *kernel]
    b: Array | None,  # [O]
    scale: Array,  # [O], as are shift, mean and var
    shift: Array,
    mean: Array,
    var: Array,
    c: Node,
    y: Node,
) -> Result:
    if attr(y, "training_mode"):
        return Skip("BatchNormalization is in training mode")
    gain = scale / np.sqrt(var.astype(np.float64) + attr(y, "epsilon"))
    weight = W * gain.reshape((-1,) + (1,) * (W.ndim - 1))
    bias = ((0 if b is None else b) - mean.astype(np.float64)) * gain + shift
    return op("Conv", x, weight.astype(W.dtype), bias.astype(W.dtype), **c.attrs)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,1,3,3] x) => (float[N,2,2,2] y)
    <float[2,1,2,2] W = {1, 2, 3, 4, -1, 0.5, 2, -3}, float[2] b = {0.5, -1},
     float[2] scale = {2, -3}, float[2] shift = {1, 2}, float[2] mean = {0.5, -0.25},
     float[2] var = {0.01, 4}>
"""

rule = Rule(
    pattern="""
        p (x) => (y) {
            c = Conv(x, W, b)
            y = BatchNormalization(c, scale, shift, mean, var)
        }""",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=MODEL
            + """{
                c = Conv(x, W, b)
                y = BatchNormalization<epsilon = 0.1>(c, scale, shift, mean, var)
            }""",
            after=MODEL + "{ y = Conv(x, W, b) }",
        ),
    ),
)
