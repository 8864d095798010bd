"""What stands for nothing in a weight: zero, or the zero point of a quantized one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxopt.graph import Array, Constant, Node

_ZERO_IN: Mapping[str, Sequence[int] | None] = {
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"), None),
    **dict.fromkeys(("FusedConv", "FusedGemm", "BiasGelu", "FastGelu"), None),
    **dict.fromkeys(("Add", "Sub", "Mul", "LSTM", "GRU", "RNN", "Attention"), None),
    **dict.fromkeys(("Identity", "Concat", "Transpose", "Reshape", "Cast", "Expand"), None),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather", "Tile"), (0,)),
    **dict.fromkeys(("ReduceSum", "Pad", "Sum"), (0,)),
}
"""Inputs where zero means that the channel says nothing; None stands for all."""

_ZERO_POINTS = {
    "DequantizeLinear": {0: 2},
    "QLinearConv": {3: 5, 8: -1},
    "QLinearMatMul": {3: 5, 0: 2},
    "MatMulInteger": {1: 3, 0: 2},
    "ConvInteger": {1: 3},
}
"""For inputs that are quantized weights the input that holds their zero point; -1: zero itself."""


def nothing(value: Constant) -> Array | None:
    """What to fill a channel with so that it says nothing, for all that read it; else None."""
    if value.is_sparse or value.overridable:
        return None
    point: Array = np.zeros((), value.dtype)
    for node in dict.fromkeys(value.consumers):
        for place, read in enumerate(node.inputs):
            if read is not value:
                continue
            if node.op in _ZERO_POINTS:
                found = _zero_point(node, place, value)
                if found is None:
                    return None
                point = found
            elif node.op not in _ZERO_IN or (
                (places := _ZERO_IN[node.op]) is not None and place not in places
            ):
                return None
    return point


def _zero_point(node: Node, place: int, value: Constant) -> Array | None:
    index = _ZERO_POINTS[node.op].get(place)
    if index is None:
        return None
    point = None if index < 0 else node.input(index)
    if point is None:
        return np.zeros((), value.dtype)
    if point.array is None:
        return None
    if point.array.size == 1:
        return point.array.reshape(())
    shape = [1] * len(value.dims)
    axis = {"QLinearConv": 0, "ConvInteger": 0, "DequantizeLinear": node.attr("axis")}
    chosen = axis.get(node.op, -2 if place == 0 else -1)
    shape[int(1 if chosen is None else chosen)] = -1
    return point.array.reshape(shape)
