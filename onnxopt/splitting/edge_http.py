"""An edge that speaks REST with the binary tensor data extension, over one connection kept open."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from onnxopt.errors import UsageError, told
from onnxopt.signature import Array
from onnxopt.splitting.edge import EdgeFailed, EdgeRefused, Reply
from onnxopt.splitting.manifest import Port
from onnxopt.splitting.protocol import (
    JSON_LENGTH,
    Message,
    decode_response,
    encode_request,
    parse_json,
)
from onnxopt.splitting.tensors import ProtocolError

LARGEST_ANSWER = 2**31
PIECE = 2**18
SMALL = 2**16
"""Requests up to this size leave in one piece."""
LINE = 4000
"""Bytes of a padded header of a probe: servers commonly take 8 kB for a line, and 16 for all."""

FAILURES = (ProtocolError, OSError, http.client.HTTPException)
"""What goes wrong where the other end does not do what it should; a TimeoutError is an OSError."""

TRANSIENT = frozenset((408, 425, 429))
"""Beside all from 500 on: the server may take the same request later."""

_TIMING = re.compile(r"\s*(\w+)\s*;\s*dur=([0-9.]+)\s*")


class HttpEdge:
    """One connection, made when it is needed.

    Args:
        url: http://HOST:PORT or https://..., maybe with a path before /v2.
        split: what the edge must have the other half of, see `folder.split_digest`.
        connect_s: how long making a connection may take.
    """

    def __init__(self, url: str, *, split: str = "", connect_s: float = 1.0) -> None:
        self._host, self._port, self._path, self._secure = _address(url)
        self._split = split
        self._connect_s = connect_s
        self._connection: http.client.HTTPConnection | None = None
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
        until = time.monotonic() + within_s
        self._count += 1
        id = str(self._count)
        message = encode_request(inputs, [port.name for port in outputs], id=id, split=self._split)
        try:
            answer = self._exchange(f"{self._path}/v2/models/{quote(model)}/infer", message, until)
            if answer.status != 200:
                raise _refusal(answer)
            found = decode_response(memoryview(answer.body), answer.json_length, outputs, id)
        except FAILURES as error:
            self.close()
            raise _failure(error, within_s) from None
        timing = answer.timing
        return Reply(
            found, timing.get("edge"), timing.get("receive"), message.size_bytes, len(answer.body)
        )

    def probe(self, size_bytes: int, *, within_s: float) -> float:
        """See `probing.Probed.probe`: asks for the health of the server, with padded headers."""
        until = time.monotonic() + within_s
        lines = [f"GET {self._path}/v2/health/live HTTP/1.1", f"Host: {self._host}:{self._port}"]
        for start in range(0, size_bytes, LINE):
            lines.append(f"X-Padding-{start // LINE}: {'0' * min(LINE, size_bytes - start)}")
        try:
            sock = self._connected(until)
            began = time.perf_counter()
            sock.settimeout(_left(until))
            sock.sendall("\r\n".join(lines).encode("ascii") + b"\r\n\r\n")
            response = http.client.HTTPResponse(sock, method="GET")
            response.begin()
            _body(response, sock, until)
        except FAILURES as error:
            self.close()
            raise _failure(error, within_s) from None
        took = time.perf_counter() - began
        if response.will_close:
            self.close()
        if response.status != 200:
            raise EdgeFailed(f"the edge says {response.status} to a probe")
        return took

    def close(self) -> None:
        """See `Edge.close`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, path: str, message: Message, until: float) -> _Answer:
        """Send and receive; once more where a connection kept open turns out to be closed."""
        is_fresh = self._connection is None
        try:
            return self._once(path, message, until)
        except (ConnectionError, http.client.BadStatusLine):
            if is_fresh:
                raise
            self.close()
            return self._once(path, message, until)

    def _once(self, path: str, message: Message, until: float) -> _Answer:
        sock = self._connected(until)
        head, data = self._head(path, message), message.data
        if message.size_bytes <= SMALL:
            head, data = b"".join((head, *data)), ()
        for part in (memoryview(head), *data):
            sock.settimeout(_left(until))
            sock.sendall(part)
        sock.settimeout(_left(until))
        response = http.client.HTTPResponse(sock, method="POST")
        response.begin()
        answer = _Answer(response.status, response.headers, _body(response, sock, until))
        if response.will_close:
            self.close()
        return answer

    def _head(self, path: str, message: Message) -> bytes:
        """All up to the bytes of tensors, which leaves in one piece."""
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in message.headers.items()]
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + message.header

    def _connected(self, until: float) -> socket.socket:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            wait = min(self._connect_s, _left(until))
            self._connection = kind(self._host, self._port, timeout=wait)
            self._connection.connect()  # with Nagle's algorithm off
        sock: socket.socket = self._connection.sock
        return sock


def _body(response: http.client.HTTPResponse, sock: socket.socket, until: float) -> bytes:
    length = response.length if response.length is not None else 0
    pieces, total = [], 0
    while not response.isclosed():
        if max(total, length) > LARGEST_ANSWER:
            raise ProtocolError("its answer is too large")
        sock.settimeout(_left(until))
        piece = response.read1(PIECE)
        if not piece:
            break
        pieces.append(piece)
        total += len(piece)
    if total < length:
        raise http.client.IncompleteRead(b"", length - total)
    return b"".join(pieces)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json_length(self) -> int | None:
        text = self.headers.get(JSON_LENGTH)
        if text is not None and not text.isdecimal():
            raise ProtocolError(f"{JSON_LENGTH} is no number")
        return None if text is None else int(text)

    @property
    def timing(self) -> dict[str, float]:
        """Seconds, by what they were spent on."""
        parts = (_TIMING.fullmatch(p) for p in self.headers.get("Server-Timing", "").split(","))
        return {part[1]: float(part[2]) / 1000 for part in parts if part is not None}


def _address(url: str) -> tuple[str, int, str, bool]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"'{url}' is no URL: {error}", "write http://HOST:PORT") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(f"'{url}' is no URL of an edge", "write http://HOST:PORT")
    secure = parts.scheme == "https"
    default = 443 if secure else 80
    return parts.hostname, port if port is not None else default, parts.path.rstrip("/"), secure


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refusal(answer: _Answer) -> EdgeFailed | EdgeRefused:
    try:
        content: Any = parse_json(answer.body)
    except ProtocolError:
        content = None
    said = content.get("error", content.get("detail")) if isinstance(content, dict) else None
    what = f"{answer.status}" + (f": {said}" if said else "")
    if answer.status >= 500 or answer.status in TRANSIENT:
        return EdgeFailed(f"the edge says {what}")
    return EdgeRefused(f"the edge refuses the request with {what}", "serve the same folder there")


def _failure(error: BaseException, within_s: float) -> EdgeFailed:
    if isinstance(error, ProtocolError):
        return EdgeFailed(f"the edge answers nonsense: {error.what}")
    if isinstance(error, TimeoutError):
        return EdgeFailed(f"no answer of the edge within {within_s:.3g} s")
    return EdgeFailed(f"the edge does not answer: {_reason(error)}")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return told(error)
