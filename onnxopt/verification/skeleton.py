"""A model without its weights: what its graph says about shapes and memory, cheaply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.inliner

from onnxopt.graph_protos import bodies
from onnxopt.safe_inference import infer_shapes
from onnxopt.signature import Dim, port_of

LARGEST_KEPT_BYTES = 4096
"""Initializers up to this size keep their data: shapes, axes and indices are among them."""

WEIGHT = "onnxopt: a weight"
"""Doc string of the inputs that stand for weights: they take no memory of activations."""

Shapes = dict[str, tuple[Dim, ...]]


def skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with local functions inlined in which large weights are inputs without data."""
    bare = onnx.ModelProto()
    bare.ir_version = max(proto.ir_version, 4)
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    graph, bare_graph = proto.graph, bare.graph
    bare_graph.name = graph.name or "graph"
    listed = {value.name for value in graph.input}
    bare_graph.input.extend(graph.input)
    bare_graph.output.extend(graph.output)
    bare_graph.value_info.extend(graph.value_info)
    bare_graph.sparse_initializer.extend(graph.sparse_initializer)
    for tensor in graph.initializer:
        if tensor.ByteSize() <= LARGEST_KEPT_BYTES:
            bare_graph.initializer.append(tensor)
        elif tensor.name not in listed:
            bare_graph.input.append(_declare(tensor.name, tensor))
    for node in graph.node:
        tensor_of = _large_constant(node)
        if tensor_of is None:
            bare_graph.node.append(node)
        else:
            bare_graph.input.append(_declare(node.output[0], tensor_of))
    if bare.functions:
        try:
            return onnx.inliner.inline_local_functions(bare)
        except Exception:
            return bare
    return bare


def _declare(name: str, tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(
        name, tensor.data_type, list(tensor.dims), doc_string=WEIGHT
    )


def _large_constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type == "Constant":
        for item in node.attribute:
            if item.name == "value" and item.t.ByteSize() > LARGEST_KEPT_BYTES:
                tensor: onnx.TensorProto = item.t
                return tensor
    return None


def infer(bare: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Infer all shapes of a skeleton.

    Args:
        sizes: shape of each input that is to have one.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(bare)
    for value in copy.graph.input:
        if value.name in sizes and value.type.HasField("tensor_type"):
            del value.type.tensor_type.shape.dim[:]
            value.type.tensor_type.shape.SetInParent()
            for size in sizes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    if sizes:
        del copy.graph.value_info[:]
        for value in copy.graph.output:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    try:
        return infer_shapes(copy)
    except Exception:
        return copy


def shapes_of(inferred: onnx.ModelProto) -> Shapes:
    """Known shapes by name, those of values in bodies included."""
    found: Shapes = {}
    _collect_shapes(inferred.graph, found)
    return found


def _collect_shapes(graph: onnx.GraphProto, found: Shapes) -> None:
    for info in (*graph.value_info, *graph.input, *graph.output):
        dims = port_of(info).dims
        if dims is not None:
            found.setdefault(info.name, dims)
    for tensor in graph.initializer:
        found[tensor.name] = tuple(tensor.dims)
    for node in graph.node:
        if node.op_type == "Constant":
            for item in node.attribute:
                if item.name == "value":
                    found[node.output[0]] = tuple(item.t.dims)
        for body in bodies(node):
            _collect_shapes(body, found)


def peak_bytes(inferred: onnx.ModelProto) -> int:
    """Bytes of values that are alive together, at worst, when nodes run in the order of the file.

    Unknown dimensions count as 1, so this is what is needed at least.
    """
    return _peak(inferred.graph)


def _peak(graph: onnx.GraphProto) -> int:
    sizes = {info.name: _size(info) for info in (*graph.value_info, *graph.input, *graph.output)}
    last = {name: len(graph.node) for name in (value.name for value in graph.output)}
    for index, node in enumerate(graph.node):
        for name in _reads(node):
            last[name] = max(last.get(name, 0), index)
    dying: dict[int, list[str]] = {}
    for name, index in last.items():
        dying.setdefault(index, []).append(name)
    alive = sum(_size(value) for value in graph.input)
    peak = alive
    for index, node in enumerate(graph.node):
        made = [name for name in node.output if name]
        alive += sum(sizes.get(name, 0) for name in made)
        inner = max((_peak(body) for body in bodies(node)), default=0)
        peak = max(peak, alive + inner)
        alive -= sum(sizes.get(name, 0) for name in dying.get(index, ()))
        alive -= sum(sizes.get(name, 0) for name in made if name not in last)
    return peak


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    yield from node.input
    for body in bodies(node):
        for value in body.output:
            yield value.name
        for inner in body.node:
            yield from _reads(inner)


def _size(info: onnx.ValueInfoProto) -> int:
    port = port_of(info)
    if info.doc_string == WEIGHT or port.dims is None or port.kind not in ("tensor", "sequence"):
        return 0
    count = 1
    for dim in port.dims:
        count *= dim if isinstance(dim, int) else 1
    return count * (port.dtype.itemsize if port.dtype != np.dtype(object) else 16)
