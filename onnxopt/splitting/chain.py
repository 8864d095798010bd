"""The segments of a split model, loaded once: run any of them in a row, with the codecs of cuts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx

from onnxopt.errors import BadModelError, UsageError, told
from onnxopt.runtime import Session
from onnxopt.signature import Array
from onnxopt.splitting.folder import check_files
from onnxopt.splitting.manifest import Manifest, Port
from onnxopt.splitting.tensors import can_cross

Values = Mapping[str, Array]


def edge_outputs(manifest: Manifest, cut: int) -> tuple[Port, ...]:
    """Outputs of the model that the edge makes at this cut; the others the device has."""
    made = {name for segment in manifest.segments[cut:] for name in segment.makes}
    return tuple(port for port in manifest.outputs if port.name in made)


def can_answer(manifest: Manifest, cut: int) -> bool:
    """Whether the protocol has words for all that the edge would have to send back."""
    return all(can_cross(port.dtype) for port in edge_outputs(manifest, cut))


def check_answers(manifest: Manifest, cut: int) -> None:
    """Raise UsageError if the edge would have to send back what the protocol cannot say."""
    for port in edge_outputs(manifest, cut):
        if not can_cross(port.dtype):
            raise UsageError(
                f"at {manifest.cuts[cut].name} the edge makes the output '{port.name}', which is no"
                " tensor of numbers and cannot be sent back",
                "take what makes it out of the model, or run all on the device (--local)",
            )


class Chain:
    """Sessions of segments and codecs, each loaded when it is first needed or asked for.

    Which cut is in use is nothing that it knows, so changing it costs nothing. It may be used from
    several threads.

    Args:
        folder: of the split model.
        manifest: what its `split.json` says.
        threads: inside one operator.
        optimized: let ONNX Runtime rewrite the segments.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, *, threads: int = 1, optimized: bool = True
    ) -> None:
        self.manifest = manifest
        self._folder = folder
        self._threads = threads
        self._optimized = optimized
        self._sessions: dict[str, Session] = {}
        self._loading = threading.Lock()
        self._kept = _kept(manifest)
        self._hashes: dict[str, Mapping[str, str]] = {
            file: {file: digest} for cut in manifest.cuts for file, digest in cut.files.items()
        }

    @property
    def loaded(self) -> frozenset[str]:
        """Files that are."""
        return frozenset(self._sessions)

    def load(
        self,
        segments: Iterable[int],
        codecs: Iterable[str | None] = (),
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        """Make sessions of these, where there are none yet.

        Args:
            segments: their numbers.
            codecs: files of encoders and decoders; None is left out.

        Raises:
            UsageError: a file is missing, or is not what it was when the model was split.
            BadModelError, UnverifiableError: ONNX Runtime does not load it.
        """
        parts = [self.manifest.segments[number] for number in segments]
        files = [(s.file, s.files) for s in parts] + [(c, self._hashes[c]) for c in codecs if c]
        for number, (file, hashes) in enumerate(files):
            if progress is not None:
                progress(f"loading {file}", number / len(files))
            self._session(file, hashes)

    def run(self, first: int, end: int, values: Values) -> dict[str, Array]:
        """Run segments `first` to `end` - 1.

        Args:
            values: by name, all that they read and do not make.

        Returns:
            of these values and of what the segments make, all that is an output of the model or
            read by a later segment.

        Raises:
            RunError: a segment does not run on these values.
        """
        there = dict(values)
        for number in range(first, end):
            segment = self.manifest.segments[number]
            session = self._session(segment.file, segment.files)
            there.update(session.run({name: there[name] for name in segment.reads}))
            kept = self._kept[number + 1]
            there = {name: value for name, value in there.items() if name in kept}
        return there

    def encode(self, cut: int, values: Values) -> dict[str, Array]:
        """What crosses at a cut, of the tensors there."""
        described = self.manifest.cuts[cut]
        coded = self._apply(described.encoder, values)
        return {port.name: coded[port.name] for port in described.wire}

    def decode(self, cut: int, wire: Values) -> dict[str, Array]:
        """The tensors at a cut, of what crossed."""
        described = self.manifest.cuts[cut]
        if described.decoder is None:
            return dict(wire)
        decoded = self._apply(described.decoder, wire)
        return {port.name: decoded[port.name] for port in described.tensors}

    def edge(self, cut: int, wire: Values) -> dict[str, Array]:
        """The outputs that the edge half of a cut makes of what crossed."""
        values = self.run(cut, len(self.manifest.segments), self.decode(cut, wire))
        return {port.name: values[port.name] for port in edge_outputs(self.manifest, cut)}

    def _apply(self, codec: str | None, values: Values) -> dict[str, Array]:
        """The values, and what a codec makes of some of them."""
        if codec is None:
            return dict(values)
        session = self._session(codec, self._hashes[codec])
        return {**values, **session.run({port.name: values[port.name] for port in session.inputs})}

    def _session(self, file: str, hashes: Mapping[str, str]) -> Session:
        if (there := self._sessions.get(file)) is not None:
            return there
        with self._loading:
            if file not in self._sessions:
                check_files(self._folder, hashes.items())
                self._sessions[file] = self._opened(self._folder / file)
            return self._sessions[file]

    def _opened(self, file: Path) -> Session:
        try:
            proto = onnx.load(str(file), load_external_data=False)
        except Exception as error:
            raise BadModelError(f"cannot read '{file}': {told(error)}") from None
        return Session(proto, optimized=self._optimized, threads=self._threads, file=file)


def _kept(manifest: Manifest) -> list[frozenset[str]]:
    """Names that still matter once the first n segments ran, for each n."""
    needed = {port.name for port in manifest.outputs}
    kept = [frozenset(needed)]
    for segment in reversed(manifest.segments):
        needed |= set(segment.reads)
        kept.append(frozenset(needed))
    return kept[::-1]
