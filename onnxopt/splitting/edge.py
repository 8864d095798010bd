"""What a client needs of an edge, whatever it speaks, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from onnxopt.errors import OnnxoptError, UsageError
from onnxopt.signature import Array
from onnxopt.splitting.manifest import Port


class EdgeFailed(OnnxoptError):
    """The edge is gone, late, too busy or broken; it may be back later. Exit code 1."""


class EdgeRefused(UsageError):
    """The edge answers, but not to this: it serves another model, or not this cut. Exit code 2."""


@dataclass(frozen=True)
class Reply:
    """An answer of the edge.

    Attributes:
        edge_s: from its having all of the request to its having all of the answer, as it says
            itself; None if it does not.
        receive_s: between its having the head of the request and all of it, likewise.
        sent_bytes, received_bytes: bodies; heads are not counted.
    """

    outputs: Mapping[str, Array]
    edge_s: float | None
    receive_s: float | None
    sent_bytes: int
    received_bytes: int


class Edge(Protocol):
    """A server of edge halves. Not for several threads at once."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[Port],
        *,
        within_s: float,
    ) -> Reply:
        """Have a model run.

        Args:
            within_s: how long its answer is waited for.

        Raises:
            EdgeFailed: there is none, or not in time.
            EdgeRefused: it does not take this request, nor would it later.
        """

    def close(self) -> None:
        """Hang up; the next request connects anew."""
