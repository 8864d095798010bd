"""Time two models side by side: runs that take turns in one process, so both meet one noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, TypeAlias

Run: TypeAlias = Callable[[Mapping[str, Any]], object]

SHORTEST_S = 0.002
"""What is timed at once takes at least so long; faster models run several times for it."""

FEWEST_PAIRS = 5
MOST_PAIRS = 200


@dataclass(frozen=True)
class Timing:
    """Times of one run of each model, and of the second as a share of the first.

    Attributes:
        first_ms, second_ms: medians.
        ratio, low, high: median and quartiles over the pairs of runs of second / first.
        batch: samples in one run.
    """

    first_ms: float
    second_ms: float
    ratio: float
    low: float
    high: float
    pairs: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return (
            f"{self.first_ms:.3g} ms -> {self.second_ms:.3g} ms, {self.ratio:.2f} times "
            f"(quartiles {self.low:.2f} to {self.high:.2f} of {self.pairs} interleaved pairs, "
            f"{self.threads} thread{'s' if self.threads > 1 else ''}, batch {self.batch})"
        )


def side_by_side(
    first: Run,
    second: Run,
    feeds: Mapping[str, Any],
    *,
    threads: int,
    batch: int,
    seconds: float = 2.5,
) -> Timing:
    """Run both in turns for about so long, the order changing from pair to pair."""
    once = max(_seconds(first, feeds, 1), _seconds(second, feeds, 1))  # also warms both up
    once = max(min(once, _seconds(first, feeds, 1)), 1e-7)
    repeats = max(1, round(SHORTEST_S / once))
    pairs = int(seconds / (2 * once * repeats))
    pairs = min(max(pairs, FEWEST_PAIRS), MOST_PAIRS)
    left: list[float] = []
    right: list[float] = []
    for number in range(pairs):
        if number % 2:
            right.append(_seconds(second, feeds, repeats))
            left.append(_seconds(first, feeds, repeats))
        else:
            left.append(_seconds(first, feeds, repeats))
            right.append(_seconds(second, feeds, repeats))
    ratios = [b / a for a, b in zip(left, right, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return Timing(
        1000 * median(left), 1000 * median(right), middle, low, high, pairs, threads, batch
    )


def _seconds(run: Run, feeds: Mapping[str, Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run(feeds)
    return (time.perf_counter() - start) / repeats
