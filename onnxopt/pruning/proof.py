"""Proof of a cut: a model whose channels are zeroed gives what a model without them gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxopt.graph import Array, Constant, Node
from onnxopt.pruning.channels import ChannelGroup, Channels, _labelled
from onnxopt.pruning.cut import Cut
from onnxopt.runtime import Session

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest element of an output."""


@dataclass(frozen=True)
class Proof:
    """How far the cut model is from the zeroed one.

    Attributes:
        error: largest difference over all outputs, relative to the largest element of the output.
        exact: the cut claims to be exact; if not, `error` only informs.
    """

    error: float
    exact: bool

    @property
    def holds(self) -> bool:
        return bool(self.error <= TOLERANCE) if self.exact else bool(np.isfinite(self.error))


_ZERO_IN: Mapping[str, Sequence[int] | None] = {
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "FusedConv"), None),
    **dict.fromkeys(("Add", "Sub", "Mul", "LSTM", "GRU", "RNN", "Gather", "Attention"), None),
    **dict.fromkeys(("Identity", "Concat", "Transpose", "Reshape", "Cast", "Expand"), None),
}
"""Inputs where zero means that the channel says nothing; None stands for all."""


def zeroed(channels: Channels, dead: Iterable[int]) -> onnx.ModelProto:
    """The whole model with the weights of these channels set to zero, at both ends."""
    model, tracker = _labelled(channels.proto, channels.instance, channels.ignore)
    cut = Cut(tracker, dead)
    for value in tracker.labels:
        if isinstance(value, Constant) and (cuts := cut.cuts(value)):
            filler = _filler(value)
            if filler is None:
                continue
            data = np.array(value.data)
            for axis, stays in cuts:
                view = np.moveaxis(data, axis, 0)
                view[~stays] = np.moveaxis(np.broadcast_to(filler, data.shape), axis, 0)[~stays]
            value.replace_data(data)
    return model.to_proto()


def _filler(value: Constant) -> Array | None:
    """What stands for nothing in a weight: zero, or the zero point."""
    point: Array = np.zeros((), value.dtype)
    for node in dict.fromkeys(value.consumers):
        for place, read in enumerate(node.inputs):
            if read is not value:
                continue
            if node.op in ("DequantizeLinear", "QLinearConv"):
                found = _zero_point(node, place, value)
                if found is None:
                    return None
                point = found
            elif node.op not in _ZERO_IN:
                return None
            elif (places := _ZERO_IN[node.op]) is not None and place not in places:
                return None
    return point


def _zero_point(node: Node, place: int, value: Constant) -> Array | None:
    if node.op == "QLinearConv":
        if place == 8:
            return np.zeros((), value.dtype)
        if place != 3:
            return None
        data = node.inputs[5].array
        return None if data is None else data.reshape(-1, *[1] * (len(value.dims) - 1))
    if place != 0:
        return None
    point = node.input(2)
    if point is None:
        return np.zeros((), value.dtype)
    if point.array is None:
        return None
    if point.array.size == 1:
        return point.array.reshape(())
    shape = [1] * len(value.dims)
    shape[int(node.attr("axis"))] = -1
    return point.array.reshape(shape)


def prove(
    channels: Channels,
    dead: Iterable[int],
    feeds: Sequence[Mapping[str, Any]],
    groups: Iterable[ChannelGroup] = (),
) -> Proof:
    """Compare the zeroed model with the cut one on these inputs."""
    dead = frozenset(dead)
    touched = [g for g in groups or channels.groups if dead.intersection(g.units)]
    whole, small = Session(zeroed(channels, dead)), Session(channels.cut(dead))
    worst = 0.0
    for feed in feeds:
        expected, found = whole.run(feed), small.run(feed)
        for name, value in expected.items():
            worst = max(worst, relative_error(value, found[name]))
    return Proof(worst, all(group.exact for group in touched))


def relative_error(expected: Any, found: Any) -> float:
    """Largest difference relative to the largest element; infinite if the shapes differ."""
    if not hasattr(expected, "shape"):
        return 0.0
    if expected.shape != found.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = np.where(same, 0.0, np.abs(a - b))
    scale = float(np.abs(np.where(np.isfinite(a), a, 0)).max()) or 1.0
    worst = float(difference.max()) / scale
    return worst if np.isfinite(worst) else float("inf")
