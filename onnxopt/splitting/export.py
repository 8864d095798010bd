"""Write a model in parts, with the manifest: proved first, then written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxopt.errors import CheckError
from onnxopt.files import write_atomically
from onnxopt.model import ExternalData, save
from onnxopt.signature import model_inputs, model_outputs
from onnxopt.splitting.coded import coded_cuts
from onnxopt.splitting.comparing import Judge
from onnxopt.splitting.describing import Files, Source, describe
from onnxopt.splitting.folder import file_digest, write_manifest
from onnxopt.splitting.halves import Parts, take_apart
from onnxopt.splitting.join import join
from onnxopt.splitting.manifest import Manifest
from onnxopt.splitting.nearby import nearby
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.proof import Proof
from onnxopt.splitting.serving_files import Server, write_serving_files
from onnxopt.splitting.whole_folder import whole_folder
from onnxopt.splitting.wishes import Wish

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was proved."""

    manifest: Manifest
    proof: Proof | None
    remarks: tuple[str, ...]


def export(
    subject: Subject,
    wish: Wish,
    source: Source,
    folder: Path,
    *,
    samples: Path | None = None,
    verify: bool = True,
    tolerance: float | None = None,
    external_data: ExternalData = "auto",
    serve: Sequence[Server] = (),
    progress: Progress | None = None,
) -> Exported:
    """Cut the model, prove that its parts equal it, and write all of it or nothing.

    Args:
        folder: takes the files; one that a split wrote before is replaced as a whole.
        samples: of a user, to prove and to measure codecs on beside drawn inputs.
        verify: prove; else the manifest says that it was not done.
        tolerance: error that is accepted, which the manifest keeps; see `Proof`.

    Raises:
        CheckError: the parts do not give what the model gives; nothing was written.
        UnverifiableError: ONNX Runtime does not run the model here.
        UsageError: the folder cannot be written, or holds something else.
    """
    parts = take_apart(subject, wish.chain, wish.codecs)
    proof = None
    if verify:
        judge = Judge(subject.proto, samples=samples, progress=progress)
        proof = prove(parts, judge, tolerance)
        if not proof.passed:
            raise CheckError(
                proof.reason, f"nothing was written; {_fix(proof, wish, parts, judge)}"
            )
    with whole_folder(folder) as temporary:
        files = _write_models(parts, temporary, external_data, source.was_external)
        manifest = describe(parts, wish, source, folder, files, proof, tolerance)
        write_manifest(manifest, temporary)
        if serve:
            write_serving_files(
                parts,
                manifest.name,
                temporary,
                serve,
                external_data=external_data,
                was_external=source.was_external,
            )
    return Exported(manifest, proof, wish.remarks)


def prove(parts: Parts, judge: Judge, tolerance: float | None = None) -> Proof:
    """Compare parts of a model with the model, whose judge this is."""
    plain = [piece.proto for piece in parts.plain]
    return judge.judge(
        plain, coded=coded_cuts(parts), joined=lambda: joined(parts), tolerance=tolerance
    )


def _fix(proof: Proof, wish: Wish, parts: Parts, judge: Judge) -> str:
    """What to do about a proof that failed: of one cut, whether another one near it passes."""
    if proof.needed is not None and len(wish.chain) == 1:
        names = nearby(parts.subject, wish.chain[0], judge, proof.tolerance)
        if names:
            return f"--at {','.join(names)} passes, or accept it: {proof.acceptance}"
    return proof.fix


def joined(parts: Parts) -> onnx.ModelProto:
    """The model that the segments come to."""
    proto = parts.subject.proto
    return join(
        [piece.proto for piece in parts.plain],
        [port.name for port in model_inputs(proto)],
        [port.name for port in model_outputs(proto)],
    )


def _write_models(
    parts: Parts, folder: Path, external_data: ExternalData, was_external: bool
) -> Files:
    count = len(parts.pieces)
    names = ["device.onnx", "edge.onnx"]
    if count != 2:
        names = [f"segment{number:02d}.onnx" for number in range(count)]
    segments = []
    for name, piece in zip(names, parts.pieces, strict=True):
        written = save(
            piece.proto, folder / name, external_data=external_data, was_external=was_external
        )
        segments.append((name, {file.name: file_digest(file) for file in sorted(written)}))
    codecs: list[tuple[str | None, str | None, dict[str, str]]] = []
    for number, border in enumerate(parts.borders):
        if border.models is None:
            codecs.append((None, None, {}))
            continue
        pair = (f"cut{number:02d}.encoder.onnx", f"cut{number:02d}.decoder.onnx")
        for name, model in zip(pair, border.models, strict=True):
            write_atomically(folder / name, [model.SerializeToString(deterministic=True)])
        codecs.append((*pair, {name: file_digest(folder / name) for name in pair}))
    return Files(tuple(segments), tuple(codecs))
