"""Run a split model from the device: its half here and the other one at the edge, or all here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from onnxopt.arrays import fits, quoted
from onnxopt.errors import UsageError
from onnxopt.signature import Array
from onnxopt.splitting.answers import Answer, Chooser, Timings
from onnxopt.splitting.availability import Availability
from onnxopt.splitting.chain import Chain, check_answers, edge_outputs
from onnxopt.splitting.edge import Edge, EdgeFailed
from onnxopt.splitting.edges import connect, prober
from onnxopt.splitting.folder import read_manifest, split_digest
from onnxopt.splitting.manifest import Manifest

Fallback: TypeAlias = Literal["ready", "lazy", "off"]

DEADLINE_S = 30.0


class SplitClient:
    """The device's side of a split model; a context manager. One for each thread.

        with SplitClient("OUT", "http://edge:8000") as client:
            for image in images:
                scores = client.run({"input": image})["scores"]

    Args:
        folder: of the split model; the edge serves a copy of it.
        edge: its URL (http, https or, with tritonclient[grpc], grpc); None: all runs here.
        cut: number of the one to use; None: what the folder says.
        chooser: chooses it for each request instead.
        deadline_s: so long after a request began the edge is not waited for any more.
        connect_s: how long connecting may take.
        fallback: what the device does where the edge fails. `ready`: it finishes, with all segments
            loaded; `lazy`: it loads them when that happens, and needs no memory for them before;
            `off`: the failure is raised.
        threads: inside one operator.
        probes: with a chooser, send 8 kB now and then beside requests that all run here, so that a
            link that is good again is noticed; over HTTP only.
        progress: is told what is being loaded.

    Raises:
        UsageError: the folder is none of a split model, there is no such cut, or the URL is none.
        BadModelError, UnverifiableError: a segment does not load.
    """

    def __init__(
        self,
        folder: str | Path,
        edge: str | Edge | None,
        *,
        cut: int | None = None,
        chooser: Chooser | None = None,
        deadline_s: float = DEADLINE_S,
        connect_s: float = 1.0,
        fallback: Fallback = "ready",
        threads: int = 1,
        probes: bool = True,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        folder = Path(folder)
        self.manifest: Manifest = read_manifest(folder)
        self._last = len(self.manifest.segments)
        self._cut = self._checked_cut(edge, cut)
        if edge is not None:
            for used in (self._cut,) if chooser is None else chooser.allowed:
                check_answers(self.manifest, used)
        self._chooser = chooser
        self._deadline_s, self._fallback = deadline_s, fallback
        digest = split_digest(self.manifest)
        self._prober = None
        if isinstance(edge, str):
            if chooser is not None and probes:
                self._prober = prober(edge, connect_s=connect_s)
            edge = connect(edge, split=digest, connect_s=connect_s)
        self._edge: Edge | None = edge
        self._availability = Availability()
        self.chain = Chain(folder, self.manifest, threads=threads)
        needs_all = chooser is not None or fallback == "ready"
        encoders = [c.encoder for c in self.manifest.cuts] if chooser else []
        encoders.append(self.manifest.cuts[self._cut].encoder)
        self.chain.load(range(self._last if needs_all else self._cut), encoders, progress)

    def __enter__(self) -> SplitClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._edge is not None:
            self._edge.close()
        if self._prober is not None:
            self._prober.close()

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """The outputs of the model; see `request`."""
        return self.request(feeds).outputs

    def request(self, feeds: Mapping[str, Array]) -> Answer:
        """Run the model once.

        Args:
            feeds: an array for each of its inputs.

        Raises:
            UsageError: an array is missing, unknown, or of another type or shape.
            RunError: a segment does not run on them.
            EdgeRefused: the edge serves something else.
            EdgeFailed: the edge fails, and nothing shall be done about it.
        """
        self._check(feeds)
        started = time.perf_counter()
        cut = self._cut if self._chooser is None else self._choose(self._chooser)
        values = self.chain.run(0, cut, feeds)
        asked = edge_outputs(self.manifest, cut)
        if self._edge is None or not asked:
            values = self.chain.run(cut, self._last, values)
            timings = Timings(cut, time.perf_counter() - started)
            self._observe(timings)
        else:
            found, timings = self._remote(self._edge, cut, values, started)
            values = {**values, **found}
        total = time.perf_counter() - started
        outputs = {port.name: values[port.name] for port in self.manifest.outputs}
        return Answer(outputs, replace(timings, total_s=total))

    def _choose(self, chooser: Chooser) -> int:
        """The cut of the next request, by all that is known."""
        if self._prober is not None:
            for size_bytes, seconds in self._prober.results():
                chooser.probed(size_bytes, seconds)
        cut = chooser.choose()
        if self._prober is not None and not edge_outputs(self.manifest, cut):
            self._prober.beside()
        return cut

    def _remote(
        self, edge: Edge, cut: int, values: Mapping[str, Array], started: float
    ) -> tuple[Mapping[str, Array], Timings]:
        """What the edge makes, or the device in its place."""
        if not self._availability.worth_trying() and self._fallback != "off":
            return self._here(cut, values, Timings(cut, 0.0, failure="backing off"), started)
        name = f"{self.manifest.name}.{self.manifest.cuts[cut].name}"
        wire = self.chain.encode(cut, values)
        sent = time.perf_counter()
        device = sent - started
        if device >= self._deadline_s:
            late = "the device alone took longer than the deadline"
            return self._here(cut, values, Timings(cut, device, failure=late), started)
        try:
            reply = edge.infer(
                name,
                wire,
                edge_outputs(self.manifest, cut),
                within_s=self._deadline_s - device,
            )
        except EdgeFailed as error:
            waited = time.perf_counter() - sent
            self._availability.failed(waited)
            if self._chooser is not None:
                self._chooser.failed()
            if self._fallback == "off":
                raise
            timings = Timings(cut, device, wire_s=waited, failure=error.what)
            return self._here(cut, values, timings, started)
        wall = time.perf_counter() - sent
        self._availability.answered()
        edge_s = min(reply.edge_s or 0.0, wall)
        timings = Timings(
            cut,
            device,
            wall - edge_s,
            edge_s,
            sent_bytes=reply.sent_bytes,
            received_bytes=reply.received_bytes,
            receive_s=reply.receive_s,
        )
        self._observe(timings)
        return reply.outputs, timings

    def _here(
        self, cut: int, values: Mapping[str, Array], timings: Timings, started: float
    ) -> tuple[Mapping[str, Array], Timings]:
        """From the tensors at the cut, which are still here, and did not pass a codec."""
        found = self.chain.run(cut, self._last, values)
        device = time.perf_counter() - started - timings.wire_s
        return found, replace(timings, device_s=device)

    def _observe(self, timings: Timings) -> None:
        if self._chooser is not None:
            self._chooser.observe(
                bytes_sent=timings.sent_bytes,
                bytes_received=timings.received_bytes,
                wall_s=timings.wire_s + timings.edge_s,
                device_s=timings.device_s,
                edge_s=timings.edge_s,
                cut=timings.cut,
            )

    def _checked_cut(self, edge: object, cut: int | None) -> int:
        if edge is None:
            return self._last
        chosen = self.manifest.chosen if cut is None else cut
        if not 0 <= chosen <= self._last:
            raise UsageError(f"there is no cut {chosen}", f"there are 0 to {self._last}")
        return chosen

    def _check(self, feeds: Mapping[str, Array]) -> None:
        names = {port.name for port in self.manifest.inputs}
        if names != feeds.keys():
            raise UsageError(f"{quoted(feeds)} is given, but the model takes {quoted(names)}")
        for port in self.manifest.inputs:
            array = feeds[port.name]
            if str(array.dtype) != port.dtype or not fits(array.shape, port.shape):
                raise UsageError(
                    f"'{port.name}' is {array.dtype}{list(array.shape)}, but the model takes "
                    f"{port.dtype}{list(port.shape or ())}"
                )
