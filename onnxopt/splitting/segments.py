"""Consecutive parts of a model as models of their own, each whole in itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx

from onnxopt.graph_protos import bodies
from onnxopt.splitting.operators import Subject
from onnxopt.submodel import free_names

_NOT_COPIED = frozenset(("graph", "functions", "training_info"))
"""Fields of a model that a segment gets in part or not at all: training is of the whole model."""


@dataclass(frozen=True)
class Piece:
    """One segment as a model.

    Attributes:
        proto: shares no message with the whole model.
        reads: its inputs but for those with a default value, in order.
        makes: its outputs, in order.
        operators: numbers of the operators that it runs.
    """

    proto: onnx.ModelProto
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    operators: frozenset[int]


def cut_into_pieces(subject: Subject, chain: Sequence[frozenset[int]]) -> tuple[Piece, ...]:
    """The segments between nested cuts.

    Args:
        chain: for each inner cut the operators on the device, each within the next one.

    Returns:
        one segment more than cuts. Weights and constants that several need are in each of them; an
        output of the model is made by the segment that computes it, by the first one where it is an
        input or a constant; inputs that nothing reads belong to the first one.
    """
    whole = frozenset(range(len(subject.dag.operators)))
    bounds = [frozenset[int](), *chain, whole]
    index = _Index(subject)
    return tuple(
        index.piece(after - before, first=number == 0)
        for number, (before, after) in enumerate(pairwise(bounds))
    )


class _Index:
    """A model with what must be looked up of it for each segment."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._graph = subject.proto.graph
        self._nodes = list(self._graph.node)
        self._rank = {place: rank for rank, place in enumerate(subject.order)}
        self._constant_at = {
            name: place
            for place, node in enumerate(self._nodes)
            for name in node.output
            if name in subject.constants
        }
        self._weights = {t.name for t in self._graph.initializer}
        self._weights |= {s.values.name for s in self._graph.sparse_initializer}
        self._quantized = {
            a.tensor_name: [pair.value for pair in a.quant_parameter_tensor_names]
            for a in self._graph.quantization_annotation
        }
        read = {n for o in subject.dag.operators for p in o.nodes for n in self._free(p)}
        read |= {n for p in set(self._constant_at.values()) for n in self._free(p)}
        self._unread = {info.name for info in self._graph.input} - read

    def _free(self, place: int) -> set[str]:
        return free_names(self._nodes[place])

    def piece(self, operators: frozenset[int], *, first: bool) -> Piece:
        dag = self._subject.dag
        places = {place for number in operators for place in dag.operators[number].nodes}
        outputs = self._outputs(operators, first=first)
        needed = {name for place in places for name in self._free(place)}
        needed |= {info.name for info in outputs}
        if first:
            needed |= self._unread
        places |= self._constant_places(needed)
        nodes = [self._nodes[place] for place in sorted(places, key=self._rank.__getitem__)]
        made = {name for node in nodes for name in node.output if name}
        for name in made | needed:
            needed |= {n for n in self._quantized.get(name, ()) if n in self._weights}
        proto = header_of(self._subject.proto)
        proto.functions.extend(_used(self._subject.proto.functions, nodes))
        reads = self._fill(proto.graph, nodes, needed, made)
        proto.graph.output.extend(outputs)
        return Piece(proto, reads, tuple(info.name for info in outputs), operators)

    def _constant_places(self, needed: set[str]) -> set[int]:
        """Nodes that make the constants among the needed names; adds what these need."""
        places: set[int] = set()
        waiting = [name for name in needed if name in self._constant_at]
        while waiting:
            place = self._constant_at[waiting.pop()]
            if place not in places:
                places.add(place)
                read = self._free(place)
                needed |= read
                waiting += [name for name in read if name in self._constant_at]
        return places

    def _outputs(self, operators: frozenset[int], *, first: bool) -> list[onnx.ValueInfoProto]:
        """Outputs of the model that this segment gives, then what others read of its results."""
        dag = self._subject.dag
        made = {dag.tensors[t].name: t for o in operators for t in dag.operators[o].makes}
        elsewhere = {t.name for t in dag.tensors if t.producer is not None} - made.keys()
        found = [
            info
            for info in self._graph.output
            if info.name in made or (first and info.name not in elsewhere)
        ]
        given = {info.name for info in found}
        for name, number in sorted(made.items(), key=lambda item: item[1]):
            read = any(reader not in operators for reader in dag.tensors[number].readers)
            if read and name not in given:
                found.append(onnx.ValueInfoProto(name=name, type=self._subject.types[name]))
        return found

    def _fill(
        self,
        graph: onnx.GraphProto,
        nodes: Sequence[onnx.NodeProto],
        needed: set[str],
        made: set[str],
    ) -> tuple[str, ...]:
        """Everything but the outputs; returns the names of the inputs without a default value."""
        whole = self._graph
        graph.name, graph.doc_string = whole.name or "graph", whole.doc_string
        graph.metadata_props.extend(whole.metadata_props)
        graph.node.extend(nodes)
        graph.initializer.extend(t for t in whole.initializer if t.name in needed)
        graph.sparse_initializer.extend(
            s for s in whole.sparse_initializer if s.values.name in needed
        )
        graph.input.extend(info for info in whole.input if info.name in needed)
        crossing = [
            tensor.name
            for tensor in self._subject.dag.tensors
            if tensor.producer is not None and tensor.name in needed - made
        ]
        graph.input.extend(
            onnx.ValueInfoProto(name=name, type=self._subject.types[name]) for name in crossing
        )
        graph.value_info.extend(info for info in whole.value_info if info.name in made)
        graph.quantization_annotation.extend(
            a for a in whole.quantization_annotation if a.tensor_name in made | needed
        )
        return tuple(info.name for info in graph.input if info.name not in self._weights)


def header_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What a model says beside its graph."""
    made = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name in _NOT_COPIED:
            continue
        if field.name in ("opset_import", "metadata_props", "configuration"):
            getattr(made, field.name).extend(value)
        else:
            setattr(made, field.name, value)
    return made


def _used(
    functions: Iterable[onnx.FunctionProto], nodes: Iterable[onnx.NodeProto]
) -> list[onnx.FunctionProto]:
    """The local functions that nodes call, from bodies or from other functions too."""
    by_name: dict[tuple[str, str], list[onnx.FunctionProto]] = {}
    for function in functions:
        by_name.setdefault((_domain(function.domain), function.name), []).append(function)
    found: set[tuple[str, str]] = set()
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        key = (_domain(node.domain), node.op_type)
        if key in by_name and key not in found:
            found.add(key)
            waiting += [inner for function in by_name[key] for inner in function.node]
        waiting += [inner for body in bodies(node) for inner in body.node]
    return [f for f in functions if (_domain(f.domain), f.name) in found]


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
