"""Widths for a budget of time, confirmed by timing the cut model beside the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import onnx

from onnxopt.errors import UsageError
from onnxopt.optimizer import optimize
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.choosing import Choice
from onnxopt.pruning.meters import UNVERIFIED, Predicted
from onnxopt.pruning.results import TIME_TOLERATED, Latency, LatencyTry
from onnxopt.timing import Timing

MOST_TRIES = 3
CONFIRMED = 0.02
"""A try that measures no further than this from the budget, as a share of it, is taken."""

STEEPEST = 3.0
"""So much more, or less, may be predicted to go than is measured to: else it is noise."""

SAME_WIDTHS = "the widths that its groups can take allow no closer: time falls in steps"


@dataclass
class Confirming:
    """The tries for one budget.

    Attributes:
        asked: share of the original's time.
        time: a model beside the original; None if that is another machine's.
        first: what the first try is asked for, in predicted milliseconds; by default the budget.
        taken: the try whose widths were chosen.
        stopped: why there are no more tries.
    """

    asked: float
    meter: Predicted
    time: Callable[[onnx.ModelProto], Timing] | None
    tell: Tell
    first: float | None = None
    tries: list[LatencyTry] = field(default_factory=list)
    taken: LatencyTry | None = None
    stopped: str = ""

    def __call__(self, chosen: Callable[[float], Choice], channels: Channels) -> Choice:
        """The choice that comes closest to the budget, by its measured time.

        What the next choice is asked for is rescaled by what the last one was predicted to take
        by what it took; after two tries the line through both says more.

        Raises:
            UsageError: no choice is predicted to be within the budget.
        """
        target, best = self.budget if self.first is None else self.first, None
        seen: set[frozenset[int]] = set()
        for number in range(MOST_TRIES):
            try:
                choice = chosen(target)
            except UsageError as error:
                if best is None:
                    raise
                self.stopped = error.what
                break
            if choice.dead in seen:
                self.stopped = SAME_WIDTHS
                break
            seen.add(choice.dead)
            self.tell("timing the cut model", number / MOST_TRIES)
            tried = self._tried(choice, target, channels)
            if self.taken is None or self._off(tried) < self._off(self.taken):
                self.taken, best = tried, choice
            if tried.measured is None or self._off(tried) <= CONFIRMED:
                break
            target = self._next(tried.predicted, tried.measured.ratio) * self.meter.whole_ms
        assert best is not None
        return best

    @property
    def budget(self) -> float:
        """In milliseconds."""
        return self.asked * self.meter.whole_ms

    @property
    def badness(self) -> tuple[bool, float]:
        """Whether the try that was taken is beyond the budget, and how far from it, as a share."""
        assert self.taken is not None
        off = self._off(self.taken)
        return self._reached(self.taken) > self.asked and off > TIME_TOLERATED, off

    def corrected(self) -> float:
        """The budget in milliseconds as they are predicted, by what the try taken was measured."""
        assert self.taken is not None
        if self.taken.measured is None:
            return self.budget
        return self.budget * self.taken.predicted / self.taken.measured.ratio

    def _tried(self, choice: Choice, target: float, channels: Channels) -> LatencyTry:
        predicted = (1 + choice.off) * target / self.meter.whole_ms
        measured = None
        if self.time is not None:
            cut = optimize(channels.cut(choice.dead), UNVERIFIED).model
            measured = self.time(cut)
        self.tries.append(LatencyTry(predicted, measured))
        return self.tries[-1]

    def _next(self, predicted: float, measured: float) -> float:
        """The share that is to be predicted next."""
        known = [(t.measured.ratio, t.predicted) for t in self.tries if t.measured]
        known.sort(key=lambda pair: abs(pair[0] - self.asked))
        if len(known) >= 2:
            (near, at_near), (far, at_far) = known[:2]
            slope = (at_far - at_near) / (far - near) if far != near else 0.0
            if 1 / STEEPEST <= slope <= STEEPEST:
                found = at_near + slope * (self.asked - near)
                return min(max(found, self.asked / STEEPEST), self.asked * STEEPEST)
        return self.asked * predicted / measured

    def _off(self, tried: LatencyTry) -> float:
        return abs(self._reached(tried) / self.asked - 1)

    @staticmethod
    def _reached(tried: LatencyTry) -> float:
        return tried.predicted if tried.measured is None else tried.measured.ratio

    def outcome(self, model: onnx.ModelProto) -> Latency:
        """What the finished model takes, and how it came to that."""
        assert self.taken is not None
        profile = self.meter.profile
        made = Latency(
            asked=self.asked,
            original_ms=profile.steady_ms.median,
            predicted=self.taken.predicted,
            measured=None,
            tries=tuple(self.tries),
            machine=profile.machine.processor,
            stopped=self.stopped,
        )
        if self.time is None:
            return made
        self.tell("timing the pruned model", 0.0)
        return replace(made, measured=self.time(model))
