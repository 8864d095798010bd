"""Many times of one thing in a few numbers, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from onnxopt.profiling.document import Noise, Spread

LARGEST_SPREAD = 0.10
"""The quartiles of a model's times by its own times may be so far apart, and so far from 1."""

LARGEST_TAKEN_SHARE = 0.05
"""Of the time of one run with one thread, others may have had so much of the processor."""

LARGEST_TAKEN_IN_ALL = 0.3
"""Of all such runs: where others work that much, caches and memory are theirs too."""

FEWEST = 5


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    low, high = quartiles(values)
    return Spread(median(values), low, high, len(values))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def undisturbed(values: Sequence[float]) -> float:
    """Mean of the faster half: others only ever make a kernel slower.

    A mean, for ONNX Runtime's profiler counts whole microseconds.
    """
    ordered = sorted(values)
    kept = ordered[: (len(ordered) + 1) // 2]
    return sum(kept) / len(kept)


@dataclass(frozen=True)
class Run:
    """One timed run: seconds on the wall, and seconds that the processor worked for us."""

    wall: float
    processor: float

    @property
    def taken_share(self) -> float:
        """Of its time, what the processor did for others; below zero with several threads."""
        return 1 - self.processor / self.wall if self.wall > 0 else 0.0


@dataclass(frozen=True)
class Judged:
    """The seconds of the runs that count, and what all of them say about the machine."""

    seconds: tuple[float, ...]
    noise: Noise


def judge(pairs: Sequence[tuple[Run, Run]], *, threads: int) -> Judged:
    """Judge a machine by pairs of runs of the same thing, one right after the other.

    With one thread, a run during which others had the processor is known by that: its clock went
    on and its processor time did not. Such runs are left out; of the others, or of the calmest,
    five stay at least.
    """
    runs = [run for pair in pairs for run in pair]
    taken, compared = None, list(pairs)
    if threads == 1:
        wall = sum(run.wall for run in runs)
        taken = max(0.0, 1 - sum(run.processor for run in runs) / wall) if wall > 0 else 0.0
        calm = [pair for pair in pairs if max(map(_taken, pair)) <= LARGEST_TAKEN_SHARE]
        compared = calm if len(calm) >= FEWEST else compared
    kept = calmest(runs) if threads == 1 else runs
    low, high = quartiles([second.wall / first.wall for first, second in compared])
    drift = _drift([first.wall for first, _ in compared])
    why = _against(low, high, len(pairs), taken, drift)
    noise = Noise(low, high, taken, len(runs) - len(kept), not why, why)
    return Judged(tuple(run.wall for run in kept), noise)


def calmest(runs: Sequence[Run]) -> list[Run]:
    """Those during which others had next to nothing of the processor, but at least five."""
    calm = [run for run in runs if run.taken_share <= LARGEST_TAKEN_SHARE]
    return calm if len(calm) >= FEWEST else sorted(runs, key=_taken)[:FEWEST]


def _drift(seconds: Sequence[float]) -> float:
    """The second half by the first."""
    half = len(seconds) // 2
    return median(seconds[half:]) / median(seconds[:half]) if half else 1.0


def _taken(run: Run) -> float:
    return run.taken_share


def _against(low: float, high: float, pairs: int, taken_share: float | None, drift: float) -> str:
    against = []
    if pairs < FEWEST:
        against.append(f"there were only {pairs} rounds")
    if max(high - low, low - 1, 1 - high) > LARGEST_SPREAD:
        against.append(
            f"the same model against itself took between {low:.2f} and {high:.2f} times as long"
        )
    if abs(drift - 1) > LARGEST_SPREAD:
        against.append(f"the second half of the runs took {drift:.2f} times as long as the first")
    if taken_share is not None and taken_share > LARGEST_TAKEN_IN_ALL:
        against.append(f"other work took {taken_share:.0%} of the processor's time")
    return "; ".join(against)
