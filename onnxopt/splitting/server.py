"""Serve edge halves over the Open Inference Protocol v2: who may connect and when to stop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from onnxopt.errors import OnnxoptError, UsageError, told
from onnxopt.splitting.connection import Connection, State
from onnxopt.splitting.endpoint import Answer, Endpoint, Half
from onnxopt.splitting.http_head import Head
from onnxopt.splitting.protocol import error_message
from onnxopt.splitting.tensors import ProtocolError

Log = Callable[[Mapping[str, object]], None]


class EdgeServer:
    """Keeps no state between requests: which cut is used is in each of them.

    Args:
        endpoint: what is served.
        host, port: where; port 0: any that is free.
        workers: requests that are computed at once.
        log: is told of every request and of every refusal, from the thread that serves.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        workers: int = 1,
        log: Log | None = None,
    ) -> None:
        self.limits = endpoint.limits
        self.stopping = False
        self.url = ""
        self._endpoint = endpoint
        self._address = (host, port)
        self._workers = workers
        self._log = log
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="onnxopt-edge")
        self._connections: set[Connection] = set()
        self._computing: set[Connection] = set()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, ready: Callable[[str], None] = lambda url: None) -> None:
        """Serve until `stop`. Then no request is taken any more, and those that run are finished.

        Args:
            ready: is told the URL once the server answers.

        Raises:
            UsageError: the address is taken, or is none of this machine.
        """
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        host, port = self._address
        try:
            server = await self._loop.create_server(
                lambda: Connection(self), host, port, backlog=self.limits.connections
            )
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"cannot listen at {host}:{port}: {why}", "give another --host or --port"
            ) from None
        name = server.sockets[0].getsockname()
        shown = f"[{name[0]}]" if server.sockets[0].family == socket.AF_INET6 else name[0]
        self.url = f"http://{shown}:{name[1]}"
        self._tell({"event": "ready", "url": self.url, "models": [*self._endpoint.halves]})
        ready(self.url)
        try:
            await self._stop.wait()
        finally:
            self.stopping = True
            await _close(server)
            await self._finish()
            self._tell({"event": "stopped"})

    def stop(self) -> None:
        """From any thread, or from a handler of a signal."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    @property
    def held_requests(self) -> int:
        """That are computed, or wait for their turn."""
        return len(self._computing)

    # What connections ask.

    def opened(self, connection: Connection) -> bool:
        if self.stopping:
            return False
        if len(self._connections) >= self.limits.connections:
            states = (State.IDLE, State.HEAD, State.BODY, State.SENDING, State.LEAVING)
            if not self._give_up_one(states, lambda waiting: waiting.since):
                return False
        self._connections.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def look_up(self, head: Head) -> Answer:
        return self._endpoint.look_up(head, ready=not self.stopping)

    def half_for(self, head: Head) -> Half:
        if self.stopping:
            raise ProtocolError("the server stops", status=503)
        return self._endpoint.half_for(head)

    def make_room(self, size_bytes: int) -> bool:
        while self._held_bytes() + size_bytes > self.limits.received_bytes:
            if not self._give_up_one((State.BODY,), _speed):
                return False
        return True

    async def infer(
        self, connection: Connection, half: Half, head: Head, body: memoryview
    ) -> Answer:
        started = time.perf_counter()
        answer = Answer(error_message("there are too many requests"), 503)
        if len(self._computing) < self._workers + self.limits.waiting:
            self._computing.add(connection)
            try:
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(
                    self._pool, self._computed, connection, half, head, body
                )
            finally:
                self._computing.discard(connection)
        total = time.perf_counter() - started
        self.note(connection, answer, half.name, total)
        timing = (
            f"edge;dur={1000 * total:.3f}, compute;dur={1000 * answer.compute_s:.3f}, "
            f"receive;dur={1000 * connection.receive_s:.3f}"
        )
        return Answer(answer.message, answer.status, {"Server-Timing": timing}, answer.compute_s)

    def note(
        self, connection: Connection, answer: Answer, what: str, total_s: float | None = None
    ) -> None:
        if self._log is None:
            return
        entry: dict[str, object] = {"event": "request" if total_s is not None else what}
        if total_s is not None:
            entry |= {"model": what, "bytes_in": connection.expected}
            entry |= {"bytes_out": answer.message.size_bytes}
            entry |= {"receive_ms": round(1000 * connection.receive_s, 3)}
            entry |= {"compute_ms": round(1000 * answer.compute_s, 3)}
            entry |= {"edge_ms": round(1000 * total_s, 3)}
        if answer.status != 200:
            entry["reason"] = answer.message.header.decode()
        self._tell(entry | {"status": answer.status, "peer": connection.peer})

    def _tell(self, entry: Mapping[str, object]) -> None:
        if self._log is not None:
            self._log({"time": round(time.time(), 3), **entry})

    # The rest.

    def _computed(self, connection: Connection, half: Half, head: Head, body: memoryview) -> Answer:
        """In a thread of the pool."""
        if connection.state is State.CLOSED:
            return Answer(error_message("the client went away"), 408)
        try:
            return self._endpoint.infer(half, head, body)
        except ProtocolError as error:
            return Answer(error_message(str(error)), error.status)
        except Exception as error:  # a bug of ours must not end the server
            return Answer(error_message(f"a bug in onnxopt: {told(error)}"), 500)

    def _held_bytes(self) -> int:
        return sum(c.expected for c in self._connections | self._computing)

    def _give_up_one(self, states: tuple[State, ...], worth: Callable[[Connection], float]) -> bool:
        """Close the connection that is worth least, if one waits longer than the time of grace."""
        old = time.monotonic() - self.limits.grace_s
        candidates = [c for c in self._connections if c.state in states and c.since < old]
        if not candidates:
            return False
        victim = min(candidates, key=worth)
        self._tell({"event": "given up", "peer": victim.peer, "waited for": victim.state.value})
        victim.expected = 0
        self._connections.discard(victim)
        victim.abort()
        return True

    async def _finish(self) -> None:
        for connection in list(self._connections):
            connection.close_if_idle()
        until = time.monotonic() + self.limits.stop_s
        while self._connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()
        self._pool.shutdown(wait=not self._computing, cancel_futures=True)


async def _close(server: asyncio.Server) -> None:
    """Accept nobody any more. Who is just being accepted becomes a connection first: closing a
    server in between would leave a socket that nobody closes."""
    for listening in server.sockets:
        with suppress(NotImplementedError):
            asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
    server.close()


def _speed(connection: Connection) -> float:
    """Bytes per second, of a body that is being received."""
    return connection.received / max(time.monotonic() - connection.since, 1e-9)


@contextmanager
def serving(server: EdgeServer) -> Iterator[str]:
    """Serve in a thread of this process, for as long as the context lasts.

    Yields:
        the URL.
    """
    started: list[str | BaseException] = []
    answered = threading.Event()

    def ready(url: str) -> None:
        started.append(url)
        answered.set()

    def run() -> None:
        try:
            asyncio.run(server.serve(ready))
        except BaseException as error:
            started.append(error)
        finally:
            answered.set()

    thread = threading.Thread(target=run, name="onnxopt-serve", daemon=True)
    thread.start()
    answered.wait()
    if isinstance(started[0], OnnxoptError):
        raise started[0]
    assert isinstance(started[0], str), started[0]
    try:
        yield started[0]
    finally:
        server.stop()
        thread.join()
