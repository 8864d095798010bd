"""Segments put together again: the model that they were cut from, without codecs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import google.protobuf.message
import onnx

from onnxopt.errors import BadModelError
from onnxopt.splitting.codecs import info_of
from onnxopt.splitting.manifest import Cut, Manifest
from onnxopt.splitting.segments import header_of

Message = TypeVar("Message", bound=google.protobuf.message.Message)


def without_codecs(
    manifest: Manifest, segments: Sequence[onnx.ModelProto]
) -> tuple[onnx.ModelProto, ...]:
    """The segments as they would be had nothing been encoded inside of them.

    Args:
        segments: as the manifest names them, with their weights.
    """
    if len(segments) != 2 or manifest.cuts[1].encoder is not None:
        return tuple(segments)
    cut = manifest.cuts[1]
    names = {port.name for port in cut.tensors}
    new = {port.name for port in cut.wire} - names
    if not new:
        return tuple(segments)
    return tuple(_stripped(proto, cut, new) for proto in segments)


def _stripped(proto: onnx.ModelProto, cut: Cut, new: set[str]) -> onnx.ModelProto:
    """A half without the nodes that encode or decode, giving and taking the tensors themselves."""
    made = header_of(proto)
    made.functions.extend(proto.functions)
    made.graph.CopyFrom(proto.graph)
    graph = made.graph
    nodes = [n for n in graph.node if new.isdisjoint(n.output) and new.isdisjoint(n.input)]
    there = {name for node in nodes for name in node.output} | {i.name for i in graph.input}
    encoded = {
        name for node in graph.node if not new.isdisjoint(node.output) for name in node.input
    }
    decoded = {
        name for node in graph.node if not new.isdisjoint(node.input) for name in node.output
    }
    types = {port.name: info_of(port) for port in cut.tensors}
    outputs = [info for info in graph.output if info.name not in new]
    given = {info.name for info in outputs} | {info.name for info in graph.input}
    outputs += [types[n] for n in types if n in encoded & there - given]
    inputs = [info for info in graph.input if info.name not in new]
    inputs += [types[n] for n in types if n in decoded]
    for field, messages in ((graph.node, nodes), (graph.output, outputs), (graph.input, inputs)):
        copies = [*messages]
        del field[:]
        field.extend(copies)
    return made


def join(
    segments: Sequence[onnx.ModelProto], inputs: Iterable[str], outputs: Iterable[str]
) -> onnx.ModelProto:
    """One model that does what segments without codecs do in a row.

    Names stay what they are. What several segments hold (weights, constants, functions) is there
    once.

    Args:
        inputs, outputs: of the whole model, in its order.

    Raises:
        BadModelError: the segments are not of one model: two hold different things under one name,
            or there is no such input or output.
    """
    made = header_of(segments[0])
    graph = made.graph
    first = segments[0].graph
    graph.name, graph.doc_string = first.name, first.doc_string
    graph.metadata_props.extend(first.metadata_props)
    parts = [proto.graph for proto in segments]
    graph.node.extend(_once((n, next(filter(None, n.output), "")) for g in parts for n in g.node))
    graph.initializer.extend(_once((t, t.name) for g in parts for t in g.initializer))
    graph.sparse_initializer.extend(
        _once((s, s.values.name) for g in parts for s in g.sparse_initializer)
    )
    graph.value_info.extend(_first((i, i.name) for g in parts for i in g.value_info))
    graph.quantization_annotation.extend(
        _first((a, a.tensor_name) for g in parts for a in g.quantization_annotation)
    )
    made.functions.extend(
        _once((f, f"{f.domain}.{f.name}.{f.overload}") for p in segments for f in p.functions)
    )
    _sign(graph, parts, [*inputs], [*outputs])
    return made


def _sign(
    graph: onnx.GraphProto,
    parts: Sequence[onnx.GraphProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Inputs, then those with default values, and outputs, as the segments declare them."""
    declared = {info.name: info for part in reversed(parts) for info in part.input}
    given = {t.name for t in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    results = {info.name: info for part in reversed(parts) for info in part.output}
    for names, there, what in ((inputs, declared, "input"), (outputs, results, "output")):
        for name in names:
            if name not in there:
                raise BadModelError(f"no segment has the {what} '{name}' of the whole model")
    defaults = [name for part in parts for name in (i.name for i in part.input) if name in given]
    for name in dict.fromkeys([*inputs, *defaults]):
        graph.input.append(declared[name])
    graph.output.extend(results[name] for name in outputs)


def _once(named: Iterable[tuple[Message, str]]) -> list[Message]:
    """Each message once; what is there under one name must be the same everywhere."""
    found: dict[str, Message] = {}
    for message, name in named:
        known = found.setdefault(name, message)
        if known is not message and _bytes(known) != _bytes(message):
            raise BadModelError(
                f"the segments hold different things under the name '{name}'",
                "they are of different models, or were changed",
            )
    return [*found.values()]


def _bytes(message: Message) -> bytes:
    """Compared instead of the messages themselves: a NaN in these equals nothing."""
    text: bytes = message.SerializeToString(deterministic=True)
    return text


def _first(named: Iterable[tuple[Message, str]]) -> list[Message]:
    found: dict[str, Message] = {}
    for message, name in named:
        found.setdefault(name, message)
    return [*found.values()]
