"""Which of several ways to prune leaves the least error: each is carried out with some samples.

What single cuts do to a model says little of what many do together; the sum of expected damages
tells sets of residual blocks apart to within a tenth, and there are many such sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from statistics import pvariance
from typing import TypeAlias

from onnxopt.errors import UsageError
from onnxopt.pruning.agreement import batch_size
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.cache import Pieces
from onnxopt.pruning.rounds import Rounds
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.sensitivity import output_change
from onnxopt.pruning.stepper import Stepper

MOST_TRIED = 6
"""Entries that are carried out at most."""

MOST_FITTED = 512
"""Samples that an entry is pruned with at most, so that it takes less than the pruning itself."""

MOST_JUDGED = 1024
JUDGING = 4
"""One of so many batches at least only judges."""

PARTS, FEWEST_PARTS = 8, 4
"""Into so many parts of whole batches those that judge are divided: how the errors without each
differ tells how sure the difference of two entries is (jackknife). Fewer than the least tell
nothing."""

Entry: TypeAlias = Callable[[Rounds], bool]
"""Prunes the model of these rounds to its end; says whether that met the budget."""


@dataclass(frozen=True)
class Result:
    """What came of an entry.

    Attributes:
        missed: its budget.
        error: that it leaves on the samples that judge; None where nothing tells.
        without: the same without each part of these samples.
    """

    missed: bool
    error: float | None = None
    without: Sequence[float] = ()

    @property
    def order(self) -> tuple[bool, float]:
        """Less is better."""
        return self.missed, math.inf if self.error is None else self.error

    def is_as_good_as(self, best: Result) -> bool:
        """Whether it is known to be within one standard error of the best (paired, jackknife)."""
        if self.missed != best.missed or self.error is None or best.error is None:
            return False
        if not (self.without and best.without):
            return False
        worse = [a - b for a, b in zip(self.without, best.without, strict=True)]
        return self.error - best.error <= math.sqrt((len(worse) - 1) * pvariance(worse))


@dataclass(frozen=True)
class Contest:
    """What came of entries, by name, where several were carried out, and which one is taken."""

    winner: str
    results: Mapping[str, Result]


def least_error(
    entries: Mapping[str, Entry],
    first: str,
    begin: Callable[[Sequence[Batch], Tell], Rounds],
    batches: Sequence[Batch],
    saved: Pieces,
    tell: Tell,
    *,
    simplest_last: bool = False,
) -> Contest:
    """The entry that leaves the least error of those that meet the budget wins.

    If the last ones are the simplest, the last that cannot be told from it (the one-standard-error
    rule of Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).

    Each is carried out with some of the samples, and judged by others. If they are many, both ends
    are tried, and then what lies halfway between the best and those next to it.

    Args:
        entries: by name, in an order in which neighbours are alike; one may raise UsageError
            instead of missing its budget.
        first: the likeliest.
        begin: the model as it is, to be pruned with these batches.
        saved: where errors are kept.
        tell: is told what is being tried.
    """
    names = list(entries)
    if len(names) == 1:
        return Contest(first, {})
    fitted, judging = apart(batches)
    found: dict[int, Result] = {}
    while (place := _next(found, len(names), names.index(first))) is not None:
        name = names[place]
        if (piece := saved.get(name)) is None:

            def told(stage: str, done: float, said: str = name) -> None:
                tell(f"trying {said}: {stage}", done)

            piece = asdict(_carried_out(entries[name], begin(fitted, told), judging))
            saved.put(name, piece)
        found[place] = Result(**piece)
    best = min(found, key=lambda place: found[place].order)
    alike = [place for place in found if found[place].is_as_good_as(found[best])]
    winner = max([best, *alike]) if simplest_last else best
    return Contest(names[winner], {names[place]: found[place] for place in sorted(found)})


def _next(found: Mapping[int, Result], count: int, first: int) -> int | None:
    """The next place to try of so many; None if that is enough."""
    if len(found) >= MOST_TRIED:
        return None
    for place in (first, 0, count - 1):
        if place not in found:
            return place
    best = min(found, key=lambda place: found[place].order)
    below = max((place for place in found if place < best), default=best)
    above = min((place for place in found if place > best), default=best)
    gap, place = max((best - below, (best + below) // 2), (above - best, (best + above) // 2))
    return place if gap > 1 else None


def apart(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Some batches to prune with, and others to judge by; the same where there is only one."""
    count = len(batches) - -(-len(batches) // JUDGING) if len(batches) > 1 else 1
    fitted = _first(batches[:count], MOST_FITTED)
    return fitted, _first(batches[len(fitted) :] or batches, MOST_JUDGED)


def _first(batches: Sequence[Batch], most: int) -> list[Batch]:
    """As many of the first batches as hold no more samples than that, but one at least."""
    totals = accumulate(batch_size(batch) for batch in batches)
    return [
        batch
        for n, (batch, total) in enumerate(zip(batches, totals, strict=True))
        if not n or total <= most
    ]


def _carried_out(entry: Entry, rounds: Rounds, judging: Sequence[Batch]) -> Result:
    """Prune by an entry, and see whether that meets the budget and how it changes the outputs."""
    try:
        is_met = entry(rounds)
    except UsageError:
        return Result(missed=True)
    reference = Stepper(rounds.base, judging, threads=1).finish()
    found = Stepper(rounds.pruned, judging, threads=1).finish()
    both = min(len(reference), len(found))  # not all are held where values are large
    parts = range(min(PARTS, both)) if both >= FEWEST_PARTS else ()
    rests = [[i for i in range(both) if i % len(parts) != part] for part in parts]
    error, *without = [
        output_change([reference[i] for i in some], [found[i] for i in some])
        for some in (range(both), *rests)
    ]
    known = [each for each in without if each is not None]
    return Result(not is_met, error, known if len(known) == len(without) else ())
