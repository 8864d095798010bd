"""What a server of edge halves answers: health, metadata and inference, one model for each cut."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnxopt
from onnxopt.errors import OnnxoptError, UsageError
from onnxopt.splitting.chain import Chain, can_answer, check_answers, edge_outputs
from onnxopt.splitting.folder import read_manifest, split_digest
from onnxopt.splitting.http_head import Head
from onnxopt.splitting.limits import DEFAULT, Limits
from onnxopt.splitting.manifest import Port
from onnxopt.splitting.protocol import (
    Message,
    decode_request,
    encode_response,
    json_message,
    tensor_metadata,
)
from onnxopt.splitting.tensors import ProtocolError

_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready|stats|config))?")


@dataclass(frozen=True)
class Half:
    """The edge half of one cut, as a model of the protocol."""

    cut: int
    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def wire_bytes(self) -> int | None:
        """Of its inputs; None if a dimension is open."""
        dims = [dim for port in self.inputs for dim in (port.shape or (None,))]
        if all(isinstance(dim, int) for dim in dims):
            return sum(port.size_bytes for port in self.inputs)
        return None


@dataclass(frozen=True)
class Answer:
    """What goes back, and what the log is told."""

    message: Message
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    compute_s: float = 0.0


class Endpoint:
    """The edge halves of a split model, loaded and ready.

    Args:
        folder: of the split model.
        cuts: numbers of those to serve; None: all that leave the edge something to do, whose
            outputs can be sent back.
        threads: inside one operator.
        progress: is told what is being loaded.

    Raises:
        UsageError: the folder is none of a split model, or has no such cut.
        BadModelError, UnverifiableError: a segment does not load.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cuts: Iterable[int] | None = None,
        threads: int = 1,
        limits: Limits = DEFAULT,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        manifest = read_manifest(folder)
        count = len(manifest.segments)
        possible = [cut for cut in range(count) if can_answer(manifest, cut)]
        chosen = (possible or range(count)) if cuts is None else sorted(set(cuts))
        for cut in chosen:
            if not 0 <= cut < count:
                raise UsageError(
                    f"the edge has nothing to do at cut {cut}", f"cuts: 0 to {count - 1}"
                )
            check_answers(manifest, cut)
        self.limits = limits
        self.split = split_digest(manifest)
        self.halves = {
            half.name: half
            for half in (
                Half(
                    cut,
                    f"{manifest.name}.{manifest.cuts[cut].name}",
                    manifest.cuts[cut].wire,
                    edge_outputs(manifest, cut),
                )
                for cut in chosen
            )
        }
        self._chain = Chain(folder, manifest, threads=threads)
        decoders = [manifest.cuts[cut].decoder for cut in chosen]
        self._chain.load(range(min(chosen), count), decoders, progress)

    def half_for(self, head: Head) -> Half:
        """The model that a request for inference is for, before its body is read.

        Raises:
            ProtocolError: it is for none, or its body is larger than any that makes sense.
        """
        half, what = self._model(head.path)
        if what != "infer":
            raise ProtocolError(f"there is nothing to post to at {head.path}", status=405)
        limits, length = self.limits, head.json_length
        if (length if length is not None else head.length) > limits.json_bytes:
            raise ProtocolError(
                f"the JSON of the request is longer than {limits.json_bytes} bytes",
                "send tensors as binary data",
                status=413,
            )
        largest = limits.body_bytes
        if half.wire_bytes is not None:
            largest = min(largest, half.wire_bytes + limits.json_bytes)
        if head.length > largest:
            raise ProtocolError(f"the body is larger than {largest} bytes", status=413)
        return half

    def infer(self, half: Half, head: Head, body: memoryview) -> Answer:
        """Run an edge half. Slow: not for the thread that serves.

        Raises:
            ProtocolError: the request is not what the protocol or the model says, or was sent by
                the other half of another model.
        """
        request = decode_request(body, head.json_length, half.inputs, half.outputs)
        if request.split not in ("", self.split):
            raise ProtocolError(
                f"'{half.name}' here is the half of another model, or of another split of it",
                "give both sides the same folder",
                status=409,
            )
        started = time.perf_counter()
        try:
            outputs = self._chain.edge(half.cut, request.inputs)
        except OnnxoptError as error:
            raise ProtocolError(f"the model does not run on these inputs: {error.what}") from None
        computed = time.perf_counter() - started
        message = encode_response(half.name, outputs, request.outputs, request.id)
        return Answer(message, compute_s=computed)

    def look_up(self, head: Head, *, ready: bool) -> Answer:
        """Answer what is not inference.

        Args:
            ready: the server takes requests.

        Raises:
            ProtocolError: there is no such thing.
        """
        if head.method not in ("GET", "HEAD"):
            raise ProtocolError(f"{head.method} is not for {head.path}", status=405)
        path = head.path.rstrip("/")
        if path == "/v2/health/live":
            return Answer(json_message({"live": True}))
        if path == "/v2/health/ready":
            return Answer(json_message({"ready": ready}), 200 if ready else 503)
        if path == "/v2":
            named = {"name": "onnxopt split serve", "version": onnxopt.__version__}
            extensions = ["binary_tensor_data"]
            return Answer(
                json_message({**named, "extensions": extensions, "models": [*self.halves]})
            )
        half, what = self._model(path)
        if what == "ready":
            content: dict[str, object] = {"name": half.name, "ready": ready}
            return Answer(json_message(content), 200 if ready else 503)
        if what:
            raise ProtocolError(f"there is nothing at {head.path}", status=404)
        return Answer(json_message(self._metadata(half)))

    def _metadata(self, half: Half) -> dict[str, object]:
        return {
            "name": half.name,
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [tensor_metadata(port) for port in half.inputs],
            "outputs": [tensor_metadata(port) for port in half.outputs],
        }

    def _model(self, path: str) -> tuple[Half, str]:
        found = _MODEL.fullmatch(path)
        half = self.halves.get(found[1]) if found else None
        if found is None or half is None or found[2] not in (None, "1"):
            raise ProtocolError(
                f"there is no model at {path}", f"there are {', '.join(self.halves)}", status=404
            )
        return half, found[3] or ""
