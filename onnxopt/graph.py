"""The typed door to GraphSurgeon: Value, Node and Graph, and the few edits that keep them linked.

The classes derive from GraphSurgeon's, so every link between nodes and tensors is kept by its
synchronized lists. Two things differ. Objects are equal only to themselves and hashable
(GraphSurgeon compares by name and by structure, which removes the wrong node from a list of
consumers when two look alike). And nothing of the protobuf is dropped: each object remembers the
message it came from, so that an untouched one is written back as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx_graphsurgeon as gs

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Dim: TypeAlias = int | str | None
Shape: TypeAlias = tuple[Dim, ...]

STANDARD_DOMAINS = ("", "ai.onnx")
RANDOM_OPERATORS = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
    + ("Multinomial", "Bernoulli")
)


class Value(gs.Tensor):  # type: ignore[misc]
    """A tensor (or sequence, map, optional) that flows along an edge of the graph.

    Attributes:
        name: unique in the model, graph bodies included. Empty for an omitted optional input.
        graph: the graph whose nodes, inputs or initializers define it; None for an omitted input.
        is_graph_output: it is listed as an output of its graph.
    """

    name: str
    graph: Graph | None = None
    is_graph_output: bool = False
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def producer(self) -> Node | None:
        """The node that computes it; None for graph inputs, initializers and omitted inputs."""
        return self.inputs[0] if self.inputs else None

    @property
    def consumers(self) -> list[Node]:
        """The nodes that read it, in any graph body too, once for each input that does."""
        return list(self.outputs)

    @property
    def is_used(self) -> bool:
        return bool(self.outputs) or self.is_graph_output

    @property
    def omitted(self) -> bool:
        return not self.name

    @property
    def rank(self) -> int | None:
        shape = self.shape
        return None if shape is None else len(shape)

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """Its shape if every dimension is a known number, else None."""
        dims = self.shape
        if dims is None or not all(isinstance(d, int) for d in dims):
            return None
        return tuple(d for d in dims if isinstance(d, int))

    @property
    def array(self) -> Array | None:
        """Its data if it is constant (see `Constant`), else None. Never write into it."""
        return None


class Variable(Value, gs.Variable):  # type: ignore[misc]
    """A value that is known only when the model runs.

    Attributes:
        info: how the file declares it (graph input, output or value_info); None if it does not.
        dtype: element type, from shape inference; None if unknown or not a tensor.
        shape: dimensions, from shape inference: a number, a symbol, or None if unknown.
    """

    dtype: np.dtype[Any] | None
    shape: Shape | None

    def __init__(self, name: str, info: onnx.ValueInfoProto | None = None) -> None:
        gs.Variable.__init__(self, name)
        self.info = info

    @property
    def array(self) -> Array | None:
        """What a Constant node makes counts as constant too."""
        producer = self.producer
        if producer is None or producer.op != "Constant" or not producer.is_standard:
            return None
        return constant_value(producer)


class Constant(Value, gs.Constant):  # type: ignore[misc]
    """An initializer. It counts as constant unless it is a graph input that a caller may override.

    Attributes:
        source: the message it was read from, or the array it was made from.
        overridable: also a graph input, in IR version 4 or later: only a default value.
        info: its entry among the graph inputs, if it has one.
    """

    def __init__(
        self, name: str, source: onnx.TensorProto | onnx.SparseTensorProto | Array
    ) -> None:
        gs.Constant.__init__(self, name, np.empty(0, np.float32))
        self.source = source
        self.overridable = False
        self.info: onnx.ValueInfoProto | None = None
        self._array: Array | None = source if isinstance(source, np.ndarray) else None

    @property
    def is_sparse(self) -> bool:
        return isinstance(self.source, onnx.SparseTensorProto)

    @property
    def array(self) -> Array | None:
        if self.overridable or self.is_sparse:
            return None
        return self.data

    @property
    def data(self) -> Array:
        """The values, overridable or not (dense initializers only). Never write into it."""
        if self._array is None:
            assert isinstance(self.source, onnx.TensorProto)
            self._array = onnx.numpy_helper.to_array(self.source)
            self._array.flags.writeable = False
        return self._array

    def replace_data(self, array: Array) -> None:
        """Other data, of another shape perhaps, for all that read it."""
        self.source = array
        self._array = array

    @property
    def values(self) -> Array:
        """The data under the name GraphSurgeon gives it."""
        return self.data

    @property
    def dtype(self) -> np.dtype[Any]:
        if isinstance(self.source, np.ndarray):
            return self.source.dtype
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.elem_type))

    @property
    def elem_type(self) -> int:
        """Its onnx.TensorProto.DataType."""
        if isinstance(self.source, np.ndarray):
            kind: int = onnx.helper.np_dtype_to_tensor_dtype(self.source.dtype)
            return kind
        if isinstance(self.source, onnx.SparseTensorProto):
            return self.source.values.data_type
        return self.source.data_type

    @property
    def shape(self) -> Shape | None:
        """Its dimensions; of one that may be overridden what the input declares."""
        if self.overridable and self.info is not None:
            return _declared_shape(self.info)
        return self.dims

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of its data."""
        if isinstance(self.source, np.ndarray):
            return tuple(self.source.shape)
        return tuple(self.source.dims)

    @property
    def size_bytes(self) -> int:
        """Bytes of its data as stored in the file."""
        if isinstance(self.source, np.ndarray):
            if self.source.dtype == object:
                return sum(len(str(s)) for s in self.source.ravel())
            return int(self.source.nbytes)
        size: int = self.source.ByteSize()
        return size if self.is_sparse else max(size - len(self.name) - 16, 0)

    def to_proto(self) -> onnx.TensorProto:
        """The initializer under its present name (a copy only where the name changed)."""
        if isinstance(self.source, np.ndarray):
            return onnx.numpy_helper.from_array(self.source, self.name)
        assert isinstance(self.source, onnx.TensorProto)
        if self.source.name == self.name:
            return self.source
        proto = onnx.TensorProto()
        proto.CopyFrom(self.source)
        proto.name = self.name
        return proto


