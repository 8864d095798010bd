"""Verify a folder that a split wrote: its files, and that the halves equal the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import onnx

from onnxopt.errors import BadModelError, OnnxoptError, UsageError
from onnxopt.model import load
from onnxopt.splitting.codecs import codec_models, coding
from onnxopt.splitting.coded import Coded, are_alike
from onnxopt.splitting.comparing import Judge
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.folder import cut_number, file_digest, read_manifest
from onnxopt.splitting.join import join, without_codecs
from onnxopt.splitting.manifest import Manifest
from onnxopt.splitting.proof import Proof

Progress = Callable[[str, float], None]

MORE_ERROR = 2.0
"""On samples of the user a codec may cause so many times the error that was measured when the model
was split: the samples may be others. On drawn inputs its error is told and not judged: it was
measured on what matters, and these are neither."""


@dataclass(frozen=True)
class Verified:
    """What became of verifying a folder.

    Attributes:
        against: what the halves were compared with, for a person.
        changed: files that are not what they were when the model was split.
        proof: None if the halves cannot be put together.
        unlike: cuts whose encoder and decoder do not do what their codec does, bit for bit.
        reason: why the folder failed; empty if it did not.
    """

    manifest: Manifest
    against: str
    changed: tuple[str, ...]
    proof: Proof | None
    reason: str
    unlike: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reason


def verify_folder(
    folder: Path,
    *,
    model: Path | None = None,
    samples: Path | None = None,
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Compare the halves with the whole model, and with it with the codec put between, bit for bit.

    What a codec changes is measured. Only on samples of the user more than was measured when the
    model was split is a failure.

    Args:
        model: the whole. Without it the file that was split, if it is still where it was; else the
            model that the halves come to when they are joined.
        samples: of a user, beside drawn inputs.
        tolerance: error that is accepted; without it what the manifest says. See `Proof`.

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
    accepted = manifest.tolerance if tolerance is None else tolerance
    proof = judge.judge(plain, coded=coded, joined=lambda: together, tolerance=accepted)
    unlike = tuple(_unlike(manifest, plain, coded, judge)) if proof.passed else ()
    reason = _reason(manifest, changed, proof, unlike)
    if not reason and samples is not None:
        reason = _too_much(manifest, proof)
    return Verified(manifest, against, changed, proof, reason, unlike)


def _unlike(
    manifest: Manifest,
    plain: tuple[onnx.ModelProto, ...],
    coded: list[Coded],
    judge: Judge,
) -> Iterator[str]:
    """Cuts that do not cross as their codec says: halves without it, and it between, differ."""
    taken = {port.name for port in manifest.inputs}
    taken |= {name for segment in manifest.segments for name in segment.makes}
    for item in coded:
        cut = manifest.cuts[item.number]
        models = codec_models(coding(cut.tensors, cut.codec, taken))
        between = Coded(item.number, plain[: item.number], plain[item.number :], models)
        if not are_alike(item, between, judge.some_feeds(), judge.comparable):
            yield cut.name


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
    parts = [part.files for part in manifest.segments] + [cut.files for cut in manifest.cuts]
    for name, digest in chain.from_iterable(files.items() for files in parts):
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


def _reason(
    manifest: Manifest, changed: tuple[str, ...], proof: Proof, unlike: tuple[str, ...]
) -> str:
    if not proof.passed:
        return f"{proof.reason} ({proof.fix})" if proof.needed is not None else proof.reason
    if unlike:
        codec = manifest.cuts[cut_number(manifest, unlike[0])].codec
        return f"what crosses at {unlike[0]} is not what {codec} makes of it, bit for bit"
    if changed:
        return f"'{changed[0]}' is not the file that the split wrote"
    return ""


def _too_much(manifest: Manifest, proof: Proof) -> str:
    """Why the errors of codecs on samples of the user are too large; empty if they are not."""
    for number, error in (proof.errors or {}).items():
        known = manifest.cuts[number].error
        if known is not None and not error <= MORE_ERROR * known + 1e-6:
            return (
                f"the codec of {manifest.cuts[number].name} causes an error of {error:.2g} on your "
                f"samples, where {known:.2g} was measured when the model was split"
            )
    return ""
