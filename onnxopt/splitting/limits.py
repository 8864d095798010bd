"""What a server of edge halves takes from its clients, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """None of them can be exceeded by a client, whatever it sends.

    Attributes:
        body_bytes: of one request. Where the shapes of a model are fixed the limit is what these
            take, if that is less.
        json_bytes: of the JSON object of a request, which takes many times its size when read.
        head_bytes: of the request line and the headers.
        received_bytes: of all bodies that are being received, waiting or computed, together.
        connections: open at once.
        waiting: requests that wait for their turn, beyond those that are being computed.
        idle_s: a connection without a request is closed after so long.
        head_s: for all of a head, from its first byte on.
        body_s, body_bytes_per_s: for a body of n bytes: body_s + n / body_bytes_per_s.
        answer_s: for the client to take an answer.
        leaving_s: for a client whose request was refused, to take that and hang up.
        grace_s: younger than this, nobody is closed in favour of others.
        stop_s: requests that are being computed may take so long when the server stops.
    """

    body_bytes: int = 256 * MIB
    json_bytes: int = 4 * MIB
    head_bytes: int = 16 * 1024
    received_bytes: int = 1024 * MIB
    connections: int = 512
    waiting: int = 64
    idle_s: float = 120.0
    head_s: float = 10.0
    body_s: float = 30.0
    body_bytes_per_s: int = 16 * 1024
    answer_s: float = 60.0
    leaving_s: float = 2.0
    grace_s: float = 1.0
    stop_s: float = 30.0

    def time_for_body_s(self, size_bytes: int) -> float:
        return self.body_s + size_bytes / self.body_bytes_per_s


DEFAULT = Limits()
