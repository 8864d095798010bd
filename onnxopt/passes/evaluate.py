"""Run nodes whose inputs are known, all in one session, after checking that no result is huge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from onnxopt.convert import node_to_proto
from onnxopt.errors import OnnxoptError
from onnxopt.graph import Array, Constant, Node, Value
from onnxopt.runtime import Session

LARGEST_RESULT_BYTES = 64 * 2**20
"""Larger results are never computed, unless an input is as large."""

UNBOUNDED_INPUT_BYTES = 2**20
"""A result whose size cannot be told beforehand is computed only from inputs smaller than this."""

Results = dict[Value, Array]


def evaluate(
    nodes: Sequence[Node], known: Mapping[Value, Array]
) -> tuple[Results, dict[Node, str]]:
    """Results of nodes that do not depend on each other, and why some were not evaluated.

    Args:
        known: what earlier nodes made; other inputs are constants.
    """
    results, refused = _evaluate_together(nodes, known)
    if results is not None:
        return results, refused
    results = {}
    for node in nodes:
        if node in refused:
            continue
        alone, why = _evaluate_together([node], known)
        refused.update(why)
        if alone is None:
            refused[node] = "ONNX Runtime does not compute it"
        else:
            results.update(alone)
    return results, refused


def _evaluate_together(
    nodes: Sequence[Node], known: Mapping[Value, Array]
) -> tuple[Results | None, dict[Node, str]]:
    model = _model(nodes, known)
    sizes = _result_bytes(model)
    refused: dict[Node, str] = {}
    for node in nodes:
        if (why := _too_large(node, sizes, known)) is not None:
            refused[node] = why
    kept = [node for node in nodes if node not in refused]
    if not kept:
        return {}, refused
    if refused:
        model = _model(kept, known)
    try:
        made = Session(model).run({})
    except OnnxoptError:
        return None, refused
    outputs = [value for node in kept for value in node.outputs if not value.omitted]
    arrays = {value: made[value.name] for value in outputs}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        return None, refused
    return arrays, refused


def _model(nodes: Sequence[Node], known: Mapping[Value, Array]) -> onnx.ModelProto:
    model = onnx.ModelProto(ir_version=10)
    root = nodes[0].graph
    assert root is not None
    for domain, version in root.opsets.items():
        model.opset_import.add(domain=domain, version=version)
    model.graph.name = "constants"
    given = dict.fromkeys(v for node in nodes for v in node.inputs if not v.omitted)
    for value in given:
        model.graph.initializer.append(_tensor(value, known))
    for node in nodes:
        model.graph.node.append(node_to_proto(node))
        for value in node.outputs:
            if not value.omitted:
                info = model.graph.output.add(name=value.name)
                info.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(
                    value.dtype if value.dtype.kind not in "SU" else np.dtype(object)
                )
    return model


def _tensor(value: Value, known: Mapping[Value, Array]) -> onnx.TensorProto:
    if isinstance(value, Constant):
        return value.to_proto()
    array = known.get(value, value.array)
    assert array is not None
    return onnx.numpy_helper.from_array(array, value.name)


def _result_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of each output as far as shape inference knows them."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # whatever it dislikes, ONNX Runtime judges
        return {}
    sizes: dict[str, int] = {}
    for info in inferred.graph.output:
        kind = info.type.tensor_type
        if not kind.HasField("shape") or not all(d.HasField("dim_value") for d in kind.shape.dim):
            continue
        item = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).itemsize
        count = 1
        for dim in kind.shape.dim:
            count *= dim.dim_value
        sizes[info.name] = count * item
    return sizes


def _too_large(node: Node, sizes: Mapping[str, int], known: Mapping[Value, Array]) -> str | None:
    given = 0
    for value in node.inputs:
        array = known.get(value, value.array)
        given += array.nbytes if array is not None else 0
    for value in node.outputs:
        if value.omitted:
            continue
        size = sizes.get(value.name)
        if size is None and given > UNBOUNDED_INPUT_BYTES:
            return "the size of the result is not known"
        if size is not None and size > max(LARGEST_RESULT_BYTES, 2 * given):
            return f"the result would take {size:,} bytes"
    return None
