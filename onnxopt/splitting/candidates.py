"""All ways to split: cuts with the codecs that their tensors may cross in, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxopt.splitting.context import Context, Point
from onnxopt.splitting.enumeration import Cuts, Floats
from onnxopt.splitting.manifest import Codec

Ints: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Bools: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"


@dataclass(frozen=True)
class Coding:
    """A codec, and what it makes of each tensor of the model.

    Attributes:
        sent_bytes: of each tensor, as it crosses.
        encode_s, decode_s: for each tensor; on the device, and at the edge.
    """

    codec: Codec
    sent_bytes: Sequence[float]
    encode_s: Sequence[float]
    decode_s: Sequence[float]


@dataclass(frozen=True)
class Powers:
    """What the device draws, in watts: computing, sending or receiving, waiting for the edge."""

    compute_w: float
    radio_w: float
    idle_w: float = 0.0


@dataclass(frozen=True)
class Candidates:
    """Ways to split, one in each place of the arrays.

    Attributes:
        cut: number of the cut; coding: number of the codec in `codings`.
        device_s, edge_s: with encoding and decoding; sent, back: bytes.
        weight_bytes, peak_bytes: on the device.
    """

    cuts: Cuts
    codings: tuple[Coding, ...]
    cut: Ints
    coding: Ints
    device_s: Floats
    edge_s: Floats
    sent: Floats
    back: Floats
    is_remote: Bools
    weight_bytes: Ints
    peak_bytes: Ints

    def __len__(self) -> int:
        return len(self.cut)

    def point(self, number: int) -> Point:
        return Point(
            float(self.device_s[number]),
            float(self.edge_s[number]),
            float(self.sent[number]),
            float(self.back[number]),
            bool(self.is_remote[number]),
        )

    def codec(self, number: int) -> Codec:
        return self.codings[int(self.coding[number])].codec

    def latency_s(self, context: Context) -> Floats:
        """As `context.latency_s`, of all."""
        wire = (self.sent + self.back) * context.seconds_per_byte + self.is_remote * context.rtt_s
        return context.device_load * self.device_s + context.edge_load * self.edge_s + wire

    def interval_s(self, context: Context) -> Floats:
        """Between two results when many requests are in flight: what is busy longest counts."""
        wire = (self.sent + self.back) * context.seconds_per_byte
        busy = (context.device_load * self.device_s, wire, context.edge_load * self.edge_s)
        longest: Floats = np.maximum.reduce(busy)
        return longest

    def energy_j(self, context: Context, powers: Powers) -> Floats:
        """What the device uses for one request."""
        wire = (self.sent + self.back) * context.seconds_per_byte
        waiting = context.edge_load * self.edge_s + self.is_remote * context.rtt_s
        busy = powers.compute_w * context.device_load * self.device_s
        return busy + powers.radio_w * wire + powers.idle_w * waiting

    def find(self, cut: int, coding: int) -> int | None:
        """The number of a cut with a codec; None if it is not among them."""
        found = np.flatnonzero((self.cut == cut) & (self.coding == coding))
        return int(found[0]) if len(found) else None

    def only(self, kept: Bools) -> Candidates:
        """Those that are kept, numbered anew."""
        return Candidates(
            self.cuts,
            self.codings,
            self.cut[kept],
            self.coding[kept],
            self.device_s[kept],
            self.edge_s[kept],
            self.sent[kept],
            self.back[kept],
            self.is_remote[kept],
            self.weight_bytes[kept],
            self.peak_bytes[kept],
        )

    @property
    def all_device(self) -> int:
        found = self.find(self.cuts.whole, 0)
        assert found is not None
        return found

    def all_edge(self, context: Context) -> int | None:
        """The one that computes nothing on the device and takes least time; None if none may."""
        found = np.flatnonzero(self.cut == 0)
        times = self.latency_s(context)
        return int(found[np.argmin(times[found])]) if len(found) else None


def candidates(
    cuts: Cuts, codings: Sequence[Coding], device_s: Floats, edge_s: Floats
) -> Candidates:
    """All legal cuts with all codecs; a codec that makes nothing of a cut smaller is left out.

    Args:
        codings: the first one leaves tensors as they are.
        device_s, edge_s: of each cut, computing on the device and at the edge, without codecs.
    """
    assert codings[0].codec == "none"
    legal = np.array([cuts.is_legal(cut) for cut in range(len(cuts))])
    whole = cuts.whole
    back = _back(cuts)
    remote = np.arange(len(cuts)) != whole
    columns = []
    smallest = np.full(len(cuts), np.inf)
    for coding in codings:
        sent = cuts.sent(coding.sent_bytes)
        kept = np.flatnonzero(legal & (sent < smallest))
        smallest = np.minimum(smallest, sent)
        device = device_s + cuts.sent(coding.encode_s)
        edge = edge_s + cuts.sent(coding.decode_s)
        columns.append((kept, device[kept], edge[kept], sent[kept]))
    cut = np.concatenate([kept for kept, *_ in columns])
    return Candidates(
        cuts,
        tuple(codings),
        cut,
        np.concatenate([np.full(len(kept), i) for i, (kept, *_) in enumerate(columns)]),
        np.concatenate([device for _, device, _, _ in columns]),
        np.concatenate([edge for _, _, edge, _ in columns]),
        np.concatenate([sent for *_, sent in columns]),
        back[cut],
        remote[cut],
        np.array(cuts.weight_bytes)[cut],
        np.array(cuts.peak_bytes)[cut],
    )


def _back(cuts: Cuts) -> Floats:
    """Bytes of the outputs that the edge makes, for each cut."""
    made = back_bytes(cuts)
    return sum(made) - cuts.sums(made)


def back_bytes(cuts: Cuts) -> list[float]:
    """Bytes of the outputs that each operator makes."""
    tensors = cuts.dag.tensors
    return [
        float(sum(tensors[t].size_bytes for t in op.makes if tensors[t].is_output))
        for op in cuts.dag.operators
    ]
