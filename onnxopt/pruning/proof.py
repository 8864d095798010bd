"""Proof of a cut: a model whose channels are zeroed gives what a model without them gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxopt.graph import Array, Constant
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.zeroing import nothing
from onnxopt.runtime import Session
from onnxopt.verification.comparison import leaves
from onnxopt.verification.feeds import Feed
from onnxopt.verification.reference import Reference
from onnxopt.verification.smooth import smooth_twin

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest element of an output."""


@dataclass(frozen=True)
class Proof:
    """How far the cut model is from the zeroed one.

    Attributes:
        error: largest difference over all outputs, relative to the largest element of the output.
        exact: the cut claims to be exact; if not, `error` only informs.
        is_noise: the error is above the tolerance, but not above what rounding does to the model.
    """

    error: float
    exact: bool
    is_noise: bool = False

    @property
    def holds(self) -> bool:
        if not self.exact:
            return bool(np.isfinite(self.error))
        return self.is_noise or bool(self.error <= TOLERANCE)


def zeroed(channels: Channels, dead: Iterable[int]) -> onnx.ModelProto:
    """The whole model with the weights of these channels set to zero, at both ends."""
    model, tracker = channels.labelled()
    cut = Cut(tracker, dead)
    for value in tracker.labels:
        if isinstance(value, Constant) and (cuts := cut.cuts(value)):
            filler = nothing(value)
            if filler is None:
                continue
            data = np.array(value.data)
            for axis, stays in cuts:
                view = np.moveaxis(data, axis, 0)
                view[~stays] = np.moveaxis(np.broadcast_to(filler, data.shape), axis, 0)[~stays]
            value.replace_data(data)
    return model.to_proto()


def prove(
    channels: Channels,
    dead: Iterable[int],
    feeds: Sequence[Mapping[str, Any]],
    groups: Iterable[ChannelGroup] = (),
) -> Proof:
    """Compare the zeroed model with the cut one on these inputs."""
    dead = frozenset(dead)
    touched = [g for g in groups or channels.groups if dead.intersection(g.units)]
    exact = all(group.exact for group in touched)
    whole, small = zeroed(channels, dead), channels.cut(dead)
    first, second = Session(whole), Session(small)
    worst = 0.0
    for feed in feeds:
        expected, found = first.run(feed), second.run(feed)
        worst = max([worst, *(relative_error(v, found[name]) for name, v in expected.items())])
    is_noise = exact and worst > TOLERANCE and within_noise(whole, small, feeds)
    return Proof(worst, exact, is_noise)


def within_noise(
    whole: onnx.ModelProto, small: onnx.ModelProto, feeds: Sequence[Mapping[str, Any]]
) -> bool:
    """No more than rounding does to the model; of a quantized one without its steps."""
    pairs = [(whole, small)]
    if (twin := smooth_twin(whole)) is not None and (other := smooth_twin(small)) is not None:
        pairs = [(twin, other)]
    for reference, candidate in pairs:
        session = Session(candidate)
        if not is_noise(reference, feeds, [session.run(feed) for feed in feeds]):
            return False
    return True


def is_noise(
    reference: onnx.ModelProto,
    feeds: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
) -> bool:
    """Whether these outputs differ from the model's own by no more than rounding does to it."""
    drawn = [Feed(dict(feed), "the proof") for feed in feeds]
    judge = Reference(reference, Session(reference), drawn)
    return all(
        difference.passes
        for index, outputs in enumerate(found)
        for difference in judge.compare(index, dict(outputs), "rounding", []).values()
    )


def relative_error(expected: Any, found: Any) -> float:
    """Largest difference relative to the largest element; infinite where more than that differs."""
    pairs = list(zip(leaves(expected), leaves(found), strict=False))
    if len(list(leaves(expected))) != len(list(leaves(found))):
        return float("inf")
    return max((_distance(a, b) for (_, a), (_, b) in pairs), default=0.0)


def _distance(expected: Array | None, found: Array | None) -> float:
    if expected is None or found is None:
        return 0.0 if expected is found else float("inf")
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind in "OUSb":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    if expected.size == 0:
        return 0.0
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    scale = float(np.abs(np.where(np.isfinite(a), a, 0)).max()) or 1.0
    worst = float(difference.max()) / scale
    return worst if np.isfinite(worst) else float("inf")
