"""Time models beside the original in the same turns, leaving out runs that others disturbed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np
import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.profiler import profile_model
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Profile
from onnxopt.profiling.feeds import write_feeds
from onnxopt.profiling.spread import FEWEST, LARGEST_TAKEN_SHARE, Run, quartiles
from onnxopt.profiling.turns import Clock, Turn, take_turns
from onnxopt.pruning.samples import Batch
from onnxopt.runtime import Session
from onnxopt.timing import Timing

THREADS = 1
SECONDS = 5.0
"""For which two models take turns; at least seven rounds."""

SHORTEST_S = 0.002
"""Each runs so long before it is timed, and while it is."""

PARTS = 10
"""Into which the runs of two models are dealt out, to tell how their ratio spreads."""

Tell: TypeAlias = Callable[[str, float], None]
Profiling: TypeAlias = "Callable[[onnx.ModelProto, Batch, Tell], Profile]"
Against: TypeAlias = "Callable[[onnx.ModelProto, onnx.ModelProto, Batch], Timing]"


def profiled(proto: onnx.ModelProto, feeds: Batch, tell: Tell) -> Profile:
    """Measure a model and its layers at several widths, here and with these inputs."""
    with tempfile.TemporaryDirectory(prefix="onnxopt-feeds-") as temporary:
        file = Path(temporary) / "feeds.npz"
        write_feeds(file, feeds)
        asked = Asked(threads=THREADS, inputs=file)
        try:
            return profile_model(proto, asked, source="the model", widths=True, progress=tell)
        except OnnxoptError as error:
            fix = "a budget of --flops needs no measuring"
            raise type(error)(f"the model cannot be profiled: {error.what}", fix) from error


def against(
    original: onnx.ModelProto,
    other: onnx.ModelProto,
    feeds: Batch,
    clock: Clock | None = None,
    seconds: float = SECONDS,
) -> Timing:
    """Both in turns, the order changing from turn to turn."""
    first = Session(original, optimized=True, threads=THREADS)
    second = Session(other, optimized=True, threads=THREADS)

    def turn(session: Session) -> Turn:
        def run() -> None:
            session.run(feeds)

        return Turn(run, repeats=0, shortest_s=SHORTEST_S)

    order = [turn(session) for session in (first, first, second, second, second, first)]
    take_turns(order, seconds, clock or Clock(), lambda done: None)
    _, one, _, two, two_again, one_again = order
    pairs = [*zip(one.runs, two.runs, strict=True)]
    pairs += zip(one_again.runs, two_again.runs, strict=True)
    batch = max((len(array) for array in feeds.values() if np.ndim(array)), default=1)
    return timing_of(pairs, batch)


def timing_of(pairs: Sequence[tuple[Run, Run]], batch: int) -> Timing:
    """What is left of runs of two models, one right after the other.

    Pairs in which others had the processor for a part of either do not count, unless hardly any
    is left: then the calmest. The others are dealt out to several parts, so that each has some of
    every time. Of each part the fastest tenth of the runs of either model counts, as others only
    ever make runs slower; the ratio is the median over the parts, and its spread their quartiles.
    """

    def taken(pair: tuple[Run, Run]) -> float:
        return max(run.taken_share for run in pair)

    calm = [pair for pair in pairs if taken(pair) <= LARGEST_TAKEN_SHARE]
    kept = calm if len(calm) >= FEWEST else sorted(pairs, key=taken)[:FEWEST]
    count = min(PARTS, len(kept) // FEWEST)
    parts = [kept[number::count] for number in range(count)]
    sides = [[_fastest([pair[side].wall for pair in part]) for part in parts] for side in (0, 1)]
    ratios = [second / first for first, second in zip(*sides, strict=True)]
    low, high = quartiles(ratios)
    one, two = (1000 * median(side) for side in sides)
    return Timing(one, two, median(ratios), low, high, len(kept), THREADS, batch)


def _fastest(seconds: Sequence[float]) -> float:
    """Mean of the fastest tenth."""
    kept = sorted(seconds)[: -(-len(seconds) // 10)]
    return sum(kept) / len(kept)


@dataclass(frozen=True)
class Stopwatch:
    """How models are timed: a profile of one, and one against another. Tests give their own."""

    profile: Profiling = profiled
    against: Against = against


HERE = Stopwatch()
