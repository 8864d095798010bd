"""Run several things in turns, so that all of them meet the same noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from onnxopt.profiling.spread import Run

SHORTEST_S = 0.001
"""A turn that is timed takes at least so long: what is faster runs several times in it."""

RUNS_BEFORE = 2
"""Each runs so often before the first round."""

LEAST_ROUNDS = 7
PATIENCE = 3.0
FEWEST_ROUNDS = 3
"""Where seven rounds take more than three times as long as they should, three are enough."""

MOST_ROUNDS = 150


@dataclass
class Turn:
    """One of the things that take turns.

    Attributes:
        run: does it once.
        repeats: how often in one turn.
        shortest_s: where `repeats` is 0: as often as takes so long.
        rounds: takes no part in later rounds than these.
        runs: one for each round; of several repeats, their mean.
    """

    run: Callable[[], None]
    repeats: int = 1
    shortest_s: float = SHORTEST_S
    rounds: int = MOST_ROUNDS
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True)
class Clock:
    """Where time comes from: the wall, and what the processor worked for this process."""

    wall: Callable[[], float] = time.perf_counter
    processor: Callable[[], float] = time.process_time


def take_turns(
    turns: Sequence[Turn], seconds: float, clock: Clock, progress: Callable[[float], None]
) -> int:
    """Go round until the time is over, but at least seven times; warm up in a round before.

    Where that takes much too long it is three times.

    Args:
        progress: is told the share of the time that is over.

    Returns:
        the number of rounds.
    """
    for turn in turns:
        turn.run()
        once = _time(turn, clock, 1).wall
        turn.repeats = turn.repeats or max(1, min(1000, round(turn.shortest_s / max(once, 1e-7))))
    begin, done = clock.wall(), 0
    while not _is_over(done, clock.wall() - begin, seconds):
        for turn in turns:
            if done < turn.rounds:
                turn.runs.append(_time(turn, clock, turn.repeats))
        done += 1
        over = (clock.wall() - begin) / seconds if seconds > 0 else 1.0
        progress(min(1.0, max(done / MOST_ROUNDS, min(over, done / LEAST_ROUNDS))))
    return done


def _is_over(rounds: int, passed: float, seconds: float) -> bool:
    if rounds < LEAST_ROUNDS:
        return rounds >= FEWEST_ROUNDS and passed > PATIENCE * seconds
    return rounds >= MOST_ROUNDS or passed >= seconds


def _time(turn: Turn, clock: Clock, repeats: int) -> Run:
    worked, start = clock.processor(), clock.wall()
    for _ in range(repeats):
        turn.run()
    wall, worked = clock.wall() - start, clock.processor() - worked
    return Run(wall / repeats, worked / repeats)
