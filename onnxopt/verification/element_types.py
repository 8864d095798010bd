"""The element type of each tensor of a graph, as far as operators and declarations tell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.defs
import onnx.helper

Types = dict[str, int]
"""onnx.TensorProto.DataType by name of tensor. What is no tensor, or unknown, is not in it."""

_NAMES = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(double)": onnx.TensorProto.DOUBLE,
    "tensor(float16)": onnx.TensorProto.FLOAT16,
    "tensor(bfloat16)": onnx.TensorProto.BFLOAT16,
    "tensor(int64)": onnx.TensorProto.INT64,
    "tensor(int32)": onnx.TensorProto.INT32,
    "tensor(int8)": onnx.TensorProto.INT8,
    "tensor(uint8)": onnx.TensorProto.UINT8,
    "tensor(bool)": onnx.TensorProto.BOOL,
    "tensor(string)": onnx.TensorProto.STRING,
}

_TYPED_BY_ATTRIBUTE = {
    "Cast": "to",
    "EyeLike": "dtype",
    "RandomNormal": "dtype",
    "RandomUniform": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniformLike": "dtype",
    "Bernoulli": "dtype",
    "Multinomial": "dtype",
}


def declared_types(graph: onnx.GraphProto) -> Types:
    """What the file says about inputs, initializers and values."""
    types: Types = {}
    for info in (*graph.value_info, *graph.output, *graph.input):
        if info.type.HasField("tensor_type") and info.type.tensor_type.elem_type:
            types[info.name] = info.type.tensor_type.elem_type
    types.update((tensor.name, tensor.data_type) for tensor in graph.initializer)
    types.update((s.values.name, s.values.data_type) for s in graph.sparse_initializer)
    return types


def element_types(
    graph: onnx.GraphProto, opsets: Mapping[str, int], outer: Types | None = None
) -> Types:
    """Types of all tensors that nodes of the graph can see, those of `outer` included.

    Local functions must be inlined.
    """
    types = dict(outer or {})
    types.update(declared_types(graph))
    before = -1
    while len(types) != before:
        before = len(types)
        _add_types(graph, opsets, types)
    return types


def _add_types(graph: onnx.GraphProto, opsets: Mapping[str, int], types: Types) -> None:
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name and name not in types:
                found = _output_type(node, index, types, opsets)
                if found:
                    types[name] = found


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((a for a in node.attribute if a.name == name), None)


def _output_type(
    node: onnx.NodeProto, index: int, types: Types, opsets: Mapping[str, int]
) -> int | None:
    given = [types.get(name) for name in node.input]
    named = attribute(node, _TYPED_BY_ATTRIBUTE.get(node.op_type, ""))
    if named is not None:
        return int(named.i)
    if node.op_type in ("Constant", "ConstantOfShape"):
        return _constant_type(node)
    if node.op_type in ("If", "Loop", "Scan"):
        return _body_type(node, index, types, opsets)
    try:
        version = opsets.get(node.domain, 0)
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return next((t for t in given if t), None)
    return _schema_type(schema, index, given)


def _schema_type(schema: onnx.defs.OpSchema, index: int, given: list[int | None]) -> int | None:
    if not schema.outputs:
        return None
    text = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
    if text in _NAMES:
        return _NAMES[text]
    for place, found in enumerate(given):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if found and formal.type_str == text:
            return found
    return None


def _constant_type(node: onnx.NodeProto) -> int | None:
    for item in node.attribute:
        if item.name == "value":
            return int(item.t.data_type)
        if item.name.startswith("value_float"):
            return int(onnx.TensorProto.FLOAT)
        if item.name.startswith("value_int"):
            return int(onnx.TensorProto.INT64)
        if item.name.startswith("value_string"):
            return int(onnx.TensorProto.STRING)
    return int(onnx.TensorProto.FLOAT) if node.op_type == "ConstantOfShape" else None


def _body_type(
    node: onnx.NodeProto, index: int, types: Types, opsets: Mapping[str, int]
) -> int | None:
    body = next((a.g for a in node.attribute if a.HasField("g")), None)
    place = index + (node.op_type == "Loop")
    if body is None or place >= len(body.output):
        return None
    info = body.output[place].type
    if info.HasField("sequence_type") or info.HasField("optional_type"):
        return None
    return element_types(body, opsets, types).get(body.output[place].name)


def ulp(elem_type: int) -> float:
    """Distance from 1 to the next number of a floating type; 0 for other types."""
    if elem_type == onnx.TensorProto.BFLOAT16:
        return 2.0**-7
    if elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
        return float(np.finfo(onnx.helper.tensor_dtype_to_np_dtype(elem_type)).eps)
    return 0.0
