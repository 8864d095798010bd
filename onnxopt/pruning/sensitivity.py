"""What a cut of one group does to the outputs of the whole model, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnxopt.graph import Array
from onnxopt.pruning.cache import NOWHERE, Pieces
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.statistics import SENSITIVITY_CUTS, Ranking
from onnxopt.pruning.stepper import Stepper
from onnxopt.pruning.threads import one_thread
from onnxopt.pruning.workers import in_order

SAMPLES = 192
"""Samples on which the outputs are compared (design, 5)."""

LASTING = 3.0
"""What a cut counts more that several layers see. An error inside a residual block is part of the
sum that later blocks are refitted to, so they repair some of it; what the blocks hand on to each
other is gone for all. On ResNet-20 at half its FLOPs, judged by calibration samples that took no
part, 3 and 10 leave 8 % less error in the logits than 1."""


@one_thread
def damages(
    proto: onnx.ModelProto,
    rankings: Sequence[Ranking],
    batches: Sequence[Batch],
    *,
    workers: int = 1,
    saved: Pieces = NOWHERE,
    tell: Callable[[float], None] = lambda done: None,
) -> list[Array]:
    """What each group's cut does to the outputs: the share of their variance that is lost.

    Each group is cut alone by several shares, with its readers refitted, and the nodes from these
    readers on run again. The damage is in proportion to the group's own error curve.
    Groups whose error is a guess are not cut: they get the largest factor of the others.

    Args:
        rankings: one for each group, in the order of the model.
        saved: where factors of groups are kept.
        tell: is told how much is done, 0 to 1.

    Returns:
        for each group [units + 1] the damage when so many units are gone.
    """
    batches = _some(batches)
    cut = [i for i, ranking in enumerate(rankings) if ranking.trials]
    kept = {i: piece for i in cut if (piece := saved.get(f"{i:04d}")) is not None}
    missing = [i for i in cut if i not in kept]
    found = [kept[i]["factor"] if i in kept else None for i in range(len(rankings))]
    if missing:
        reference = Stepper(proto, batches, threads=1).finish()

        def factor(piece: tuple[int, Stepper]) -> tuple[int, float]:
            number, stepper = piece
            return number, _factor(stepper, rankings[number], reference)

        halts = (halt for halt in _halts(proto, batches, rankings) if halt[0] not in kept)
        for done, (number, found[number]) in enumerate(in_order(factor, halts, workers), len(kept)):
            saved.put(f"{number:04d}", {"factor": found[number]})
            tell((done + 1) / len(cut))
    worst = max((f for f in found if f is not None), default=1.0)
    return [
        ranking.curve * (worst if factor is None else factor) * _lasting(ranking)
        for ranking, factor in zip(rankings, found, strict=True)
    ]


def _lasting(ranking: Ranking) -> float:
    return LASTING if ranking.readers > 1 else 1.0


def _halts(
    proto: onnx.ModelProto, batches: Sequence[Batch], rankings: Sequence[Ranking]
) -> Iterator[tuple[int, Stepper]]:
    """The number of each group that is cut, and the model at its readers; in the model's order.

    One walk through the model serves all. It halts at every group, whoever takes what it gives:
    where it halts is in the last bits.
    """
    stepper = Stepper(proto, batches, threads=1)
    places = {i: _place(proto, r) for i, r in enumerate(rankings) if r.trials}
    for number in sorted(places, key=lambda i: places[i]):
        stepper.advance(places[number])
        yield number, stepper.halted()


def _some(batches: Sequence[Batch]) -> list[Batch]:
    chosen: list[Batch] = []
    count = 0
    for batch in batches:
        if count >= SAMPLES:
            break
        chosen.append(batch)
        count += len(next(iter(batch.values())))
    return chosen


def _place(proto: onnx.ModelProto, ranking: Ranking) -> int:
    """The first node that reads a weight which a trial changes."""
    changed = {name for trial in ranking.trials for name in trial}
    nodes = enumerate(proto.graph.node)
    return next((i for i, node in nodes if changed.intersection(node.input)), 0)


def _factor(stepper: Stepper, ranking: Ranking, reference: Sequence[Mapping[str, Array]]) -> float:
    """The outputs' change by the group's own error, by least squares over the trials.

    One factor for the whole curve: measured widths are not interpolated, since what is lost by a
    deep cut alone levels off, and would make deep cuts of several groups look cheap together.
    """
    units = len(ranking.order)
    lost, own = 0.0, 0.0
    for share, trial in zip(SENSITIVITY_CUTS, ranking.trials, strict=True):
        change = output_change(reference, stepper.finish(changed=trial))
        error = float(ranking.curve[round(share * units)])
        lost += change * error
        own += error * error
    return lost / own if own > 0 else 0.0


def output_change(
    reference: Sequence[Mapping[str, Array]], found: Sequence[Mapping[str, Array]]
) -> float:
    """Squared change of the outputs as a share of their variance, the mean over the outputs.

    Args:
        reference, found: for each batch the outputs by name, in the same order.
    """
    changes = []
    for name, first in reference[0].items():
        if not hasattr(first, "dtype") or first.dtype.kind != "f" or not first.size:
            continue
        expected = [np.asarray(batch[name], np.float64) for batch in reference]
        given = [np.asarray(batch[name], np.float64) for batch in found]
        if any(a.shape != b.shape for a, b in zip(expected, given, strict=True)):
            return float("inf")
        squares = sum(float(np.square(a - b).sum()) for a, b in zip(expected, given, strict=True))
        count = sum(a.size for a in expected)
        mean = sum(float(a.sum()) for a in expected) / count
        spread = sum(float(np.square(a - mean).sum()) for a in expected)
        changes.append(squares / spread if spread > 0 else squares)
    return float(np.mean(changes)) if changes else 0.0
