"""A link of a chosen rate and delay, as a proxy over loopback: all arrives as late as there.

    python tests/shaped.py 127.0.0.1:8000 --bits 5.85e6 --rtt 0.05

prints the port to connect to, and takes new rates (bits per second) as lines on stdin.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

PIECE_S = 0.001
"""A piece takes about so long on the link, so that it arrives as smoothly as packets do."""

SMALLEST, LARGEST = 512, 65536
MOST_WAITING = 64


@dataclass
class Way:
    """One direction: a bucket that fills with bits at the rate, shared by all connections."""

    bits: float
    delay_s: float
    free_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def piece(self) -> int:
        return int(min(max(self.bits * PIECE_S / 8, SMALLEST), LARGEST))

    def arrives_at(self, size: int) -> float:
        """When the last bit of this is at the other end, if it goes next."""
        with self.lock:
            self.free_at = max(self.free_at, time.perf_counter()) + 8 * size / self.bits
            return self.free_at + self.delay_s


class ShapedLink:
    """A proxy; closing it cuts all connections.

    Args:
        host, port: of the server.
        bits: per second, each way.
        rtt_s: there and back, of nothing.
    """

    def __init__(self, host: str, port: int, *, bits: float, rtt_s: float) -> None:
        self._to = (host, port)
        self.ways = (Way(bits, rtt_s / 2), Way(bits, rtt_s / 2))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_bits(self, bits: float) -> None:
        for way in self.ways:
            way.bits = bits

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._to)
            except OSError:
                near.close()
                continue
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [near, far]
            for source, target, way in ((near, far, self.ways[0]), (far, near, self.ways[1])):
                waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(MOST_WAITING)
                for work in (_receive, _deliver):
                    arguments = (source if work is _receive else target, way, waiting)
                    threading.Thread(target=work, args=arguments, daemon=True).start()


def _receive(source: socket.socket, way: Way, waiting: queue.Queue[tuple[float, bytes]]) -> None:
    while True:
        try:
            data = source.recv(way.piece())
        except OSError:
            data = b""
        waiting.put((way.arrives_at(len(data)), data))
        if not data:
            return


def _deliver(target: socket.socket, way: Way, waiting: queue.Queue[tuple[float, bytes]]) -> None:
    while True:
        at, data = waiting.get()
        left = at - time.perf_counter()
        if left > 0:
            time.sleep(left)
        try:
            if not data:
                target.shutdown(socket.SHUT_RDWR)
                target.close()
                return
            target.sendall(data)
        except OSError:
            return


class LinkProcess:
    """The same in a process of its own, so that it takes no turns with a client."""

    def __init__(self, host: str, port: int, *, bits: float, rtt_s: float) -> None:
        command = [sys.executable, __file__, f"{host}:{port}"]
        self._process = subprocess.Popen(
            [*command, "--bits", str(bits), "--rtt", str(rtt_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def set_bits(self, bits: float) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{bits}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("to", metavar="HOST:PORT")
    parser.add_argument("--bits", type=float, required=True)
    parser.add_argument("--rtt", type=float, default=0.0)
    asked = parser.parse_args()
    host, _, port = asked.to.rpartition(":")
    link = ShapedLink(host, int(port), bits=asked.bits, rtt_s=asked.rtt)
    sys.stdout.write(f"{link.port}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        link.set_bits(float(line))
        sys.stdout.write("set\n")
        sys.stdout.flush()
    link.close()


if __name__ == "__main__":
    main()
