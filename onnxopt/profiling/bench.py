"""A model on the bench: its sessions, beside those of small models, run in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.profiling.events import Traced, read_trace
from onnxopt.profiling.feeds import Array, drawn, input_shapes, read_feeds
from onnxopt.profiling.sessions import CPU, Measured, MeasureError
from onnxopt.profiling.smallest import INPUT, chain
from onnxopt.profiling.spread import Run
from onnxopt.profiling.turns import MOST_ROUNDS, RUNS_BEFORE, Clock, Turn, take_turns

MOST_EVENTS = 60_000
"""Kernels that are watched in the model: ONNX Runtime drops what is beyond a million events."""

SHORT_CHAIN, LONG_CHAIN = 8, 48

ONE = {INPUT: np.ones(1, np.float32)}

WATCHED = 4
"""Runs in each turn of what the profiler watches; the first of them does not count."""

SLOW_S = 0.02
"""What takes longer runs twice in each turn: the caches are small beside it."""

WARM_UP_S = 0.01
"""The model runs for so long before it is timed, as it would in a steady state."""

STARTS = 5
STARTS_PATIENCE_S = 4.0
"""The model is loaded so often, unless that takes longer; at least twice."""


@dataclass(frozen=True)
class Asked:
    """How to measure.

    Attributes:
        threads: inside one operator.
        batch: for the first dimension of every input without a shape of its own.
        shapes: of inputs, by name.
        inputs: a .npz file with arrays to feed instead of drawn ones.
        seconds: for the turns; what takes longer gets seven rounds all the same.
    """

    threads: int = 1
    provider: str = CPU
    batch: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: Path | None = None
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.threads < 1 or (self.batch is not None and self.batch < 1):
            raise UsageError("threads and batch are at least 1")
        if not 0 < self.seconds < float("inf"):
            raise UsageError("the seconds to measure for are above 0")


@dataclass
class Record:
    """What the turns gave.

    Attributes:
        pairs: runs of the model, twice in each round.
        short, long: seconds of the chains of smallest kernels.
        smallest, model: what the profiler saw in the longer chain and in the model.
    """

    pairs: list[tuple[Run, Run]] = field(default_factory=list)
    short: list[float] = field(default_factory=list)
    long: list[float] = field(default_factory=list)
    smallest: list[Traced] = field(default_factory=list)
    model: list[Traced] = field(default_factory=list)
    rounds: int = 0


class Bench:
    """One model, ready to be measured.

    Args:
        folder: a temporary one, for what is written on the way.

    Raises:
        UsageError: shapes or inputs that do not fit the model.
        MeasureError: ONNX Runtime does not load or run it.
    """

    def __init__(
        self, model: Path, asked: Asked, shapes: Mapping[str, tuple[int, ...]], folder: Path
    ) -> None:
        self.model, self.folder, self.asked = model, folder, asked
        inputs = self._session(model).inputs
        if asked.inputs is None:
            self.shapes = input_shapes(inputs, {**shapes, **asked.shapes}, asked.batch)
            self.feeds = drawn(inputs, self.shapes)
        else:
            self.feeds = read_feeds(asked.inputs, inputs)
            self.shapes = {name: array.shape for name, array in self.feeds.items()}
        self.record = Record()

    def _session(self, model: Path, *, trace: str = "") -> Measured:
        return Measured(
            model,
            threads=self.asked.threads,
            provider=self.asked.provider,
            trace=self.folder / trace if trace else None,
        )

    def start(self, clock: Clock) -> tuple[list[float], list[float]]:
        """Load it several times.

        Returns:
            seconds that loading took, and that the first run took.
        """
        loads: list[float] = []
        firsts: list[float] = []
        begin = clock.wall()
        while len(loads) < 2 or (len(loads) < STARTS and clock.wall() - begin < STARTS_PATIENCE_S):
            start = clock.wall()
            session = self._session(self.model)
            loaded = clock.wall()
            session.run(self.feeds)
            firsts.append(clock.wall() - loaded)
            loads.append(loaded - start)
        return loads, firsts

    def turns(
        self,
        small: Sequence[Path],
        seconds: float,
        clock: Clock,
        progress: Callable[[float], None],
        beside: Sequence[Turn] = (),
    ) -> list[list[Traced]]:
        """Run the model, itself again, the smallest kernels and small models in turns.

        Returns:
            what the profiler saw in each of the small models, the warm-up left out; nothing for
            one that does not load or run here.
        """
        plain = self._session(self.model)
        short, long = self._chain(SHORT_CHAIN), self._chain(LONG_CHAIN)
        smallest = _watched(self._session(long, trace="chain"), ONE, clock)
        warm_up = Turn(lambda: plain.run(self.feeds), repeats=0, shortest_s=WARM_UP_S)
        first, second = (Turn(lambda: plain.run(self.feeds), repeats=0) for _ in range(2))
        rounds = max(4, MOST_EVENTS // (WATCHED * self._kernels()))
        model = _watched(self._session(self.model, trace="model"), self.feeds, clock, rounds)
        chains = [Turn(self._run_chain(file), repeats=0) for file in (short, long)]
        others = [self._small(file, number, clock) for number, file in enumerate(small)]
        all_turns = [
            *(warm_up, first, second, model.turn, *chains, smallest.turn),
            *(other.turn for other in others if other is not None),
            *beside,
        ]
        record = self.record
        record.rounds += take_turns(all_turns, seconds, clock, progress)
        record.pairs += zip(first.runs, second.runs, strict=True)
        record.short += [run.wall for run in chains[0].runs]
        record.long += [run.wall for run in chains[1].runs]
        record.smallest += smallest.seen()
        record.model = _joined(record.model, model.seen())
        return [[] if other is None else other.seen() for other in others]

    def _run_chain(self, file: Path) -> Callable[[], None]:
        session = self._session(file)
        return lambda: session.run(ONE)

    def _chain(self, length: int) -> Path:
        file = self.folder / f"chain{length}.onnx"
        file.write_bytes(chain(length))
        return file

    def _kernels(self) -> int:
        """How many kernels one run has, one at least."""
        if self.record.model:
            return len(self.record.model)
        session = self._session(self.model, trace="count")
        session.run(self.feeds)
        return max(1, sum(len(entry.times_us) for entry in read_trace(session.end_trace())))

    def _small(self, file: Path, number: int, clock: Clock) -> Watched | None:
        """A small model on the bench; None if it does not load or run here."""
        try:
            session = self._session(file, trace=f"small{number}")
            feeds = drawn(session.inputs, input_shapes(session.inputs, {}, None))
            return _watched(session, feeds, clock)
        except MeasureError:
            return None


@dataclass(frozen=True)
class Watched:
    """A session that the profiler watches, and its turn."""

    session: Measured
    turn: Turn

    def seen(self) -> list[Traced]:
        """Its kernels, without the runs before the turns and without the first run of each turn.

        In that one code and weights come from wherever the other turns left them.
        """
        return [self._warm(entry) for entry in read_trace(self.session.end_trace())]

    def _warm(self, entry: Traced) -> Traced:
        times = entry.times_us[2 + RUNS_BEFORE :]
        kept = tuple(time for number, time in enumerate(times) if number % self.turn.repeats)
        return Traced(entry.kernel, kept or entry.times_us)


def _watched(
    session: Measured, feeds: Mapping[str, Array], clock: Clock, rounds: int = MOST_ROUNDS
) -> Watched:
    """Run it once, which may fail, and give it its turns."""
    session.run(feeds)
    start = clock.wall()
    session.run(feeds)
    slow = clock.wall() - start > SLOW_S
    return Watched(session, Turn(lambda: session.run(feeds), 2 if slow else WATCHED, rounds=rounds))


def _joined(left: list[Traced], right: list[Traced]) -> list[Traced]:
    """The times of the same kernels together; they are always the same ones."""
    times = {entry.kernel: entry.times_us for entry in left}
    return [Traced(e.kernel, (*times.get(e.kernel, ()), *e.times_us)) for e in right]
