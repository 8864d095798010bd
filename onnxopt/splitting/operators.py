"""A model as operators and the tensors between them: what of it can be cut, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from onnxopt.cost import constant_bytes
from onnxopt.fixed_shapes import fix_shapes
from onnxopt.graph import Constant, Node, Value
from onnxopt.macs import macs
from onnxopt.model import Model
from onnxopt.peak import value_bytes
from onnxopt.shapes import dimension_names, infer
from onnxopt.splitting.dag import Dag, Operator, Tensor
from onnxopt.splitting.node_kinds import (
    constant_values,
    draws,
    inside,
    made,
    needed_nodes,
    stored_bytes,
)
from onnxopt.splitting.run_shapes import run_shapes
from onnxopt.splitting.shape_chains import Merging, Part
from onnxopt.splitting.tensor_types import TensorTypes


@dataclass(frozen=True)
class Subject:
    """A model that is to be split, and what is known of it.

    Attributes:
        proto: the model. It must not be changed meanwhile.
        dag: its operators and tensors.
        types: of each tensor of the dag, by name, as an input of the edge half declares it.
        sizes: the sizes that symbolic dimensions were counted at, in words: `N = 1`.
        random: operators whose results differ from run to run, as a person would name them.
        constants: names of values that depend on no input. Whichever side needs them makes them.
        order: places in `graph.node` in an order in which the nodes can run.
    """

    proto: onnx.ModelProto
    dag: Dag
    types: Mapping[str, onnx.TypeProto]
    sizes: tuple[str, ...]
    random: tuple[str, ...]
    constants: frozenset[str]
    order: tuple[int, ...]


def read_subject(
    proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Subject:
    """Look at a model as cuts see it.

    Operators that no output needs are left out; what depends on constants alone is no operator.

    Args:
        shapes: of inputs, to tell sizes for; symbolic dimensions of others count as 1.

    Raises:
        BadModelError: the graph does not hang together.
        UsageError: `shapes` do not fit the inputs.
    """
    model = Model.from_proto(proto)
    infer(model)
    sized, assumed = _sized(model, shapes or {})
    reader = _Reader(model, sized)
    return Subject(
        proto,
        reader.dag(),
        reader.types.known,
        assumed,
        tuple(part.node.label() for part in reader.parts if draws(part.node, proto.functions)),
        frozenset(value.name for value in reader.constants),
        tuple(reader.place[node] for node in model.graph.nodes if made(node)),
    )


def _sized(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Model, tuple[str, ...]]:
    """The same model at concrete sizes, and what was assumed for that.

    With numbers instead of symbols shape inference sees through Reshapes whose targets the model
    computes.
    """
    names = dimension_names(model.graph)
    given = fix_shapes(model.header, shapes) if shapes else model.header
    declared = {info.name: info.type.tensor_type.shape.dim for info in given.graph.input}
    fixed = dict(shapes)
    assumed = []
    for value in model.graph.inputs:
        if value.shape is None or value.name in shapes:
            continue
        dims = [max(dim.dim_value, 0) for dim in declared[value.name]]  # -1 is open, too
        fixed[value.name] = tuple(dim or 1 for dim in dims)
        assumed += [
            names[s] for s, dim in zip(value.shape, dims, strict=True) if not dim and s in names
        ]
    if not assumed and not shapes:
        return model, ()
    sized = Model.from_proto(fix_shapes(model.header, fixed))
    infer(sized)
    return sized, tuple(dict.fromkeys(f"{name} = 1" for name in assumed))


class _Reader:
    """Collects the operators of a linked model.

    Args:
        sized: the same model with the sizes that are to be told, its nodes in the same order.
    """

    def __init__(self, model: Model, sized: Model) -> None:
        self._model = model
        graph = model.graph
        self.constants = constant_values(graph, model.header.functions)
        live = needed_nodes(graph)
        self.parts = [
            Part(node, tuple(dict.fromkeys(v for v in node.reads() if not self._is_constant(v))))
            for node in graph.nodes
            if node in live and not all(self._is_constant(v) for v in made(node))
        ]
        twins = dict(zip(graph.nodes, sized.graph.nodes, strict=True))
        self._twin = {part.node: twins[part.node] for part in self.parts}
        pairs = [*zip(graph.inputs, sized.graph.inputs, strict=True)]
        for part in self.parts:
            pairs += zip(part.node.outputs, self._twin[part.node].outputs, strict=True)
        self._bytes = {value: _size_bytes(value, twin) for value, twin in pairs}
        self._unknown = {value for value, twin in pairs if twin.static_shape is None}
        self._sized = sized
        last = {name: i for i, n in enumerate(model.header.graph.node) for name in n.output if name}
        self.place = {n: last[made(n)[0].name] for n in graph.nodes if made(n)}
        self._weights: dict[object, tuple[int, int]] = {}
        self.types = TensorTypes(model)

    def _is_constant(self, value: Value) -> bool:
        return isinstance(value, Constant) or value in self.constants

    def dag(self) -> Dag:
        host = Merging(self.parts).host
        number = {h: n for n, h in enumerate(sorted(set(host)))}
        operator = [number[h] for h in host]
        groups: list[list[Part]] = [[] for _ in number]
        for place, part in zip(operator, self.parts, strict=True):
            groups[place].append(part)
        producer = {v: n for n, group in enumerate(groups) for p in group for v in made(p.node)}
        readers: dict[Value, list[int]] = {}
        for n, group in enumerate(groups):
            for value in dict.fromkeys(value for part in group for value in part.reads):
                if producer.get(value) != n:
                    readers.setdefault(value, []).append(n)
        outputs = set(self._model.graph.outputs)
        values = [*self._model.graph.inputs, *producer]
        tensors = [value for value in values if value in readers or value in outputs]
        place_of = {value: n for n, value in enumerate(tensors)}
        heads = [self.parts[h].node for h in sorted(number)]
        return Dag(
            tuple(self._operator(*pair, place_of) for pair in zip(heads, groups, strict=True)),
            self._tensors(tensors, producer, readers),
            tuple(size for _, size in self._weights.values()),
        )

    def _tensors(
        self,
        values: Sequence[Value],
        producer: Mapping[Value, int],
        readers: Mapping[Value, Sequence[int]],
    ) -> tuple[Tensor, ...]:
        kinds = self.types.of([value for value in values if value in producer])
        outputs = set(self._model.graph.outputs)
        unknown = [v for v in values if v in self._unknown and not kinds[v].why_not]
        shapes = run_shapes(self._sized.header, [v.name for v in unknown if v in producer])
        for value in unknown:
            if value.name in shapes:
                item_bytes = np.dtype(kinds[value].dtype).itemsize
                self._bytes[value] = prod(shapes[value.name]) * item_bytes
        return tuple(
            Tensor(
                value.name,
                kinds[value].dtype,
                kinds[value].dims,
                self._bytes[value],
                producer.get(value),
                tuple(readers.get(value, ())),
                value in outputs,
                kinds[value].why_not,
            )
            for value in values
        )

    def _operator(self, head: Node, group: list[Part], place: Mapping[Value, int]) -> Operator:
        """Nodes that stay together, named after one of them."""
        own = [value for part in group for value in made(part.node)]
        inner = set(own)
        reads = {place[v] for part in group for v in part.reads if v in place and v not in inner}
        return Operator(
            head.name or made(head)[0].name,
            head.op if head.is_standard or not head.domain else f"{head.domain}.{head.op}",
            tuple(sorted(self.place[part.node] for part in group)),
            tuple(sorted(reads)),
            tuple(sorted(place[value] for value in own if value in place)),
            tuple(sorted({w for part in group for w in self._weights_of(part.node)})),
            sum(self._macs(part.node) for part in group),
        )

    def _macs(self, node: Node) -> int:
        """Of one run of it and of its bodies."""
        pairs = zip(inside(node), inside(self._twin[node]), strict=True)
        return sum(max(macs(inner) or 0, macs(twin) or 0) for inner, twin in pairs)

    def _weights_of(self, node: Node) -> Iterator[int]:
        """The weights that a node needs, those behind constant nodes and in its bodies too."""
        for value in node.reads():
            if isinstance(value, Constant):
                yield self._weight(value, constant_bytes(value))
            elif value in self.constants and value.producer is not None:
                yield from self._weights_of(value.producer)
        own = sum(constant_bytes(c) for b in node.bodies for g in b.walk() for c in g.initializers)
        own += sum(stored_bytes(inner) for inner in inside(node))
        if own:
            yield self._weight(node, own)

    def _weight(self, key: object, size_bytes: int) -> int:
        return self._weights.setdefault(key, (len(self._weights), size_bytes))[0]


def _size_bytes(value: Value, twin: Value) -> int:
    """At the concrete sizes; where these leave nothing to infer, with 1 for what is open."""
    return value_bytes(value) if twin.static_shape is None else value_bytes(twin)
