"""What the manifest says of a model in parts: its segments, its cuts, and where it came from."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxopt.external import is_external, tensors
from onnxopt.signature import model_inputs, port_of
from onnxopt.splitting.halves import Border, Parts, ports_of
from onnxopt.splitting.manifest import Cut, Manifest, Port, Segment
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.proof import Proof
from onnxopt.splitting.segments import Piece
from onnxopt.splitting.sides import side_of
from onnxopt.splitting.wishes import Wish


@dataclass(frozen=True)
class Source:
    """The file that is split.

    Attributes:
        digest: SHA-256 of the file, and of its external data if it has any.
        was_external: it has external data, and so shall the segments.
    """

    path: Path
    digest: str
    was_external: bool


@dataclass(frozen=True)
class Files:
    """Names of files with their SHA-256, of each segment; encoder, decoder of each cut likewise."""

    segments: tuple[tuple[str, dict[str, str]], ...]
    codecs: tuple[tuple[str | None, str | None, dict[str, str]], ...]


def read_source(path: Path, proto: onnx.ModelProto) -> Source:
    """What a manifest says of a model file.

    Args:
        proto: the model, loaded.
    """
    raw = path.read_bytes()
    digest = hashlib.sha256(raw)
    outside = False
    if path.suffix != ".onnxtxt":
        bare = onnx.ModelProto()
        bare.ParseFromString(raw)
        for there, loaded in zip(tensors(bare), tensors(proto), strict=True):
            if is_external(there):
                outside = True
                digest.update(loaded.raw_data)
    return Source(path, digest.hexdigest(), outside)


def describe(
    parts: Parts,
    wish: Wish,
    source: Source,
    folder: Path,
    files: Files,
    proof: Proof | None,
    tolerance: float | None = None,
) -> Manifest:
    subject = parts.subject
    ports = ports_of(subject)
    notes: tuple[str, ...] = ("the parts were not compared with the model: that was not wanted",)
    if proof is not None:
        notes = proof.notes
    if subject.random:
        listed = ", ".join(subject.random)
        notes += (f"what follows from random operators cannot be compared: {listed}",)
    errors = {} if proof is None else proof.errors or {}
    return Manifest(
        schema="onnxopt-split/1",
        name=server_name(source.path),
        model=source.digest,
        inputs=tuple(ports[port.name] for port in model_inputs(subject.proto)),
        outputs=tuple(_output(subject, ports, info) for info in subject.proto.graph.output),
        segments=tuple(
            _segment(subject, parts.pieces[:number], piece, *written)
            for number, (piece, written) in enumerate(
                zip(parts.pieces, files.segments, strict=True)
            )
        ),
        cuts=tuple(
            _cut(number, border, pair, errors.get(number))
            for number, (border, pair) in enumerate(zip(parts.borders, files.codecs, strict=True))
        ),
        chosen=wish.chosen,
        planned=wish.planned,
        verified=notes,
        tolerance=tolerance,
        source=Path(os.path.relpath(source.path.resolve(), folder.resolve())).as_posix(),
    )


def server_name(path: Path) -> str:
    """What servers call the model: letters, digits, '_', '-' and '.'."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem)
    return name if name[:1].isalnum() else f"model{name}"


def _output(subject: Subject, ports: dict[str, Port], info: onnx.ValueInfoProto) -> Port:
    if info.name in ports:
        return ports[info.name]
    port = port_of(info)  # it depends on no input
    return Port(port.name, port.dtype.name, port.dims, 0)


def _segment(
    subject: Subject, before: Sequence[Piece], piece: Piece, file: str, files: dict[str, str]
) -> Segment:
    done = {operator for earlier in before for operator in earlier.operators}
    side = side_of(subject.dag, piece.operators, done)
    return Segment(
        file, files, piece.reads, piece.makes, side.macs, side.weight_bytes, side.peak_bytes
    )


def _cut(
    number: int,
    border: Border,
    files: tuple[str | None, str | None, dict[str, str]],
    error: float | None,
) -> Cut:
    return Cut(
        f"cut{number:02d}",
        border.tensors,
        border.codec,
        border.coding.wire,
        *files,
        error,
    )
