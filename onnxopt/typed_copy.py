"""The model as shape inference gets to see it: types without weights, nothing that may be wrong.

Left out are declared shapes of inner values and outputs, which files get wrong. Symbolic dimensions
of inputs are renamed apart, for exporters call unrelated ones alike ('None', 'unk__1').
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import onnx
import onnx.defs
import onnx.helper

from onnxopt.convert import node_to_proto
from onnxopt.graph import Constant, Dim, Graph, Node, Shape, Value, Variable
from onnxopt.model import Model

LARGEST_KEPT_BYTES = 1024
"""Shapes, axes, pads and scales are smaller; what is larger is known by its type alone."""

IR_VERSION = 10
"""Of the copy: initializers need not be graph inputs, functions are known."""

Types: TypeAlias = dict[str, onnx.TypeProto]

SHAPED_LIKE = {
    ("", "ImageScaler"): "Relu",
    ("com.microsoft", "FusedConv"): "Conv",
    ("com.microsoft", "FusedGemm"): "Gemm",
    ("com.microsoft", "Gelu"): "Relu",
    ("com.microsoft", "FastGelu"): "Relu",
    ("com.microsoft", "QuickGelu"): "Relu",
    ("com.microsoft", "BiasGelu"): "Relu",
}
"""Contrib operators whose first output has the type and shape that a standard one would give it."""


class TypedCopy:
    """The model for shape inference: no weights, no doubtful declarations, each value its own name.

    Attributes:
        names: what each value is called in `proto`; unlike in the model, no body reuses a name.
    """

    def __init__(self, model: Model) -> None:
        self.names: dict[Value, str] = {}
        self._graphs = 0
        self._copied: set[str] = set()
        self._shaped_by_input: list[tuple[Node, onnx.GraphProto]] = []
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

    def _add_graph(self, graph: Graph, proto: onnx.GraphProto, around: Node | None = None) -> None:
        proto.name = f"g{self._graphs}"
        self._graphs += 1
        for value in graph.inputs:
            self._add_input(value, proto, is_enforced=around is None)
        if around is not None and around.op == "Loop" and around.is_standard and graph.inputs:
            _shape_iteration_number(graph.inputs[0], proto.input[0])
        for constant in graph.initializers:
            self._add_initializer(constant, proto)
        for node in graph.nodes:
            if node.graph is not None and not self._became_input(node):
                self._add_node(node, proto)
        for value, declared in zip(graph.outputs, graph.output_infos, strict=True):
            info = proto.output.add(name=self._as_output(value, graph, proto))
            info.type.CopyFrom(_without_shapes(declared))

    def _as_output(self, value: Value, graph: Graph, proto: onnx.GraphProto) -> str:
        """The name of an output: one of its own for what is listed twice or made elsewhere.

        ONNX's inference gives up on the bodies of Loops that return such a value.
        """
        name = self._name(value)
        own = value.producer is not None and value.graph is graph
        if own and name not in {info.name for info in proto.output}:
            return name
        copy = f"{name}_out{len(proto.output)}_{proto.name}"
        proto.node.add(op_type="Identity", input=[name], output=[copy])
        return copy

    def _add_input(self, value: Value, proto: onnx.GraphProto, *, is_enforced: bool) -> None:
        """An input of the main graph with the sizes it declares: the runtime enforces them.

        An input of a body keeps its element type only: a loop may change the shape it carries.
        """
        info = proto.input.add(name=self._name(value))
        declared = _declared(value)
        info.type.CopyFrom(_without_shapes(declared))
        if is_enforced and declared.type.tensor_type.HasField("shape"):
            shape = info.type.tensor_type.shape
            shape.SetInParent()
            for axis, dim in enumerate(declared.type.tensor_type.shape.dim):
                if dim.dim_value > 0:
                    shape.dim.add(dim_value=dim.dim_value)
                else:
                    shape.dim.add(dim_param=f"{value.name}#{axis}")

    def _add_initializer(self, constant: Constant, proto: onnx.GraphProto) -> None:
        if constant.overridable:
            self._add_input(constant, self.proto.graph, is_enforced=True)
        elif constant.is_sparse or constant.size_bytes > LARGEST_KEPT_BYTES:
            self._add_typed(constant, constant.elem_type, constant.dims)
        else:
            _add_small(constant, self._name(constant), proto)

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
        copy.input.extend(self._read(value, node, proto) for value in node.inputs)
        if node.is_standard and node.op in ("Reshape", "ConstantOfShape"):
            self._shaped_by_input.append((node, proto))
        copy.output.extend(self._name(value) for value in node.outputs)
        if node.is_standard and node.op == "STFT" and "onesided" not in node.attrs:
            copy.attribute.add(name="onesided", type=onnx.AttributeProto.INT, i=1)
        if not _is_known(node):
            _make_known(copy)
            for value in node.outputs:
                if not value.omitted and not value.is_graph_output:
                    info = proto.value_info.add(name=self._name(value))
                    info.type.CopyFrom(_without_shapes(_declared(value)))

    def _read(self, value: Value, node: Node, proto: onnx.GraphProto) -> str:
        """The name of an input. A body gets its own copy of a small constant from outside.

        ONNX's inference does not look outside a body for the values of axes, shapes and pads.
        """
        name = self._name(value)
        if value.graph is node.graph or not isinstance(value, Constant) or value.overridable:
            return name
        if value.is_sparse or value.size_bytes > LARGEST_KEPT_BYTES:
            return name
        own = f"{name}_in_{proto.name}"
        if own not in self._copied:
            self._copied.add(own)
            _add_small(value, own, proto)
        return own

    def learn_ranks(self, found: Types) -> bool:
        """Declare the rank of results whose shape is itself computed: the length of that shape.

        Returns:
            whether any was learned, so that inference, run again, will know more.
        """
        learned = False
        for node, proto in self._shaped_by_input:
            name = self.names[node.outputs[0]]
            wanted = node.inputs[-1]
            length = shape_of(found.get(self.names[wanted]))
            kind = found.get(name)
            if (
                kind is not None
                and shape_of(kind) is None
                and length
                and isinstance(length[0], int)
            ):
                _declare_rank(name, kind, length[0], proto)
                learned = True
        return learned

    def _add_attributes(self, node: Node, proto: onnx.NodeProto) -> None:
        for name, value in node.attrs.items():
            if isinstance(value, Graph):
                attribute = proto.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
                self._add_graph(value, attribute.g, node)
            elif isinstance(value, list) and value and isinstance(value[0], Graph):
                attribute = proto.attribute.add(name=name, type=onnx.AttributeProto.GRAPHS)
                for body in value:
                    self._add_graph(body, attribute.graphs.add(), node)
            elif value != []:
                proto.attribute.append(onnx.helper.make_attribute(name, value))


def _shape_iteration_number(value: Value, info: onnx.ValueInfoProto) -> None:
    """ONNX Runtime counts iterations in a scalar or, where the body declares so, in a vector."""
    declared = shape_of(_declared(value).type)
    info.type.tensor_type.shape.SetInParent()
    if declared:
        info.type.tensor_type.shape.dim.add(dim_value=1)


def _declared(value: Value) -> onnx.ValueInfoProto:
    """How the file declares it; empty if it does not."""
    info = value.info if isinstance(value, Variable | Constant) else None
    return info if info is not None else onnx.ValueInfoProto()


def _add_small(constant: Constant, name: str, proto: onnx.GraphProto) -> None:
    tensor = proto.initializer.add()
    tensor.CopyFrom(constant.to_proto())
    tensor.name = name


def _declare_rank(name: str, kind: onnx.TypeProto, rank: int, proto: onnx.GraphProto) -> None:
    outputs = {info.name: info for info in proto.output}
    info = outputs[name] if name in outputs else proto.value_info.add(name=name)
    info.type.CopyFrom(kind)
    info.type.tensor_type.shape.SetInParent()
    for _ in range(rank):
        info.type.tensor_type.shape.dim.add()


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


def _without_shapes(declared: onnx.ValueInfoProto) -> onnx.TypeProto:
    """The declared type, without any shape; empty if there is none."""
    kind = onnx.TypeProto()
    if declared.HasField("type"):
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


def shape_of(kind: onnx.TypeProto | None) -> Shape | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in kind.tensor_type.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None
