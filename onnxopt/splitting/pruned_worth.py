"""What a plan may lose, with pruning and codecs together, and what one does lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from onnxopt.errors import CheckError, UsageError
from onnxopt.evaluation import evaluate, load_metric
from onnxopt.profiling.machine import channel_block
from onnxopt.pruning.agreement import agreement_of
from onnxopt.pruning.asked import Data, Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.points import Worth
from onnxopt.runtime import RunError, Session
from onnxopt.signature import model_outputs
from onnxopt.splitting.coded import Coded, CodedRow


@dataclass(frozen=True)
class Pruning:
    """What may become of the model.

    Attributes:
        budgets: to prune to; one of them becomes the model of both sides, or none.
        job: how, with the samples.
        most_drop: in points of the metric on labelled samples.
        least_agreement: share of samples that keep their class: of the labelled ones or else of
            those held out.
    """

    budgets: Sequence[Budget]
    job: Job
    most_drop: float | None
    least_agreement: float | None


@dataclass(frozen=True)
class Kept:
    """What is left of what the original gives; None where nothing tells."""

    accuracy: float | None
    same_class: float | None

    @classmethod
    def of(cls, worth: Worth) -> Kept:
        return cls(worth.accuracy, worth.same_class)

    def and_less(self, other: Kept) -> Kept:
        """The worse of both."""
        return Kept(
            _least(self.accuracy, other.accuracy), _least(self.same_class, other.same_class)
        )


def _least(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else min(first, second)


def why_refused(kept: Kept, accuracy: float | None, pruning: Pruning) -> str:
    """Why a version may not be used, by what it loses; empty if it may.

    Args:
        accuracy: of the original.
    """
    if pruning.most_drop is not None:
        assert accuracy is not None and kept.accuracy is not None
        points = 100 if pruning.job.metric.startswith("top") else 1
        drop = points * (accuracy - kept.accuracy)
        if drop > pruning.most_drop + 1e-9:
            return f"it loses {drop:.3g} of {pruning.job.metric}"
    if pruning.least_agreement is not None:
        if kept.same_class is None:
            return "its outputs are no classes, so no agreement can be told"
        if kept.same_class < pruning.least_agreement:
            return f"it gives the same class for {kept.same_class:.1%} only"
    return ""


class Judging:
    """Judges models in two halves with a codec between, beside the original.

    Args:
        original: the whole.
        job: with its samples.

    Raises:
        UsageError: samples or metric do not fit the model.
    """

    def __init__(self, original: onnx.ModelProto, job: Job) -> None:
        self._original = original
        self._data = Data.load(original, job)
        self._metric = load_metric(job.metric)
        self._outputs = [port.name for port in model_outputs(original)]

    def kept(self, item: Coded) -> Kept:
        """What a cut of a pruned version keeps with its codec.

        Samples run as the model takes them, one at a time if it takes any number: a codec has one
        scale for all that crosses at once.

        Raises:
            CheckError: it gives no numbers where the original does, or does not run.
        """
        row = CodedRow(item, optimized=True)

        def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
            there = row.run(feeds)
            return {name: there[name] for name in self._outputs}

        data, batch = self._data, self._data.batch or 1
        chosen = data.evaluation or data.held_out
        assert chosen is not None, "else nothing says what may be lost"
        try:
            found = agreement_of(
                Session(self._original, optimized=True).run, run, chosen.batches(batch), ""
            )
            accuracy = None
            if data.evaluation is not None:
                accuracy = evaluate(run, data.evaluation, self._metric, batch)
        except RunError as error:
            raise CheckError(f"it does not run with its codec: {error.what}") from None
        same = [output.top1 for output in found.outputs if output.top1 is not None]
        return Kept(accuracy, min(same, default=None))


def pruning_of(
    budgets: Sequence[Budget],
    calibration: Path | None,
    evaluation: Path | None,
    most_drop: float | None,
    least_agreement: float | None,
    *,
    metric: str = "top1",
    cache: Path | None = None,
) -> Pruning:
    """What options say of pruning.

    Raises:
        UsageError: what may be lost cannot be told with these samples.
    """
    if most_drop is not None and evaluation is None:
        raise UsageError("a drop is of the accuracy on labelled samples", "add --eval FILE.npz")
    if least_agreement is not None and calibration is None:
        raise UsageError(
            "agreement is told on calibration samples that take no part", "add --calibration FILE"
        )
    options = PruneOptions(multiple_of=channel_block(), relaxed=True, reads="all")
    job = Job(
        mode=budgets[0].mode,
        options=options,
        calibration=calibration,
        evaluation=evaluation,
        metric=metric,
        cache=cache,
    )
    return Pruning(budgets, job, most_drop, least_agreement)