def _declared_shape(info: onnx.ValueInfoProto) -> Shape | None:
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)


class Node(gs.Node):  # type: ignore[misc]
    """One operator.

    Attributes:
        op, domain, name: as in the file; the domain of standard operators is "".
        attrs: attribute values: int, float, str, lists of those, TensorProto, Graph, ...
        inputs, outputs: lists of Value, linked both ways.
        graph: the graph it stands in; None once removed.
        opset: the version of its domain's operator set.
        source: the message it was read from; None for a node made by a rewrite.
    """

    op: str
    domain: str
    name: str
    attrs: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self,
        op: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        attrs: dict[str, Any] | None = None,
        *,
        name: str = "",
        domain: str = "",
        opset: int = 1,
        source: onnx.NodeProto | None = None,
    ) -> None:
        gs.Node.__init__(self, op, name, dict(attrs or {}), list(inputs), list(outputs), domain)
        self.graph: Graph | None = None
        self.opset = opset
        self.source = source

    @property
    def is_standard(self) -> bool:
        """It belongs to the ONNX standard operator set (not ai.onnx.ml, contrib or a function)."""
        return self.domain in STANDARD_DOMAINS and not (
            self.graph is not None and self.graph.root.is_function(self)
        )

    @property
    def is_random(self) -> bool:
        """Two runs may differ: a random operator, or dropout in training mode."""
        if not self.is_standard:
            return False
        if self.op == "Dropout":
            return len(self.inputs) > 2 and not self.inputs[2].omitted
        return self.op in RANDOM_OPERATORS

    def input(self, index: int) -> Value | None:
        """Input number `index`, or None if it is omitted."""
        if index >= len(self.inputs) or self.inputs[index].omitted:
            return None
        return self.inputs[index]

    def output(self, index: int) -> Value | None:
        """Output number `index`, or None if it is omitted."""
        if index >= len(self.outputs) or self.outputs[index].omitted:
            return None
        return self.outputs[index]

    def attr(self, name: str) -> Any:
        """Value of an attribute, its default by the operator's schema, or None."""
        if name in self.attrs:
            return self.attrs[name]
        return schema_defaults(self.op, self.domain, self.opset).get(name)

    @property
    def bodies(self) -> list[Graph]:
        """The graphs among its attributes (If, Loop, Scan)."""
        found: list[Graph] = []
        for value in self.attrs.values():
            if isinstance(value, Graph):
                found.append(value)
            elif isinstance(value, list) and value and isinstance(value[0], Graph):
                found.extend(value)
        return found

    def reads(self) -> Iterator[Value]:
        """The values it needs: its inputs and all that its bodies capture from outside."""
        for value in self.inputs:
            if not value.omitted:
                yield value
        for body in self.bodies:
            yield from body.captured()

    def label(self) -> str:
        """How to name it to a person: its name, or its operator and first output."""
        if self.name:
            return f"{self.op} '{self.name}'"
        return f"{self.op} making '{self.outputs[0].name}'" if self.outputs else self.op


