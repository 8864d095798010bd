"""A model cut into segments, with the codec of each cut: all models that `split export` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import onnx

from onnxopt.graph_protos import bodies
from onnxopt.signature import port_of
from onnxopt.splitting.codecs import OLDEST_OPSET, Coding, codec_models, coding, info_of
from onnxopt.splitting.manifest import Codec, Port
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.segments import Piece, cut_into_pieces


@dataclass(frozen=True)
class Border:
    """The place between two segments, before the first or behind the last; see `manifest.Cut`.

    Attributes:
        models: encoder and decoder, where the segments do not do that themselves.
    """

    tensors: tuple[Port, ...]
    codec: Codec
    coding: Coding
    models: tuple[onnx.ModelProto, onnx.ModelProto] | None


@dataclass(frozen=True)
class Parts:
    """A model in parts.

    Attributes:
        plain: the segments without codecs: what is proved to equal the model.
        pieces: the segments as they are written.
        borders: one more than segments.
    """

    subject: Subject
    plain: tuple[Piece, ...]
    pieces: tuple[Piece, ...]
    borders: tuple[Border, ...]


def take_apart(subject: Subject, chain: Sequence[frozenset[int]], codecs: Sequence[Codec]) -> Parts:
    """Cut a model at nested cuts.

    Two halves have their codec inside, if their version of ONNX's operators has what it takes. In a
    longer chain no segment knows whether what it makes will cross right behind it, so encoders and
    decoders are models of their own.

    Args:
        chain: operators on the device for each inner cut, each within the next one.
        codecs: for each cut, the outer ones too: one more than segments.
    """
    plain = cut_into_pieces(subject, chain)
    ports = ports_of(subject)
    taken = frozenset(_names(subject.proto.graph))
    borders = []
    for number, codec in enumerate(codecs):
        crossing = _crossing(plain, number)
        tensors = tuple(port for name, port in ports.items() if name in crossing)
        code = coding(tensors, codec, taken)
        borders.append(Border(tensors, codec if code.encoded else "none", code, None))
    inside = len(plain) == 2 and _can_hold(subject.proto, borders[1].codec)
    pieces = plain
    if inside and borders[1].coding.encoded:
        outputs = {info.name for info in subject.proto.graph.output}
        code = borders[1].coding
        pieces = (_encoding(plain[0], plain[1], code, outputs), _decoding(plain[1], code))
    return Parts(
        subject,
        plain,
        pieces,
        tuple(b if inside and n == 1 else _with_models(b) for n, b in enumerate(borders)),
    )


def ports_of(subject: Subject) -> dict[str, Port]:
    """What may cross, and the inputs of the model that nothing reads, by name."""
    found = {t.name: Port(t.name, t.dtype, t.dims, t.size_bytes) for t in subject.dag.tensors}
    for info in subject.proto.graph.input:
        port = port_of(info)
        if port.name not in found:
            found[port.name] = Port(port.name, port.dtype.name, port.dims, 0)
    return found


def _with_models(border: Border) -> Border:
    return replace(border, models=codec_models(border.coding)) if border.coding.encoded else border


def _crossing(pieces: Sequence[Piece], number: int) -> set[str]:
    """What the segments from this one on read and do not make."""
    needed = {name for piece in pieces[number:] for name in piece.reads}
    before = {name for piece in pieces[:number] for name in piece.makes}
    inputs = needed - {name for piece in pieces for name in piece.makes}
    inputs |= needed & set(pieces[0].reads)
    return inputs | (needed & before)


def _can_hold(proto: onnx.ModelProto, codec: Codec) -> bool:
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    return max(versions, default=0) >= OLDEST_OPSET[codec]


def _encoding(device: Piece, edge: Piece, code: Coding, outputs: set[str]) -> Piece:
    """The device half, giving what crosses instead of what it is made of."""
    proto = onnx.ModelProto()
    proto.CopyFrom(device.proto)
    graph = proto.graph
    encoded = {port.name for port in code.encoded}
    there = {*device.makes, *(info.name for info in graph.input)}
    there |= {name for node in graph.node for name in node.output}
    graph.input.extend(  # inputs of the model that only cross
        info for info in edge.proto.graph.input if info.name in encoded - there
    )
    graph.node.extend(code.encode)
    kept = [info for info in graph.output if info.name not in encoded or info.name in outputs]
    _put(graph.output, [*kept, *map(info_of, code.new)])
    return _piece(proto, device.operators)


def _decoding(edge: Piece, code: Coding) -> Piece:
    """The edge half, taking what crosses."""
    proto = onnx.ModelProto()
    proto.CopyFrom(edge.proto)
    graph = proto.graph
    encoded = {port.name for port in code.encoded}
    kept = [info for info in graph.input if info.name not in encoded]
    _put(graph.input, [*kept, *map(info_of, code.new)])
    _put(graph.node, [*code.decode, *graph.node])
    return _piece(proto, edge.operators)


Message = TypeVar("Message")


def _put(field: Sequence[Message], messages: Sequence[Message]) -> None:
    """Other messages in place of those of a repeated field."""
    copies = [*messages]
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]


def _piece(proto: onnx.ModelProto, operators: frozenset[int]) -> Piece:
    graph = proto.graph
    given = {t.name for t in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    reads = tuple(info.name for info in graph.input if info.name not in given)
    return Piece(proto, reads, tuple(info.name for info in graph.output), operators)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of all values, in bodies too."""
    yield from (info.name for info in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from node.output
        for body in bodies(node):
            yield from _names(body)
