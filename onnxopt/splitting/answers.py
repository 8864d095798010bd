"""What a client gets for a request, where its time went, and who is told of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from onnxopt.signature import Array


class Chooser(Protocol):
    """What chooses the cut of each request by how those before it went: `switching.Adapter`."""

    @property
    def allowed(self) -> Sequence[int]:
        """The cuts that it may choose."""

    def choose(self) -> int:
        """The number of the cut for the next request."""

    def observe(
        self,
        *,
        bytes_sent: float,
        bytes_received: float,
        wall_s: float,
        device_s: float,
        edge_s: float,
        cut: int,
    ) -> None:
        """A request was answered."""

    def probed(self, size_bytes: float, wire_s: float) -> None:
        """Something else went over the link, beside the requests."""

    def failed(self) -> None:
        """The edge did not answer."""


@dataclass(frozen=True)
class Timings:
    """Where the time of one request went.

    Attributes:
        cut: number of the cut that was used.
        device_s: computing on the device, with what it finished in place of the edge.
        wire_s: waiting for the edge without what it computed, or in vain.
        edge_s: from the edge's having the request to its having the answer, as it says; 0 where
            nothing ran there, or it does not say (then it is part of wire_s).
        total_s: all of it.
        sent_bytes, received_bytes: of bodies; 0 where nothing crossed.
        receive_s: how long the edge was receiving; None if it does not say.
        failure: why the edge did not answer, so that the device did; empty if it did or was not
            asked to.
    """

    cut: int
    device_s: float
    wire_s: float = 0.0
    edge_s: float = 0.0
    total_s: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0
    receive_s: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Answer:
    """The outputs of the model by name, in its order, and what they took."""

    outputs: Mapping[str, Array]
    timings: Timings
