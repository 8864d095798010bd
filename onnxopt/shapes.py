"""Element types and shapes of every value, taken only from what cannot be wrong.

ONNX's shape inference does the work, on a copy (see `typed_copy`) without declarations to believe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.shape_inference

from onnxopt.graph import Dim, Graph, Variable
from onnxopt.graph_protos import graph_protos
from onnxopt.model import Model
from onnxopt.safe_inference import infer_shapes
from onnxopt.typed_copy import TypedCopy, Types, shape_of

MOST_ROUNDS = 8
"""Of inference, each knowing a few ranks more."""


def infer(model: Model) -> None:
    """Fill `dtype` and `shape` of every Variable, those in bodies included.

    A dimension is a number, a symbol (the same symbol means the same size in any one run) or None.
    What inference cannot find out is None; element types fall back to those the file declares.
    """
    for graph in model.graph.walk():
        graph.sort()
    copy = TypedCopy(model)
    found = _inferred(copy.proto)
    for _ in range(MOST_ROUNDS):
        if not copy.learn_ranks(found):
            break
        found = _inferred(copy.proto)
    for value, name in copy.names.items():
        if isinstance(value, Variable):
            _fill(value, found.get(name))


def dimension_names(graph: Graph) -> dict[Dim, str]:
    """What the file calls the symbolic dimensions of the inputs; else `input[axis]`."""
    names: dict[Dim, str] = {}
    for value in graph.inputs:
        declared = value.info.type.tensor_type.shape.dim if value.info is not None else ()
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int):
                said = declared[axis].dim_param if axis < len(declared) else ""
                names[dim] = said or f"{value.name}[{axis}]"
    return names


def _inferred(proto: onnx.ModelProto) -> Types:
    try:
        inferred = infer_shapes(proto)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, MemoryError):
        return {}
    return {info.name: info.type for info in _infos(inferred.graph)}


def _fill(value: Variable, kind: onnx.TypeProto | None) -> None:
    value.dtype = _dtype(kind)
    value.shape = shape_of(kind)
    if value.dtype is None and value.info is not None:
        value.dtype = _dtype(value.info.type)


def _dtype(kind: onnx.TypeProto | None) -> np.dtype[Any] | None:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.elem_type:
        return None
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    except (KeyError, ValueError):
        return None


def _infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for inner in graph_protos(graph):
        yield from (*inner.value_info, *inner.input, *inner.output)
