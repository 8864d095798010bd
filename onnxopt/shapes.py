"""Element types and shapes of every value, taken only from what cannot be wrong.

ONNX's shape inference does the work, on a copy from which all that files get wrong is gone: declared
shapes of inner values and outputs are not read, and symbolic dimensions of inputs are not believed
to be equal because they have the same name (exporters call unrelated ones alike: 'None', 'unk__1').
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.helper
import onnx.shape_inference

from onnxopt.convert import node_to_proto
from onnxopt.graph import Constant, Dim, Graph, Node, Shape, Value, Variable
from onnxopt.model import Model

LARGEST_KEPT_BYTES = 1024
"""Shapes, axes, pads and scales are smaller; what is larger is known by its type alone."""

IR_VERSION = 10
"""Of the copy: initializers need not be graph inputs, functions are known."""

SHAPED_LIKE = {
    ("com.microsoft", "FusedConv"): "Conv",
    ("com.microsoft", "FusedGemm"): "Gemm",
    ("com.microsoft", "Gelu"): "Relu",
    ("com.microsoft", "FastGelu"): "Relu",
    ("com.microsoft", "QuickGelu"): "Relu",
    ("com.microsoft", "BiasGelu"): "Relu",
}
"""Contrib operators whose first output has the type and shape that a standard one would give it."""


def infer(model: Model) -> None:
    """Fill `dtype` and `shape` of every Variable, those in bodies included.

    A dimension is a number, a symbol (the same symbol means the same size in any one run) or None.
    What inference cannot find out is None; element types fall back to those the file declares.
    """
    for graph in model.graph.walk():
        graph.sort()
    copy = _TypedCopy(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(
            copy.proto, check_type=False, strict_mode=False, data_prop=True
        )
        found = {info.name: info.type for info in _infos(inferred.graph)}
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        found = {}
    for value, name in copy.names.items():
        if isinstance(value, Variable):
            _fill(value, found.get(name))


def _fill(value: Variable, kind: onnx.TypeProto | None) -> None:
    value.dtype = _dtype(kind)
    value.shape = _shape(kind)
    if value.dtype is None and value.info is not None:
        value.dtype = _dtype(value.info.type)


def _dtype(kind: onnx.TypeProto | None) -> np.dtype[Any] | None:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.elem_type:
        return None
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    except (KeyError, ValueError):
        return None


def _shape(kind: onnx.TypeProto | None) -> Shape | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in kind.tensor_type.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None


def _infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.value_info
    yield from graph.input
    yield from graph.output
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _infos(attribute.g)
            for body in attribute.graphs:
                yield from _infos(body)


class _TypedCopy:
    """The model for shape inference: no weights, no doubtful declarations, each value its own name.

    Attributes:
        names: what each value is called in `proto`; unlike in the model, no body reuses a name.
    """

    def __init__(self, model: Model) -> None:
        self.names: dict[Value, str] = {}
        self.proto = onnx.ModelProto(ir_version=IR_VERSION)
        graph = model.graph
        nodes = (node for inner in graph.walk() for node in inner.nodes)
        domains = {"": 1, **{node.domain: 1 for node in nodes}, **graph.opsets}
        for domain, version in domains.items():
            self.proto.opset_import.add(domain=domain, version=version)
        for function in model.header.functions:
            self._add_function(function)
        self._add_graph(graph, self.proto.graph)

    def _add_function(self, function: onnx.FunctionProto) -> None:
        copy = self.proto.functions.add()
        copy.CopyFrom(function)
        copy.domain = "" if function.domain == "ai.onnx" else function.domain
        del copy.value_info[:]

    def _name(self, value: Value) -> str:
        if value.omitted:
            return ""
        return self.names.setdefault(value, f"v{len(self.names)}")

    def _add_graph(self, graph: Graph, proto: onnx.GraphProto) -> None:
        proto.name = "graph"
        for value in graph.inputs:
            self._add_input(value, proto, is_main=graph.parent is None)
        for constant in graph.initializers:
            self._add_initializer(constant, proto)
        for node in graph.nodes:
            if node.graph is not None and not self._became_input(node):
                self._add_node(node, proto)
        for value in graph.outputs:
            info = proto.output.add(name=self._name(value))
            if value.producer is not None and not _is_known(value.producer):
                info.type.CopyFrom(_declared_type(value))

    def _add_input(self, value: Value, proto: onnx.GraphProto, *, is_main: bool) -> None:
        """A main input with the sizes it declares, which the runtime enforces.

        An input of a body keeps its element type only: a loop may change the shape it carries.
        """
        info = proto.input.add(name=self._name(value))
        info.type.CopyFrom(_declared_type(value))
        declared = getattr(value, "info", None)
        if is_main and declared is not None and declared.type.tensor_type.HasField("shape"):
            shape = info.type.tensor_type.shape
            shape.SetInParent()
            for axis, dim in enumerate(declared.type.tensor_type.shape.dim):
                if dim.dim_value > 0:
                    shape.dim.add(dim_value=dim.dim_value)
                else:
                    shape.dim.add(dim_param=f"{value.name}#{axis}")

    def _add_initializer(self, constant: Constant, proto: onnx.GraphProto) -> None:
        if constant.overridable:
            self._add_input(constant, self.proto.graph, is_main=True)
        elif constant.is_sparse or constant.size_bytes > LARGEST_KEPT_BYTES:
            self._add_typed(constant, constant.elem_type, constant.shape)
        else:
            tensor = proto.initializer.add()
            tensor.CopyFrom(constant.to_proto())
            tensor.name = self._name(constant)

    def _add_typed(self, value: Value, elem_type: int, shape: Iterable[Dim]) -> None:
        """As an input of the main graph, which every body can read and need not be given."""
        info = onnx.helper.make_tensor_value_info(self._name(value), elem_type, list(shape))
        self.proto.graph.input.append(info)

    def _became_input(self, node: Node) -> bool:
        """Whether it is a Constant too large to keep, known by its type from now on."""
        tensor = node.attrs.get("value")
        if node.op != "Constant" or not isinstance(tensor, onnx.TensorProto):
            return False
        if tensor.ByteSize() <= LARGEST_KEPT_BYTES:
            return False
        self._add_typed(node.outputs[0], tensor.data_type, tensor.dims)
        return True

    def _add_node(self, node: Node, proto: onnx.GraphProto) -> None:
        copy = proto.node.add()
        if node.bodies:
            copy.op_type, copy.domain = node.op, node.domain
            self._add_attributes(node, copy)
        else:
            copy.CopyFrom(node_to_proto(node))
            copy.domain = node.domain
            del copy.input[:], copy.output[:]
        copy.input.extend(self._name(value) for value in node.inputs)
        copy.output.extend(self._name(value) for value in node.outputs)
        if not _is_known(node):
            _make_known(copy)
            for value in node.outputs:
                if not value.omitted and not value.is_graph_output:
                    info = proto.value_info.add(name=self._name(value))
                    info.type.CopyFrom(_declared_type(value))

    def _add_attributes(self, node: Node, proto: onnx.NodeProto) -> None:
        for name, value in node.attrs.items():
            if isinstance(value, Graph):
                attribute = proto.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
                self._add_graph(value, attribute.g)
            elif isinstance(value, list) and value and isinstance(value[0], Graph):
                attribute = proto.attribute.add(name=name, type=onnx.AttributeProto.GRAPHS)
                for body in value:
                    self._add_graph(body, attribute.graphs.add())
            elif value != []:
                proto.attribute.append(onnx.helper.make_attribute(name, value))


def _is_known(node: Node) -> bool:
    """Shape inference has a schema or a local function for it."""
    if node.graph is not None and node.graph.root.is_function(node):
        return True
    return bool(onnx.defs.has(node.op, node.domain))


def _make_known(proto: onnx.NodeProto) -> None:
    """Turn a contrib operator that shapes its output as a standard one does into that one."""
    standard = SHAPED_LIKE.get((proto.domain, proto.op_type))
    if standard is None:
        return
    proto.op_type, proto.domain = standard, ""
    schema = onnx.defs.get_schema(standard)
    kept = [a for a in proto.attribute if a.name in schema.attributes]
    inputs = list(proto.input)[: schema.max_input]
    del proto.attribute[:], proto.input[:]
    proto.attribute.extend(kept)
    proto.input.extend(inputs)


def _declared_type(value: Value) -> onnx.TypeProto:
    """The type that the file declares, without any shape; empty if it declares none."""
    kind = onnx.TypeProto()
    declared = getattr(value, "info", None)
    if declared is not None:
        kind.CopyFrom(declared.type)
        _drop_shapes(kind)
    return kind


def _drop_shapes(kind: onnx.TypeProto) -> None:
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        getattr(kind, which).ClearField("shape")
    elif which in ("sequence_type", "optional_type"):
        _drop_shapes(getattr(kind, which).elem_type)
    elif which == "map_type":
        _drop_shapes(kind.map_type.value_type)
