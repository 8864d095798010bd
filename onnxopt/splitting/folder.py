"""The folder of a split model: its manifest read with suspicion, its files as they were written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from onnxopt.errors import UsageError
from onnxopt.profiling.files import read_json, write_json
from onnxopt.splitting.manifest import SCHEMA, Cut, Manifest, Segment

MANIFEST = "split.json"
FIX = "make the folder with `onnxopt split export`"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FILE = re.compile(r"[^/\\:\0]+")


def read_manifest(folder: Path) -> Manifest:
    """What `split.json` says, where it makes sense as a whole.

    Raises:
        UsageError: there is no such folder, it is none of a split model, or what its manifest says
            contradicts itself, or names files outside of the folder.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder '{folder}'", FIX)
    file = folder / MANIFEST
    if not file.is_file():
        raise UsageError(f"'{folder}' is no folder of a split model: it has no {MANIFEST}", FIX)
    manifest: Manifest = read_json(Manifest, file, SCHEMA, "the manifest of a split model", FIX)
    for wrong in _contradictions(manifest):
        raise UsageError(f"'{file}' contradicts itself: {wrong}", FIX)
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Put `split.json` there.

    Raises:
        OnnxoptError: it cannot be written.
    """
    assert not [*_contradictions(manifest)], [*_contradictions(manifest)]
    write_json(manifest, folder / MANIFEST)


def check_files(folder: Path, files: Iterable[tuple[str, str]]) -> None:
    """Whether files are there, and hold what they held when they were written.

    Args:
        files: their names and SHA-256.

    Raises:
        UsageError: one is missing, or has another content.
    """
    for name, expected in files:
        try:
            found = file_digest(folder / name)
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError(f"cannot read '{folder / name}': {why}", FIX) from None
        if found != expected:
            raise UsageError(f"'{folder / name}' is not what {MANIFEST} was written for", FIX)


def file_digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def split_digest(manifest: Manifest) -> str:
    """What both sides must have in common, as 32 hex digits: the segments and what crosses.

    Which cut is chosen, and how it was planned, is no part of it.
    """
    total = hashlib.sha256(manifest.model.encode())
    for segment in manifest.segments:
        total.update(repr((segment.file, sorted(segment.files.items()))).encode())
    for cut in manifest.cuts:
        wire = [(port.name, port.dtype) for port in cut.wire]
        total.update(repr((cut.name, cut.codec, wire, sorted(cut.files.items()))).encode())
    return total.hexdigest()[:32]


def _contradictions(manifest: Manifest) -> Iterator[str]:
    if not _NAME.fullmatch(manifest.name):
        yield f"'{manifest.name}' is no name for a model on a server"
    if len(manifest.cuts) != len(manifest.segments) + 1:
        yield f"{len(manifest.segments)} segments have not {len(manifest.cuts)} cuts"
    if not manifest.segments:
        yield "it has no segments"
    if not 0 <= manifest.chosen < len(manifest.cuts):
        yield f"there is no cut {manifest.chosen} that could be chosen"
    if manifest.tolerance is not None and not manifest.tolerance >= 0:
        yield f"{manifest.tolerance} is no tolerance"
    for number, cut in enumerate(manifest.cuts):
        if cut.name != f"cut{number:02d}":
            yield f"cut {number} is called '{cut.name}'"
    for name in sorted(_file_names(manifest)):
        if not _FILE.fullmatch(name) or name in (".", ".."):
            yield f"'{name}' is no file of its folder"
    yield from _lost(manifest)


def _file_names(manifest: Manifest) -> set[str]:
    names = set(chain.from_iterable((s.file, *s.files) for s in manifest.segments))
    return names.union(*((*_codec_files(cut), *cut.files) for cut in manifest.cuts))


def _codec_files(cut: Cut) -> tuple[str, ...]:
    return tuple(file for file in (cut.encoder, cut.decoder) if file is not None)


def _lost(manifest: Manifest) -> Iterator[str]:
    """What is read but not there: within the whole model, and beyond each cut."""
    there = {port.name for port in manifest.inputs}
    for segment in manifest.segments:
        if segment.file not in segment.files:
            yield f"'{segment.file}' is without its hash"
        yield from (f"nothing makes '{name}'" for name in segment.reads if name not in there)
        there.update(segment.makes)
    yield from (
        f"nothing makes the output '{p.name}'" for p in manifest.outputs if p.name not in there
    )
    for number, cut in enumerate(manifest.cuts):
        yield from _lost_at(cut, manifest.segments[number:])


def _lost_at(cut: Cut, edge: tuple[Segment, ...]) -> Iterator[str]:
    if (cut.encoder is None) != (cut.decoder is None):
        yield f"{cut.name} has only half of a codec"
    yield from (
        f"'{file}' is without its hash" for file in _codec_files(cut) if file not in cut.files
    )
    there = {port.name for port in (cut.wire if cut.encoder is None else cut.tensors)}
    for segment in edge:
        yield from (f"'{n}' does not cross at {cut.name}" for n in segment.reads if n not in there)
        there.update(segment.makes)


def cut_number(manifest: Manifest, name: str) -> int:
    """The number of the cut that is called so.

    Raises:
        UsageError: there is none.
    """
    names = [cut.name for cut in manifest.cuts]
    if name not in names:
        raise UsageError(f"there is no cut '{name}'", f"there are {', '.join(names)}")
    return names.index(name)
