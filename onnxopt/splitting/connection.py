"""One connection of a client: receive a request, have it answered, send the answer, and again."""

from __future__ import annotations

import asyncio
import enum
import time
from typing import Protocol

import numpy as np

from onnxopt.splitting.endpoint import Answer, Half
from onnxopt.splitting.http_answer import answer_bytes
from onnxopt.splitting.http_head import END, Head, parse_head
from onnxopt.splitting.limits import Limits
from onnxopt.splitting.protocol import error_message
from onnxopt.splitting.tensors import ALIGNMENT, ProtocolError

USUAL_HEAD_BYTES = 2048
"""The buffer of a head begins with so many, so that many connections take little."""


class State(enum.Enum):
    """What a connection waits for."""

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "its answer"
    SENDING = "the client to take the answer"
    LEAVING = "the client to hang up"
    CLOSED = "nothing"


class Host(Protocol):
    """What connections ask of their server."""

    limits: Limits

    @property
    def stopping(self) -> bool: ...

    def opened(self, connection: Connection) -> bool:
        """Whether it may stay."""

    def closed(self, connection: Connection) -> None: ...

    def look_up(self, head: Head) -> Answer: ...

    def half_for(self, head: Head) -> Half: ...

    def make_room(self, size_bytes: int) -> bool:
        """Whether a body of that size may be received."""

    async def infer(
        self, connection: Connection, half: Half, head: Head, body: memoryview
    ) -> Answer:
        """The answer, also where there is none but an error."""

    def note(self, connection: Connection, answer: Answer, what: str) -> None:
        """For the log."""


