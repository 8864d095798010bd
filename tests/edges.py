"""What tests and benchmarks do to a server of edge halves: start it, kill it, send it rubbish."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit


class Process:
    """`onnxopt split serve` in a process of its own.

    Args:
        port: 0: any that is free.
    """

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "onnxopt", "split", "serve", str(folder)]
        self.process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.url = ""
        for line in self.process.stdout:
            if line.startswith("ready at "):
                self.url = line.removeprefix("ready at ").partition(";")[0]
                break
        assert self.url, self.process.stderr.read()

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def end(self, number: int) -> tuple[int, str]:
        """Send it a signal; its exit code and what it said on stderr."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def memory_bytes(self) -> int:
        """Resident, as Linux tells it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def exchanged(url: str, sent: bytes) -> bytes:
    """What the server says to these bytes until it hangs up or has nothing more to say."""
    with connected(url) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                said += piece
    return said


def post(path: str, body: bytes, *lines: str, length: int | None = None) -> bytes:
    """The bytes of a POST."""
    size = len(body) if length is None else length
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def malformed(good: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Requests like a good one, each broken in another way: bytes changed, cut out or doubled."""
    draw = random.Random(seed)
    for _ in range(count):
        raw = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(raw))
            kind = draw.randrange(4)
            if kind == 0:
                raw[at] = draw.randrange(256)
            elif kind == 1:
                del raw[at : at + draw.randint(1, 40)]
            elif kind == 2:
                raw[at:at] = raw[at : at + draw.randint(1, 40)]
            else:
                raw[at : at + 4] = draw.randbytes(4)
            if len(raw) < 2:
                raw = bytearray(good)
        yield bytes(raw)


def oversized(path: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """Requests that claim, or are, more than a server should take: heads, bodies, JSON, shapes."""
    draw = random.Random(seed)
    huge = '{"inputs":[{"name":"x","shape":[4294967296,4294967296],"datatype":"FP32","data":[1]}]}'
    for number in range(count):
        kind = number % 5
        if kind == 0:
            yield (
                b"GET /v2 HTTP/1.1\r\n"
                + b"A: "
                + b"b" * draw.randint(20_000, 100_000)
                + b"\r\n\r\n"
            )
        elif kind == 1:
            yield post(path, b"x" * 1000, length=draw.randint(10**9, 10**15))
        elif kind == 2:
            yield post(path, b"[" * draw.randint(10_000, 300_000))
        elif kind == 3:
            yield post(path, huge.encode())
        else:
            yield post(
                path, b"{}", f"Inference-Header-Content-Length: {draw.randint(10**7, 10**17)}"
            )


class Slow:
    """Clients that send a request byte by byte, or stop in the middle of it.

    Args:
        requests: what each of them wants to send.
    """

    def __init__(self, url: str, requests: list[bytes]) -> None:
        self.left = [(connected(url), request) for request in requests]
        self.hung_up = 0

    def step(self) -> None:
        """Each sends one byte more, and notices whether the server has hung up."""
        kept = []
        for sock, request in self.left:
            try:
                sock.sendall(request[:1])
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if not sock.recv(4096):
                        raise ConnectionError
                sock.settimeout(30)
                kept.append((sock, request[1:] or request))
            except ConnectionError:
                self.hung_up += 1
                sock.close()
        self.left = kept

    def close(self) -> None:
        for sock, _ in self.left:
            sock.close()


def until(happens: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for it, however slow the machine is."""
    end = time.monotonic() + within_s
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