class Graph(gs.Graph):  # type: ignore[misc]
    """A graph, or the body of a control-flow operator.

    Attributes:
        nodes: in an order in which they can run.
        inputs, outputs: in the order of the signature; initializers are not among the inputs.
        input_order: the inputs and, where the file lists them, initializers that are also inputs.
        output_infos: how the file declares the outputs.
        initializers: in the order of the file.
        opsets: version by domain, the same dict in every body of a model.
        parent: the graph around a body; None for the main graph.
        protected: initializers that something outside the nodes refers to (main graph only).
        source: the message it was read from.
    """

    nodes: list[Node]
    inputs: list[Value]
    outputs: list[Value]
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self,
        *,
        name: str,
        opsets: dict[str, int],
        source: onnx.GraphProto,
        parent: Graph | None = None,
    ) -> None:
        gs.Graph.__init__(self, name=name, opset=opsets.get("", 1))
        self.opsets = opsets
        self.source = source
        self.parent = parent
        self.initializers: list[Constant] = []
        self.input_order: list[Value] = []
        self.output_infos: list[onnx.ValueInfoProto] = []
        self.node_names: set[str] = set() if parent is None else parent.root.node_names
        self.functions_defined: frozenset[tuple[str, str]] = frozenset()
        self.taken: set[str] = set() if parent is None else parent.root.taken
        self.counters: dict[str, int] = {}
        self.ir_version = 0
        self.protected: frozenset[str] = frozenset()

    @property
    def root(self) -> Graph:
        graph = self
        while graph.parent is not None:
            graph = graph.parent
        return graph

    def is_function(self, node: Node) -> bool:
        """The model defines the node's operator itself, as a local function."""
        return (node.domain, node.op) in self.functions_defined

    def walk(self) -> Iterator[Graph]:
        """This graph and all bodies in it, outer before inner."""
        yield self
        for node in self.nodes:
            for body in node.bodies:
                yield from body.walk()

    def captured(self) -> Iterator[Value]:
        """The values from outside that nodes and outputs of this body read, with repeats."""
        inside = set(self.walk())
        for graph in self.walk():
            for node in graph.nodes:
                for value in node.inputs:
                    if not value.omitted and value.graph not in inside:
                        yield value
            for value in graph.outputs:
                if value.graph not in inside:
                    yield value

    def fresh_name(self, base: str) -> str:
        """A name that nothing in the model has yet, made from `base`."""
        root = self.root
        name, count = base, root.counters.get(base, 0)
        while not name or name in root.taken:
            count += 1
            name = f"{base}_{count}"
        root.counters[base] = count
        root.taken.add(name)
        return name

    def add_initializer(self, array: Array, base: str) -> Constant:
        """A new initializer of this graph under a fresh name made from `base`."""
        constant = Constant(self.fresh_name(base), array)
        constant.graph = self
        self.initializers.append(constant)
        return constant

    def adopt_initializer(self, name: str, array: Array) -> Constant:
        """A new initializer of this graph under a name that its present owner gives up."""
        constant = Constant(name, array)
        constant.graph = self
        self.initializers.append(constant)
        return constant

    def replace_initializer(self, old: Constant, array: Array) -> Constant:
        """Put other data under the name of an initializer that nothing will read any more."""
        new = Constant(old.name, array)
        new.graph = self
        self.initializers[self.initializers.index(old)] = new
        if old in self.input_order:
            self.input_order[self.input_order.index(old)] = new
            new.info = onnx.helper.make_tensor_value_info(new.name, new.elem_type, new.dims)
        return new

    def new_value(self, base: str) -> Variable:
        """A new value of this graph, for a node output, under a fresh name made from `base`."""
        value = Variable(self.fresh_name(base))
        value.graph = self
        return value

    def sort(self) -> None:
        """Put the nodes into an order in which they can run, keeping theirs where it already is.

        Raises:
            ValueError: the nodes form a cycle.
        """
        self.nodes[:] = sorted_nodes(self)


