"""Static cost of a model and of its nodes: sizes, multiply-accumulates, memory of activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import onnx

from onnxopt.external import size_bytes as message_bytes
from onnxopt.graph import STANDARD_DOMAINS, Constant, Graph, Node, Value
from onnxopt.macs import is_counted_exactly, known_shape, macs, multiplies
from onnxopt.model import Model
from onnxopt.peak import activations, peak_bytes, value_bytes
from onnxopt.shapes import dimension_names, infer
from onnxopt.signature import port_of


@dataclass(frozen=True)
class Cost:
    """What a model costs to store and to run, without running it.

    Attributes:
        nodes: in the main graph and in all bodies. The inside of local functions is not counted.
        operators: how many nodes of each operator, by name.
        initializers: how many, in bodies too.
        parameters: elements of initializers and of Constant nodes.
        weight_bytes: bytes of the same.
        size_bytes: of the whole model, as one file.
        macs: multiply-accumulates of one run. The body of a Loop, Scan or If counts once.
        activation_bytes: memory of all activations, if none were freed.
        peak_memory_bytes: memory of the activations alive at once; weights not included.
        assumed: the symbolic input dimensions that were counted as 1.
        unknown: nodes whose shapes are not known, so that `macs` is a lower bound.
        inputs, outputs: the signature: type and dimensions by name, as text.
    """

    nodes: int
    operators: Mapping[str, int] = field(default_factory=dict)
    initializers: int = 0
    parameters: int = 0
    weight_bytes: int = 0
    size_bytes: int = 0
    macs: int = 0
    activation_bytes: int = 0
    peak_memory_bytes: int = 0
    assumed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeCost:
    """What one node costs.

    Attributes:
        name: how to name it to a person.
        macs: None if unknown.
        parameters, weight_bytes: of the initializers that it reads, shared ones too.
        output_bytes: memory of what it makes.
        output_shape: of its first output, as text.
    """

    name: str
    operator: str
    macs: int | None
    parameters: int
    weight_bytes: int
    output_bytes: int
    output_shape: str


def cost(model: Model, *, size_bytes: int | None = None) -> Cost:
    """Measure a model; fills the types and shapes of its values on the way.

    Args:
        size_bytes: its size as a file, if that is known already.
    """
    infer(model)
    graphs = list(model.graph.walk())
    nodes = [node for graph in graphs for node in graph.nodes]
    counted = Counter(operator_name(node) for node in nodes)
    weights = list(_weights(graphs))
    functions = model.header.functions
    in_functions = any(multiplies(inner.op_type) for f in functions for inner in f.node)
    return Cost(
        nodes=len(nodes),
        operators=dict(sorted(counted.items())),
        initializers=sum(len(graph.initializers) for graph in graphs),
        parameters=sum(count for count, _ in weights),
        weight_bytes=sum(size for _, size in weights),
        size_bytes=message_bytes(model.to_proto()) if size_bytes is None else size_bytes,
        macs=sum(macs(node) or 0 for node in nodes),
        activation_bytes=sum(value_bytes(v) for graph in graphs for v in activations(graph)),
        peak_memory_bytes=peak_bytes(model.graph),
        assumed=tuple(dict.fromkeys(dimension_names(model.graph).values())),
        unknown=tuple(node.label() for node in nodes if _is_unknown(node, in_functions)),
        inputs={v.name: _declared(v.info) for v in model.graph.input_order},
        outputs={info.name: _declared(info) for info in model.graph.output_infos},
    )


def cost_of(proto: onnx.ModelProto) -> Cost:
    """Measure a model that is not linked yet.

    Raises:
        BadModelError: the graph does not hang together.
    """
    return cost(Model.from_proto(proto), size_bytes=message_bytes(proto))


def _declared(info: onnx.ValueInfoProto | None) -> str:
    return "?" if info is None else port_of(info).describe()


def node_costs(model: Model) -> list[NodeCost]:
    """The cost of each node, in the order of the model; bodies included."""
    infer(model)
    return [_node_cost(node) for graph in model.graph.walk() for node in graph.nodes]


def operator_name(node: Node) -> str:
    """The operator as ONNX text writes it, with the domain unless that is the standard one."""
    return node.op if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op}"


def _node_cost(node: Node) -> NodeCost:
    constants = [value for value in node.inputs if isinstance(value, Constant)]
    first = node.output(0)
    return NodeCost(
        name=node.name or (first.name if first is not None else ""),
        operator=operator_name(node),
        macs=macs(node),
        parameters=sum(_elements(constant) for constant in constants),
        weight_bytes=sum(constant_bytes(constant) for constant in constants),
        output_bytes=sum(value_bytes(value) for value in node.outputs if not value.omitted),
        output_shape="?" if first is None else shape_text(first),
    )


def shape_text(value: Value) -> str:
    """Its dimensions as in ONNX text, `?` for what is unknown."""
    shape = known_shape(value)
    if shape is None:
        return "?"
    named = {} if value.graph is None else dimension_names(value.graph.root)
    return "[" + ",".join("?" if d is None else named.get(d, str(d)) for d in shape) + "]"


def _weights(graphs: list[Graph]) -> Iterator[tuple[int, int]]:
    """Elements and bytes of each constant."""
    for graph in graphs:
        for constant in graph.initializers:
            yield _elements(constant), constant_bytes(constant)
        for node in graph.nodes:
            tensor = node.attrs.get("value")
            if node.op == "Constant" and isinstance(tensor, onnx.TensorProto):
                yield prod(tensor.dims), constant_bytes(Constant("", tensor))


def _elements(constant: Constant) -> int:
    return prod(constant.dims)


def constant_bytes(constant: Constant) -> int:
    """Bytes of its data in memory."""
    if constant.is_sparse or constant.dtype.kind == "O":
        return constant.size_bytes
    return _elements(constant) * constant.dtype.itemsize


def _is_unknown(node: Node, function_multiplies: bool) -> bool:
    """The node multiplies and adds more than `macs` says, or may do so."""
    if node.graph is not None and node.graph.root.is_function(node):
        return function_multiplies
    if node.op in ("Loop", "Scan"):
        return any(multiplies(inner.op) for g in node.bodies for b in g.walk() for inner in b.nodes)
    return multiplies(node.op) and (macs(node) is None or not is_counted_exactly(node))
