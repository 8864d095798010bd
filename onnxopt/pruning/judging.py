"""Judge pruned models beside the original: agreement, accuracy, time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx

from onnxopt.errors import UsageError
from onnxopt.evaluation import Metric, evaluate
from onnxopt.graph import Array
from onnxopt.pruning.agreement import Agreement, agreement, batch_size
from onnxopt.pruning.asked import Data
from onnxopt.pruning.outcome import Accuracy
from onnxopt.pruning.samples import BATCH
from onnxopt.runtime import Session
from onnxopt.timing import Timing, side_by_side

TIMED_THREADS = 1


@dataclass(frozen=True)
class Judge:
    """Judges pruned models beside the original, here: the original rewritten without loss."""

    original: onnx.ModelProto
    data: Data
    metric: Metric

    @cached_property
    def before(self) -> float:
        """The score of the original.

        Raises:
            UsageError: the metric cannot judge it by these labels, or gives no finite number.
        """
        score = self.score(self.original)
        if not math.isfinite(score):
            raise UsageError(
                f"the metric gives {score} for the original model on the labelled samples",
                "give a metric that is a number on these samples, and labels that go with it",
            )
        return score

    def score(self, model: onnx.ModelProto) -> float:
        labelled = self.data.evaluation
        assert labelled is not None
        session = Session(model, optimized=True)
        return evaluate(session.run, labelled, self.metric, self.data.batch or BATCH)

    def accuracy(self, model: onnx.ModelProto, metric: str) -> Accuracy | None:
        labelled = self.data.evaluation
        if labelled is None:
            return None
        after = self.score(model)
        return Accuracy(metric, self.before, after, labelled.count, labelled.name)

    def agreement(self, model: onnx.ModelProto) -> Agreement | None:
        """On the labelled samples or else on those held out; without any, whether it is sound."""
        chosen = self.data.evaluation or self.data.held_out
        if chosen is None:
            agreement(self.original, model, self._feeds(), "drawn inputs")
            return None
        what = "labelled" if self.data.evaluation else "held-out"
        batches = chosen.batches(self.data.batch or BATCH)
        return agreement(self.original, model, batches, f"{what} samples of {chosen.name}")

    def timing(self, model: onnx.ModelProto) -> Timing:
        """One sample at a time, or as many as the model takes."""
        feeds = next(self._feeds())
        first = Session(self.original, optimized=True, threads=TIMED_THREADS)
        second = Session(model, optimized=True, threads=TIMED_THREADS)
        return side_by_side(
            first.run, second.run, feeds, threads=TIMED_THREADS, batch=batch_size(feeds)
        )

    def _feeds(self) -> Iterator[Mapping[str, Array]]:
        chosen = self.data.evaluation or self.data.held_out
        if chosen is None:
            from onnxopt.verification.feeds import draws

            yield from (feed.arrays for feed in draws(self.original, Session(self.original)).feeds)
            return
        yield from chosen.batches(self.data.batch or 1)
