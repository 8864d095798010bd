"""The candidates that are best somewhere in a box of conditions; and chains of few cuts of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from onnxopt.splitting.candidates import Candidates
from onnxopt.splitting.context import Box, Context
from onnxopt.splitting.enumeration import Floats
from onnxopt.splitting.pareto import Ints, front

BANDWIDTHS = 25
"""So many bandwidths, evenly in logarithms, and of all else both ends and the middle, are looked at
where a regret is told."""

MOST_CHOICES = 20_000
"""Chains are chosen among all there are, unless there are more than these."""


def survivors(found: Candidates, box: Box, allowed: Ints) -> Ints:
    """What may be best in the box: no other one is at least as good at all of its corners.

    Times are linear in each of the conditions, so what is at least as good at all corners is so
    everywhere inside: the best of the survivors is the best of all, anywhere in the box.

    Args:
        allowed: numbers of the candidates that may be chosen.

    Returns:
        numbers of candidates, from least to most on the device.
    """
    corners = np.stack([found.latency_s(corner)[allowed] for corner in box.corners()], axis=1)
    kept = allowed[front(corners)]
    return np.array(by_device(found, kept), np.int64)


def _conditions(found: Candidates, box: Box, numbers: Sequence[int]) -> tuple[Context, ...]:
    """Conditions all over the box: bandwidths evenly, and those where two candidates are equal.

    Along the bandwidth a regret is largest at one of these or at an end: between them both times
    are linear in 1 / bandwidth, and so their ratio rises or falls throughout.
    """
    low, high = box.least, box.most
    rates = sorted({low.seconds_per_byte, high.seconds_per_byte})
    even = np.geomspace(rates[0], rates[-1], BANDWIDTHS if len(rates) > 1 else 1)
    others = product(
        _ends_and_middle(low.rtt_s, high.rtt_s),
        _ends_and_middle(low.device_load, high.device_load),
        _ends_and_middle(low.edge_load, high.edge_load),
    )
    chosen = np.array(numbers)
    moved = (found.sent + found.back)[chosen]
    contexts = []
    for rest in others:
        fixed = found.latency_s(Context(8.0, *rest))[chosen] - moved
        with np.errstate(divide="ignore", invalid="ignore"):
            equal = (fixed[:, None] - fixed) / (moved - moved[:, None])
        inside = equal[(equal > rates[0]) & (equal < rates[-1])]
        for rate in sorted({*map(float, even), *map(float, inside)}):
            contexts.append(Context(8 / rate, *rest))
    return tuple(contexts)


def _ends_and_middle(first: float, last: float) -> list[float]:
    return sorted({first, (first + last) / 2, last})


@dataclass(frozen=True)
class Chain:
    """Cuts that a model can be cut at once.

    Attributes:
        numbers: of candidates, from least to most on the device.
        regret: most that the best of these takes longer than the best of all, as a share; exact
            along the bandwidth, where other conditions vary at their ends and in the middle.
        mean_regret: on average over what was looked at.
    """

    numbers: tuple[int, ...]
    regret: float
    mean_regret: float


def best_chain(
    found: Candidates, box: Box, best: Ints, ends: Sequence[int], most: int, always: Sequence[int]
) -> Chain:
    """At most so many of the survivors, each with all that the ones before it have on the device.

    Least regret wins, then the least on average, then fewer cuts.

    Args:
        best: survivors.
        ends: what is there anyway: candidates with nothing or all on the device, where allowed.
        always: candidates that the chain must have.
    """
    contexts = _conditions(found, box, [*dict.fromkeys((*map(int, best), *ends, *always))])
    times = np.stack([found.latency_s(context) for context in contexts], axis=1)
    optimum = times[best].min(axis=0)
    bound = times[list(ends)].min(axis=0) if ends else np.full(len(contexts), np.inf)
    inner = [int(i) for i in best if i not in ends and 0 < found.cut[i] != found.cuts.whole]
    inner = _fewer(inner, times, most)
    tried = [_judge((), bound, optimum)] if not always else []
    for chosen in _chains(found, by_device(found, {*inner, *always}), most):
        if set(always) <= set(chosen):
            reached = np.minimum(bound, times[list(chosen)].min(axis=0))
            tried.append(_judge(chosen, reached, optimum))
    return min(tried, key=lambda c: (round(c.regret, 9), round(c.mean_regret, 9), len(c.numbers)))


def _judge(chosen: tuple[int, ...], reached: Floats, optimum: Floats) -> Chain:
    regret = reached / optimum - 1
    return Chain(chosen, float(regret.max()), float(regret.mean()))


def _fewer(inner: list[int], times: Floats, most: int) -> list[int]:
    """Those that are best in most conditions, so few that all their chains can be tried."""
    count = len(inner)
    while count > 1 and sum(_choose(count, size) for size in range(1, most + 1)) > MOST_CHOICES:
        count -= 1
    if not inner:
        return []
    wins = np.bincount(times[inner].argmin(axis=0), minlength=len(inner))
    ranked = sorted(range(len(inner)), key=lambda place: (-wins[place], place))[:count]
    return [inner[place] for place in sorted(ranked)]


def _choose(count: int, size: int) -> int:
    found = 1
    for step in range(min(size, count)):
        found = found * (count - step) // (step + 1)
    return found if size <= count else 0


def by_device(found: Candidates, numbers: Iterable[int]) -> list[int]:
    """Candidates, from least to most on the device."""
    return sorted(map(int, numbers), key=lambda i: (found.cuts.device[found.cut[i]].bit_count(), i))


def _chains(
    found: Candidates, inner: Sequence[int], most: int, start: tuple[int, ...] = ()
) -> Iterator[tuple[int, ...]]:
    """All chains of at most so many: each cut has the one before it inside."""
    for place, number in enumerate(inner if most > 0 else ()):
        device = found.cuts.device[found.cut[number]]
        if start:
            before = found.cuts.device[found.cut[start[-1]]]
            if before & ~device or before == device:
                continue
        chain = (*start, number)
        yield chain
        yield from _chains(found, inner[place + 1 :], most - 1, chain)
