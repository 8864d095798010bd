"""Verify a folder that a split wrote: its files, and that the halves equal the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxopt.errors import BadModelError, OnnxoptError, UsageError
from onnxopt.model import load
from onnxopt.splitting.coded import Coded
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.folder import file_digest, read_manifest
from onnxopt.splitting.join import join, without_codecs
from onnxopt.splitting.manifest import Manifest
from onnxopt.splitting.proof import Judge, Proof

Progress = Callable[[str, float], None]

MORE_ERROR = 4.0
"""A codec may cause so many times the error that was measured when the model was split: other
machines round differently, and samples may be others."""


@dataclass(frozen=True)
class Verified:
    """What became of verifying a folder.

    Attributes:
        against: what the halves were compared with, for a person.
        changed: files that are not what they were when the model was split.
        proof: None if the halves cannot be put together.
        reason: why the folder failed; empty if it did not.
    """

    manifest: Manifest
    against: str
    changed: tuple[str, ...]
    proof: Proof | None
    reason: str

    @property
    def passed(self) -> bool:
        return not self.reason


def verify_folder(
    folder: Path,
    *,
    model: Path | None = None,
    samples: Path | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Compare the halves with the whole model.

    Args:
        model: the whole. Without it the file that was split, if it is still where it was; else the
            model that the halves come to when they are joined.
        samples: of a user, beside drawn inputs.

    Raises:
        UsageError: no such folder, or `model` is not the one that was split.
        BadModelError, UnverifiableError: ONNX Runtime does not run the whole model.
    """
    manifest = read_manifest(folder)
    changed = tuple(_changed(folder, manifest))
    try:
        segments = [load(folder / segment.file) for segment in manifest.segments]
        plain = without_codecs(manifest, segments)
        together = joined(manifest, plain)
        coded = _coded(folder, manifest, segments, plain)
    except OnnxoptError as error:
        return Verified(manifest, "", changed, None, error.what)
    whole, against = _whole(folder, manifest, model)
    judge = Judge(whole or together, samples=samples, progress=progress)
    proof = judge.judge(plain, coded=coded, joined=lambda: together)
    return Verified(manifest, against, changed, proof, _reason(manifest, changed, proof))


def joined(manifest: Manifest, plain: tuple[onnx.ModelProto, ...]) -> onnx.ModelProto:
    """The model that segments without codecs come to."""
    inputs, outputs = ([p.name for p in ports] for ports in (manifest.inputs, manifest.outputs))
    return join(plain, inputs, outputs)


def join_folder(folder: Path) -> onnx.ModelProto:
    """The whole model again, without codecs.

    Raises:
        UsageError: no such folder.
        BadModelError: its segments are damaged, or not of one model.
    """
    manifest = read_manifest(folder)
    segments = [load(folder / segment.file) for segment in manifest.segments]
    return joined(manifest, without_codecs(manifest, segments))


def keeps_data_outside(folder: Path) -> bool:
    """Whether a segment in the folder has its weights in a second file."""
    return any(len(segment.files) > 1 for segment in read_manifest(folder).segments)


def _changed(folder: Path, manifest: Manifest) -> list[str]:
    found = []
    for segment in manifest.segments:
        for name, digest in segment.files.items():
            try:
                same = file_digest(folder / name) == digest
            except OSError:
                same = False
            if not same:
                found.append(name)
    return found


def _whole(
    folder: Path, manifest: Manifest, model: Path | None
) -> tuple[onnx.ModelProto | None, str]:
    """The model that was split, and what to call it; None where it is not there."""
    if model is not None:
        proto = load(model)
        if read_source(model, proto).digest == manifest.model:
            return proto, f"'{model}'"
        raise UsageError(
            f"'{model}' is not the model that was split: its hash is another",
            "give the file that `onnxopt split export` read",
        )
    path = folder / manifest.source
    try:
        proto = load(path)
        if read_source(path, proto).digest == manifest.model:
            return proto, f"'{path.resolve()}'"
    except BadModelError:  # it is gone, or its weights are
        pass
    return None, "the model that the halves come to when they are joined"


def _coded(
    folder: Path,
    manifest: Manifest,
    segments: list[onnx.ModelProto],
    plain: tuple[onnx.ModelProto, ...],
) -> list[Coded]:
    found = []
    for number, cut in enumerate(manifest.cuts):
        if cut.encoder is not None and cut.decoder is not None:
            models = (load(folder / cut.encoder), load(folder / cut.decoder))
            found.append(Coded(number, plain[:number], plain[number:], models))
        elif {port.name for port in cut.wire} != {port.name for port in cut.tensors}:
            found.append(Coded(number, segments[:number], segments[number:], None))
    return found


def _reason(manifest: Manifest, changed: tuple[str, ...], proof: Proof) -> str:
    if not proof.exact.passed:
        return f"the halves do not equal the whole: {proof.first or proof.exact.reason}"
    if changed:
        return f"'{changed[0]}' is not the file that the split wrote"
    if not proof.passed:
        return (
            f"with ONNX Runtime's optimizations on the halves differ by {proof.optimized:.2g} of "
            "the size of an output, more than rounding explains"
        )
    for number, error in (proof.errors or {}).items():
        known = manifest.cuts[number].error
        if known is not None and not error <= MORE_ERROR * known + 1e-6:
            return (
                f"the codec of {manifest.cuts[number].name} causes an error of {error:.2g}, where "
                f"{known:.2g} was measured when the model was split"
            )
    return ""
