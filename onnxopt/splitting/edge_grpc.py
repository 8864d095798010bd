"""An edge that speaks the Open Inference Protocol v2 by gRPC; needs `tritonclient[grpc]`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.signature import Array
from onnxopt.splitting.edge import EdgeFailed, EdgeRefused, Reply
from onnxopt.splitting.manifest import Port
from onnxopt.splitting.protocol import SPLIT
from onnxopt.splitting.tensors import ProtocolError, check_port, type_name

_PERMANENT = ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "FAILED_PRECONDITION")


class GrpcEdge:
    """One channel, which connects by itself.

    Args:
        url: grpc://HOST:PORT.
        split: see `HttpEdge`.
        connect_s: not used: the channel connects within the time of a request.
    """

    def __init__(self, url: str, *, split: str = "", connect_s: float = 1.0) -> None:
        try:
            import tritonclient.grpc as client
        except ImportError:
            raise UsageError(
                f"'{url}' needs the package tritonclient", "pip install 'onnxopt[grpc]'"
            ) from None
        address = url.removeprefix("grpc://").rstrip("/")
        if ":" not in address:
            raise UsageError(f"'{url}' is no URL of an edge", "write grpc://HOST:PORT")
        self._grpc = client
        self._url = address
        self._split = split
        self._client: Any = None
        self._count = 0

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[Port],
        *,
        within_s: float,
    ) -> Reply:
        """See `Edge.infer`."""
        if within_s <= 0:
            raise EdgeFailed("there is no time left to ask the edge")
        if self._client is None:
            self._client = self._grpc.InferenceServerClient(self._url)
        self._count += 1
        sent = [self._input(name, array) for name, array in inputs.items()]
        wanted = [self._grpc.InferRequestedOutput(port.name) for port in outputs]
        started = time.monotonic()
        try:
            result = self._client.infer(
                model,
                sent,
                outputs=wanted,
                request_id=str(self._count),
                client_timeout=within_s,
                parameters={SPLIT: self._split} if self._split else None,
            )
            found = {port.name: _checked(result, port) for port in outputs}
        except self._grpc.InferenceServerException as error:
            raise _failure(error, time.monotonic() - started) from None
        except ProtocolError as error:
            raise EdgeFailed(f"the edge answers nonsense: {error.what}") from None
        sizes = [sum(array.nbytes for array in values.values()) for values in (inputs, found)]
        return Reply(found, None, None, sizes[0], sizes[1])

    def close(self) -> None:
        """See `Edge.close`."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _input(self, name: str, array: Array) -> Any:
        entry = self._grpc.InferInput(name, list(array.shape), type_name(array.dtype))
        entry.set_data_from_numpy(np.asarray(array, order="C"))
        return entry


def _checked(result: Any, port: Port) -> Array:
    array = result.as_numpy(port.name)
    if array is None:
        raise ProtocolError(f"the answer has no output '{port.name}'")
    found: Array = np.asarray(array)
    check_port(port.name, found.dtype, found.shape, port.dtype, port.shape)
    return found


def _failure(error: Any, waited_s: float) -> EdgeFailed | EdgeRefused:
    status, said = str(error.status()), str(error.message())
    if any(kind in status for kind in _PERMANENT):
        return EdgeRefused(f"the edge refuses the request: {said}", "serve the same folder there")
    if "DEADLINE_EXCEEDED" in status:
        return EdgeFailed(f"no answer of the edge within {waited_s:.3g} s")
    return EdgeFailed(f"the edge does not answer: {said}")