class Connection(asyncio.BufferedProtocol):
    """Bytes go straight into the buffer of the head and, from there on, into that of the body."""

    def __init__(self, host: Host) -> None:
        self.state = State.IDLE
        self.since = time.monotonic()
        self.peer = ""
        self.received = 0
        self.expected = 0
        self.receive_s = 0.0
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head_buffer = bytearray(min(USUAL_HEAD_BYTES, host.limits.head_bytes))
        self._filled = 0
        self._ended = False
        self._body = memoryview(b"")
        self._head: Head | None = None
        self._half: Half | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
        if self._host.opened(self):
            self._wait_for(State.IDLE, self._host.limits.idle_s)
        else:
            error = ProtocolError("there are too many connections", status=503)
            self._write(answer_bytes(Answer(error_message(str(error)), 503), False, with_body=True))
            self._close()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.state is State.BODY:
            return self._body[self.received :]
        if self._filled == len(self._head_buffer):
            self._head_buffer.extend(bytes(self._host.limits.head_bytes - self._filled))
        return memoryview(self._head_buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self.state is State.BODY:
            self.received += nbytes
            self._body_grew()
        elif self.state is not State.LEAVING:  # then nothing that comes counts any more
            self._filled += nbytes
            self._head_grew()
            if self._filled == self._host.limits.head_bytes and self._transport is not None:
                self._transport.pause_reading()  # until the request before this is answered

    def eof_received(self) -> bool:
        """A client that has sent all it wants to still gets the answers to that."""
        self._ended = True
        if self.state in (State.IDLE, State.HEAD):
            return END in self._head_buffer[: self._filled]
        return self.state in (State.ANSWER, State.SENDING)

    def pause_writing(self) -> None:
        if self.state is State.LEAVING:
            return
        assert self._transport is not None
        self._transport.pause_reading()
        self._wait_for(State.SENDING, self._host.limits.answer_s)

    def resume_writing(self) -> None:
        if self.state is State.SENDING:
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._wait_for(State.CLOSED, None)
        self._body = memoryview(b"")
        self._host.closed(self)

    # What the server calls.

    def close_if_idle(self) -> None:
        """When the server stops."""
        if self.state in (State.IDLE, State.HEAD, State.BODY):
            self._close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Receiving.

    def _head_grew(self) -> None:
        if self.state not in (State.IDLE, State.HEAD):
            return
        end = self._head_buffer.find(END, 0, self._filled)
        if end >= 0:
            try:
                self._begin(end)
            except ProtocolError as error:
                self._refuse(error)
        elif self._filled == self._host.limits.head_bytes:
            self._refuse(ProtocolError("the head of the request is too long", status=431))
        elif self.state is State.IDLE and self._filled:
            self._wait_for(State.HEAD, self._host.limits.head_s)

    def _begin(self, end: int) -> None:
        """All of a head is there, and maybe more than that."""
        self._head = head = parse_head(bytes(self._head_buffer[:end]))
        rest = bytes(self._head_buffer[end + len(END) : self._filled])
        if head.method != "POST":
            if head.length:
                raise ProtocolError(f"{head.method} with a body makes no sense")
            self._keep(rest)
            self._send(self._host.look_up(head))
            return
        self._half = self._host.half_for(head)
        if not self._host.make_room(head.length):
            raise ProtocolError("there is no memory left for such a request now", status=503)
        self.expected = head.length
        self._body = _aligned(head.length, head.json_length or 0)
        self.received = min(len(rest), head.length)
        self._body[: self.received] = rest[: self.received]
        self._keep(rest[self.received :])
        self._wait_for(State.BODY, self._host.limits.time_for_body_s(head.length))
        if head.expects_continue and self.received < head.length:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body_grew()

    def _keep(self, rest: bytes) -> None:
        self._head_buffer[: len(rest)] = rest
        self._filled = len(rest)

    def _body_grew(self) -> None:
        if self.received == self.expected:
            self.receive_s = time.monotonic() - self.since
            self._wait_for(State.ANSWER, None)
            self._task = self._loop.create_task(self._answer())
        elif self._ended:
            self._close()

    async def _answer(self) -> None:
        assert self._half is not None and self._head is not None
        answer = await self._host.infer(self, self._half, self._head, self._body)
        self._body = memoryview(b"")
        self.expected = self.received = 0
        if self.state is State.ANSWER:
            self._send(answer)

    # Sending.

    def _refuse(self, error: ProtocolError) -> None:
        """Say why, and hang up: what else the client sent cannot be told from a request."""
        answer = Answer(error_message(str(error)), error.status)
        self._host.note(self, answer, "refused")
        self._write(answer_bytes(answer, keep_alive=False, with_body=True))
        self._leave()

    def _send(self, answer: Answer) -> None:
        assert self._head is not None
        keep_alive = self._head.keep_alive and not self._host.stopping
        before = self.state
        self._write(answer_bytes(answer, keep_alive, with_body=self._head.method != "HEAD"))
        if not keep_alive:
            self._close()
        elif self.state is before:  # else the client is slow, and resume_writing goes on
            self._next()

    def _next(self) -> None:
        is_over = self._ended and END not in self._head_buffer[: self._filled]
        if is_over or self._host.stopping or (self._head and not self._head.keep_alive):
            self._close()
            return
        assert self._transport is not None
        self._wait_for(State.IDLE, self._host.limits.idle_s)
        self._transport.resume_reading()
        if self._filled:
            self._loop.call_soon(self._head_grew)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)

    def _leave(self) -> None:
        """Read on for a while: a socket closed with bytes unread takes back what was said."""
        assert self._transport is not None
        self._body, self.expected, self._filled = memoryview(b""), 0, 0
        self._wait_for(State.LEAVING, self._host.limits.leaving_s)
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._transport.write_eof()

    def _close(self) -> None:
        """What was written still goes out, but not for ever."""
        assert self._transport is not None
        self._transport.close()
        self._wait_for(State.CLOSED, self._host.limits.answer_s)

    # Waiting.

    def _wait_for(self, state: State, at_most_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.state, self.since = state, time.monotonic()
        self._timer = None
        if at_most_s is not None:
            self._timer = self._loop.call_later(at_most_s, self._timed_out)

    def _timed_out(self) -> None:
        if self.state in (State.HEAD, State.BODY):
            self._refuse(ProtocolError(f"waiting for {self.state.value} took too long", status=408))
        elif self.state is State.IDLE:
            self._close()
        else:
            self.abort()


def _aligned(length: int, json_length: int) -> memoryview:
    """Memory for a body whose tensors begin aligned. It is not touched before bytes arrive."""
    raw = np.empty(length + ALIGNMENT, np.uint8)
    offset = -(raw.ctypes.data + json_length) % ALIGNMENT
    return memoryview(raw.data)[offset : offset + length]