def constant_value(node: Node) -> Array | None:
    """What a Constant node makes; None if it is sparse or unset."""
    for name, value in node.attrs.items():
        if name == "value":
            array: Array = onnx.numpy_helper.to_array(value)
            array.flags.writeable = False
            return array
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
        if name in ("value_string", "value_strings"):
            return np.array(value, object)
    return None


_defaults: dict[tuple[str, str, int], dict[str, Any]] = {}


def schema_defaults(op: str, domain: str, opset: int) -> dict[str, Any]:
    """Default attribute values of an operator by its schema; empty if it has no schema."""
    key = (op, domain, opset)
    if key not in _defaults:
        found: dict[str, Any] = {}
        try:
            schema = onnx.defs.get_schema(op, opset, domain)
        except onnx.defs.SchemaError:
            schema = None
        if schema is not None:
            for name, attribute in schema.attributes.items():
                if attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
                    found[name] = decode_attribute(attribute.default_value)
        _defaults[key] = found
    return _defaults[key]


def decode_attribute(attribute: onnx.AttributeProto) -> Any:
    """Python value of an attribute; text as str where it is UTF-8. Not for graphs."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return _text(value)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [_text(v) for v in value]
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    return value


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def sorted_nodes(graph: Graph) -> list[Node]:
    """The nodes of one graph in a runnable order that departs from theirs only where it must."""
    done: set[Node] = set()
    order: list[Node] = []
    for start in graph.nodes:
        stack: list[tuple[Node, Iterator[Node]]] = []
        open_nodes: set[Node] = set()
        if start not in done:
            stack.append((start, _sources(start, graph)))
            open_nodes.add(start)
        while stack:
            node, sources = stack[-1]
            source = next(sources, None)
            if source is None:
                stack.pop()
                open_nodes.discard(node)
                done.add(node)
                order.append(node)
            elif source in open_nodes:
                raise ValueError(f"{source.label()} depends on its own output")
            elif source not in done:
                stack.append((source, _sources(source, graph)))
                open_nodes.add(source)
    return order


def _sources(node: Node, graph: Graph) -> Iterator[Node]:
    for value in node.reads():
        producer = value.producer
        if producer is not None and producer.graph is graph:
            yield producer


def replace_uses(old: Value, new: Value) -> None:
    """Let every node that reads `old` read `new`. Graph outputs are not touched."""
    for node in dict.fromkeys(old.consumers):
        for index, value in enumerate(node.inputs):
            if value is old:
                node.inputs[index] = new


def detach(node: Node) -> None:
    """Unlink a node, and all nodes in its bodies, from the values it reads and makes.

    It stays in its graph's list until `drop_detached`.
    """
    for body in node.bodies:
        for inner in body.nodes:
            detach(inner)
    node.inputs.clear()
    node.outputs.clear()
    node.graph = None


def drop_detached(graph: Graph) -> None:
    """Take the detached nodes out of the graph's list."""
    graph.nodes[:] = [node for node in graph.nodes if node.graph is not None]


def link(graph: Graph, nodes: Iterable[Node]) -> None:
    """Make `graph` the owner of the nodes and of what they make (they must be in its list)."""
    for node in nodes:
        node.graph = graph
        for value in node.outputs:
            if not value.omitted:
                value.graph = graph
