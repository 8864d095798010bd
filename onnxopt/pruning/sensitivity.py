"""What a cut of one group does to the outputs of the whole model, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from onnxopt.graph import Array
from onnxopt.pruning.cache import NOWHERE, Pieces
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.statistics import Ranking
from onnxopt.pruning.stepper import Stepper
from onnxopt.pruning.threads import one_thread
from onnxopt.pruning.trials import Couple, Turned
from onnxopt.pruning.workers import in_order

SAMPLES = 192
"""Samples on which the outputs are compared (design, 5)."""

LASTING = 3.0
"""What a cut counts more that several layers see. An error inside a residual block is part of the
sum that later blocks are refitted to, so they repair some of it; what the blocks hand on to each
other is gone for all. On ResNet-20 at half its FLOPs, judged by calibration samples that took no
part, 3 and 10 leave 8 % less error in the logits than 1."""

REPAIRED = 0.75
"""What is repaired of a cut at the very start of the model, as a logarithm; at its end nothing is.
Each cut is measured alone, without the refits of the layers after it, which repair a part of it:
the more, the more of them there are. Judged by the error of the logits on calibration samples that
took no part: a ResNet-56 at 0.4 of its FLOPs is best with 0.5 and has 1 % more with this, 2 % more
with 1 and 4 % more with 0; a ResNet-20 at a half is best with 1, and has 2 % more with this."""

GREAT = 100.0
"""What an element counts that is no longer finite, in variances of its output. One that is lost
altogether but stays finite counts about 1."""


@one_thread
def factors(
    proto: onnx.ModelProto,
    rankings: Sequence[Ranking],
    batches: Sequence[Batch],
    *,
    is_repaired: bool = False,
    couples: Mapping[int, Couple] = MappingProxyType({}),
    workers: int = 1,
    saved: Pieces = NOWHERE,
    tell: Callable[[float], None] = lambda done: None,
) -> list[float | None]:
    """What each group's cut does to the outputs, by the group's own error.

    Each group is cut alone by several shares, with its readers refitted, and the nodes from these
    readers on run again. Groups whose error is a guess are not cut.

    Args:
        rankings: one for each group, in the order of the model.
        is_repaired: the layers after a cut will be refitted.
        couples: of groups, by number, whose two layers will be refitted in turns.
        saved: where factors of groups are kept.
        tell: is told how much is done, 0 to 1.

    Returns:
        for each group the share of the outputs' variance that is lost by unit of its own error;
        None where nothing tells: it was not cut, or no output shows what that does.
    """
    batches = some(batches)
    cut = [i for i, ranking in enumerate(rankings) if ranking.trials]
    kept = {i: piece for i in cut if (piece := saved.get(f"{i:04d}")) is not None}
    missing = [i for i in cut if i not in kept]
    found = [kept[i]["factor"] if i in kept else None for i in range(len(rankings))]
    if missing:
        reference = Stepper(proto, batches, threads=1).finish()

        def factor(piece: tuple[int, Stepper]) -> tuple[int, float | None]:
            number, stepper = piece
            couple = couples.get(number)
            turned = None if couple is None else Turned(couple, stepper)
            return number, _factor(stepper, rankings[number], reference, turned)

        places = _places(proto, rankings, couples)
        halts = (halt for halt in _halts(proto, batches, places) if halt[0] not in kept)
        for done, (number, found[number]) in enumerate(in_order(factor, halts, workers), len(kept)):
            saved.put(f"{number:04d}", {"factor": found[number]})
            tell((done + 1) / len(cut))
    if not is_repaired:
        return found
    nodes = max(len(proto.graph.node), 1)
    return [
        None
        if factor is None
        else factor * math.exp(-REPAIRED * (1 - _place(proto, ranking) / nodes))
        for factor, ranking in zip(found, rankings, strict=True)
    ]


def damages(rankings: Sequence[Ranking], known: Sequence[float | None]) -> list[Array]:
    """For each group the expected damage [units + 1] to the outputs when so many units are gone.

    In proportion to the group's own error curve. A group whose factor is not known gets the
    largest of the others, and 1, the curve itself, if there is none.

    Args:
        known: the groups' factors.
    """
    worst = max((f for f in known if f is not None), default=1.0)
    return [
        ranking.curve * (worst if factor is None else factor) * _lasting(ranking)
        for ranking, factor in zip(rankings, known, strict=True)
    ]


def _lasting(ranking: Ranking) -> float:
    return LASTING if ranking.readers > 1 else 1.0


def _halts(
    proto: onnx.ModelProto, batches: Sequence[Batch], places: Mapping[int, int]
) -> Iterator[tuple[int, Stepper]]:
    """The number of each group that is cut, and the model at its place; in the model's order.

    One walk through the model serves all. It halts at every group, whoever takes what it gives:
    where it halts is in the last bits.
    """
    stepper = Stepper(proto, batches, threads=1)
    for number in sorted(places, key=lambda i: places[i]):
        stepper.advance(places[number])
        yield number, stepper.halted()


def _places(
    proto: onnx.ModelProto, rankings: Sequence[Ranking], couples: Mapping[int, Couple]
) -> dict[int, int]:
    """For each group that is cut the first node whose weights its trials change."""
    made = {name: place for place, node in enumerate(proto.graph.node) for name in node.output}
    return {
        number: made[couples[number].first.node] if number in couples else _place(proto, ranking)
        for number, ranking in enumerate(rankings)
        if ranking.trials
    }


def some(batches: Sequence[Batch]) -> list[Batch]:
    """The first of these batches, with as many samples as outputs are compared on."""
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


def _factor(
    stepper: Stepper,
    ranking: Ranking,
    reference: Sequence[Mapping[str, Array]],
    turned: Turned | None = None,
) -> float | None:
    """The outputs' change by the group's own error, by least squares over the trials.

    One factor for the whole curve: measured widths are not interpolated, since what is lost by a
    deep cut alone levels off, and would make deep cuts of several groups look cheap together.
    None where no trial can be judged by the outputs.
    """
    lost, own = 0.0, 0.0
    for number, (gone, trial) in enumerate(zip(ranking.tried, ranking.trials, strict=True)):
        changed = trial if turned is None else turned.weights(number, trial)
        found = stepper.finish(changed=changed)
        both = min(len(reference), len(found))  # not all are held where values are large
        change = output_change(reference[:both], found[:both])
        if change is None:
            continue
        error = float(ranking.curve[len(gone)])
        lost += change * error
        own += error * error
    factor = lost / own if own > 0 else None
    return factor if factor is not None and np.isfinite(factor) else None


def output_change(
    reference: Sequence[Mapping[str, Array]], found: Sequence[Mapping[str, Array]]
) -> float | None:
    """Squared change of the outputs as a share of their variance, the mean over the outputs.

    Elements are compared that are finite in both; one that is finite in the reference alone counts
    as GREAT. Outputs that are not floats, have other shapes now or are nowhere finite are left out.

    Args:
        reference, found: for each batch the outputs by name, in the same order.

    Returns:
        None where no output can be compared, or where only such ones changed as cannot be.
    """
    changes: list[float] = []
    others_change = False
    for name in reference[0]:
        expected, given = [b[name] for b in reference], [b[name] for b in found]
        change = _change(expected, given)
        if change is not None:
            changes.append(change)
        elif not others_change:
            pairs = zip(expected, given, strict=True)
            others_change = any(not _same(a, b) for a, b in pairs)
    if not any(changes) and (others_change or not changes):
        return None
    return float(np.mean(changes))


def _change(reference: Sequence[Array], found: Sequence[Array]) -> float | None:
    """The same for one output; None if it cannot be compared."""
    if not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in reference):
        return None
    if any(a.shape != b.shape for a, b in zip(reference, found, strict=True)):
        return None
    count, total = 0, 0.0
    for a in reference:
        known = a[np.isfinite(a)]
        count, total = count + known.size, total + float(known.sum(dtype=np.float64))
    if not count:
        return None
    squares, spread, lost = 0.0, 0.0, 0
    for a, b in zip(reference, found, strict=True):  # one batch at a time: outputs may be images
        finite = np.isfinite(a)
        expected, given = a[finite].astype(np.float64), b[finite].astype(np.float64)
        stays = np.isfinite(given)
        squares += float(np.square(expected[stays] - given[stays]).sum())
        spread += float(np.square(expected - total / count).sum())
        lost += int(np.count_nonzero(~stays))
    return (squares / spread if spread > 0 else squares) + GREAT * (lost / count)


def _same(a: Any, b: Any) -> bool:
    """Whether two values of an output are the same: arrays, lists of them, or what else it is."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if not isinstance(a, np.ndarray):
        return bool(a == b)
    return a.shape == np.shape(b) and a.tobytes() == np.asarray(b).tobytes()
