"""Prune one model to several budgets, one after the other: what is lost for what is saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import onnx

from onnxopt.errors import CheckError, UsageError
from onnxopt.pruning.agreement import Agreement, check_signature
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.asked import Data, Job
from onnxopt.pruning.basis import basis_of
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import UNITS, Mode, measured
from onnxopt.pruning.job import prepare
from onnxopt.pruning.judging import Judge
from onnxopt.pruning.points import Figures, Point, Status, Sweep, Worth, point_name
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.results import TIME_TOLERATED, TOLERATED, Pruned

OPTION = "--sweep"
COSTS = tuple(UNITS)


class Store(Protocol):
    """Where finished points are kept."""

    def known(self, source: str, mode: Mode, basis: dict[str, str]) -> Sweep | None:
        """What is there already, if it is of the same basis.

        Raises:
            UsageError: it is of another.
        """

    def keep(self, sweep: Sweep, point: Point, model: onnx.ModelProto | None) -> Sweep:
        """The sweep with this point, after both are written."""


class Nowhere:
    """Keeps nothing."""

    def known(self, source: str, mode: Mode, basis: dict[str, str]) -> Sweep | None:
        return None

    def keep(self, sweep: Sweep, point: Point, model: onnx.ModelProto | None) -> Sweep:
        return sweep.with_point(point)


NOWHERE = Nowhere()


def parse_sweep(text: str) -> tuple[Budget, ...]:
    """Read 0.9,0.8 (of the FLOPs) or params=0.9,0.8: budgets of one cost.

    Of time only shares: what the original takes is known when it has been measured, and without
    it points have no order.

    Raises:
        UsageError: it is not that.
    """
    head, equals, tail = text.partition("=")
    mode = next((mode for mode in COSTS if mode == head.strip()), None)
    if equals and mode is None:
        raise UsageError(
            f"{OPTION} '{text}' is of no known cost",
            f"write {', '.join(f'{known}=0.9,0.8' for known in COSTS)}",
        )
    given = (tail if equals else text).split(",")
    mode, is_time = mode or "flops", mode == "latency"
    budgets = [
        Budget.parse(mode, entry, OPTION, may_be_whole=True, is_share=is_time) for entry in given
    ]
    names = [point_name(budget) for budget in budgets]
    for name, budget in zip(names, budgets, strict=True):
        if names.count(name) > 1:
            raise UsageError(
                f"{OPTION} {text} names one point twice: {budget}", "leave one of them out"
            )
    return tuple(budgets)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def run_sweep(
    proto: onnx.ModelProto,
    job: Job,
    budgets: Sequence[Budget],
    *,
    source: str,
    store: Store = NOWHERE,
    tell: Tell = lambda stage, done: None,
) -> Sweep:
    """Prune to each budget and judge what comes out; what the store has already is taken from it.

    Raises:
        UsageError: samples or options are not for this model, or no budget can be met.
        BadModelError, UnverifiableError: the model is not valid, or does not run here.
    """
    data = Data.load(proto, job)
    mode = budgets[0].mode
    basis = basis_of(proto, job, data, mode)
    sweep = store.known(source, mode, basis)
    left = [budget for budget in budgets if not _is_in(sweep, budget)]
    notes: list[str] = []
    if len(left) < len(budgets):
        notes.append(_taken(len(budgets) - len(left), len(budgets)))
    if left:
        work = _Work(proto, job, data, source, tell)
        work.check(mode)
        if sweep is None:
            sweep = work.empty(mode, basis)
        for number, budget in enumerate(left, len(budgets) - len(left) + 1):
            work.place = f"point {number} of {len(budgets)}, {budget}: "
            point, model = work.point(budget)
            sweep = store.keep(sweep, point, model)
        notes += work.pruner.cache.notes()
    assert sweep is not None
    _check_not_empty(sweep)
    return replace(sweep, notes=(*sweep.notes, *notes))


def _check_not_empty(sweep: Sweep) -> None:
    if sweep.done:
        return
    if failed := [point for point in sweep.points if point.status == "failed"]:
        raise CheckError(f"no point of the sweep passes: {failed[0].budget}: {failed[0].why}")
    first = sweep.points[0]
    raise UsageError(f"no point of the sweep can be met: {first.budget}: {first.why}")


def _is_in(sweep: Sweep | None, budget: Budget) -> bool:
    points = () if sweep is None else sweep.points
    return any(one.name == point_name(budget) and one.status != "failed" for one in points)


def _taken(count: int, of: int) -> str:
    if count == of:
        return "all points asked for were there already"
    return f"{count} of the {of} points asked for {'was' if count == 1 else 'were'} there already"


class _Work:
    """The model, ready to be pruned, and what judges the results.

    Attributes:
        place: which point this is about, for a person.
    """

    pruner: Pruner
    judge: Judge

    def __init__(
        self, proto: onnx.ModelProto, job: Job, data: Data, source: str, tell: Tell
    ) -> None:
        self.job, self.source, self.place = job, source, ""
        self._tell = tell
        self.pruner, self.judge = prepare(proto, job, data, self.tell)

    def check(self, mode: Mode) -> None:
        """Raise what is wrong for all budgets: a profile of another model, nothing to cut."""
        self.pruner.meter(mode)
        self.pruner.require_something(mode)

    def tell(self, stage: str, done: float) -> None:
        self._tell(self.place + stage, done)

    def empty(self, mode: Mode, basis: dict[str, str]) -> Sweep:
        chosen = self.judge.data.evaluation
        on = chosen or self.judge.data.held_out
        kind = "labelled" if chosen else "held-out"
        return Sweep(
            source=self.source,
            mode=mode,
            basis=basis,
            metric=self.job.metric if chosen else None,
            judged_on="" if on is None else f"{on.count} {kind} samples of {on.name}",
            before=Figures.of(self.pruner.original),
            accuracy=self.judge.before if chosen else None,
            options=self.job.options,
            calibration=self.judge.data.samples,
            versions=dict(self.pruner.lossless.report.versions),
        )

    def point(self, budget: Budget) -> tuple[Point, onnx.ModelProto | None]:
        """What becomes of a budget. Only bugs and interrupts are raised."""
        name, said = point_name(budget), str(budget)
        amount, relative = budget.amount, budget.relative
        try:
            pruned = self.pruner.at(budget)
            check_signature(self.pruner.lossless.model, pruned.model)
            self.tell("comparing with the original", 0.0)
            worth = self._worth(pruned)
        except (UsageError, CheckError) as error:
            status: Status = "refused" if isinstance(error, UsageError) else "failed"
            return Point(name, said, amount, relative, status, why=_reason(error)), None
        status = "met" if _is_met(pruned, budget) else "missed"
        lossless, after = pruned.lossless.report, pruned.rewriting.report
        notes = (*pruned.notes, *self.judge.data.notes, *lossless.notes, *after.notes)
        point = Point(
            name, said, amount, relative, status,
            cost=Figures.of(pruned.cost), worth=worth, latency=pruned.latency,
            notes=tuple(dict.fromkeys(notes)),
        )  # fmt: skip
        return point, pruned.model

    def _worth(self, pruned: Pruned) -> Worth:
        same, error = _worst(self.judge.agreement(pruned.model))
        accuracy = self.judge.accuracy(pruned.model, self.job.metric)
        after = accuracy.after if accuracy and math.isfinite(accuracy.after) else None
        confirmed = pruned.latency and pruned.latency.measured
        return Worth(after, same, error, confirmed or self.judge.timing(pruned.model))


def _is_met(pruned: Pruned, budget: Budget) -> bool:
    """Of time as it was measured, or as the profile of another machine predicts it."""
    if budget.mode != "latency":
        cost = measured(pruned.cost, budget.mode)
        return abs(cost / budget.target(pruned.original) - 1) <= TOLERATED
    found = pruned.latency
    assert found is not None, "a sweep replays no plan"
    return abs(found.reached / found.asked - 1) <= TIME_TOLERATED


def _reason(error: UsageError | CheckError) -> str:
    if isinstance(error, CheckError):
        return error.what
    return f"{error.what}; {error.fix}" if error.fix else error.what


def _worst(found: Agreement | None) -> tuple[float | None, float | None]:
    """The least share of equal classes, and the largest relative error."""
    outputs = found.outputs if found else ()
    same = [output.top1 for output in outputs if output.top1 is not None]
    errors = [output.relative for output in outputs if math.isfinite(output.relative)]
    return min(same, default=None), max(errors, default=None)
