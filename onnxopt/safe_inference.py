"""ONNX's shape inference, kept from taking all memory.

With data propagation it keeps an object for each element of every vector of known length, also of
a `Range` of two thousand million: a file of 200 bytes can bring a machine down.
"""

from __future__ import annotations

import onnx
import onnx.shape_inference

from onnxopt.graph_protos import graph_protos

LONGEST_VECTOR = 2**20
"""Elements of a one-dimensional value with which data propagation is still safe."""

MAKERS = frozenset(("Range", "ConstantOfShape", "Expand", "Tile", "Pad", "Resize", "OneHot"))
"""Operators that make long values out of short ones."""


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what inference finds; values of shapes are propagated where that is safe.

    Raises:
        InferenceError, RuntimeError, ValueError, MemoryError: as onnx does.
    """
    if _makes_vectors(proto.graph):
        plain = onnx.shape_inference.infer_shapes(proto)
        if _longest_vector(plain.graph) > LONGEST_VECTOR:
            return plain
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def _makes_vectors(graph: onnx.GraphProto) -> bool:
    return _longest_vector(graph) > LONGEST_VECTOR or any(
        node.op_type in MAKERS for inner in graph_protos(graph) for node in inner.node
    )


def _longest_vector(graph: onnx.GraphProto) -> int:
    return max(
        (
            info.type.tensor_type.shape.dim[0].dim_value
            for inner in graph_protos(graph)
            for info in (*inner.value_info, *inner.input, *inner.output)
            if len(info.type.tensor_type.shape.dim) == 1
        ),
        default=0,
    )
