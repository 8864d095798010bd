"""What a split costs in which conditions: points, the conditions, and the time that follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product


@dataclass(frozen=True)
class Point:
    """One way to split, as its costs see it.

    Attributes:
        device_s, edge_s: computing there, encoding and decoding included, when nothing else runs.
        sent_bytes: from the device to the edge, as the codec makes them.
        back_bytes: of the outputs that the edge makes.
        is_remote: anything runs at the edge.
    """

    device_s: float
    edge_s: float
    sent_bytes: float
    back_bytes: float
    is_remote: bool


@dataclass(frozen=True)
class Context:
    """Conditions that change while a split model runs.

    Attributes:
        bandwidth_bits: per second, each way.
        rtt_s: of a request without any data, what the protocol costs included.
        device_load, edge_load: by how much computing takes longer there than it was profiled.
    """

    bandwidth_bits: float
    rtt_s: float
    device_load: float = 1.0
    edge_load: float = 1.0

    @property
    def seconds_per_byte(self) -> float:
        return 8 / self.bandwidth_bits


@dataclass(frozen=True)
class Box:
    """All conditions between two: each quantity anywhere between what these say."""

    least: Context
    most: Context

    def corners(self) -> tuple[Context, ...]:
        """Times are linear in 1 / bandwidth and the others: what is best at all is best inside."""
        ranges = [
            sorted({getattr(self.least, name), getattr(self.most, name)})
            for name in ("bandwidth_bits", "rtt_s", "device_load", "edge_load")
        ]
        return tuple(Context(*values) for values in product(*ranges))

    def clipped(self, context: Context) -> Context:
        """The nearest conditions inside."""
        values = {}
        for name in ("bandwidth_bits", "rtt_s", "device_load", "edge_load"):
            ends = getattr(self.least, name), getattr(self.most, name)
            values[name] = min(max(getattr(context, name), min(ends)), max(ends))
        return replace(context, **values)


def latency_s(point: Point, context: Context) -> float:
    """From the input on the device to the outputs on the device."""
    if not point.is_remote:
        return context.device_load * point.device_s
    return (
        context.device_load * point.device_s
        + context.edge_load * point.edge_s
        + context.rtt_s
        + (point.sent_bytes + point.back_bytes) * context.seconds_per_byte
    )
