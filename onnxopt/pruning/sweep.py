"""Prune one model to several budgets, one after the other: what is lost for what is saved."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Protocol, get_args

import numpy as np
import onnx

from onnxopt.calibration import Calibration
from onnxopt.errors import CheckError, UsageError
from onnxopt.profiling.machine import machine
from onnxopt.pruning.agreement import Agreement, check_signature
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.asked import Data, Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import Mode, StaticMode, measured
from onnxopt.pruning.job import prepare
from onnxopt.pruning.judging import Judge
from onnxopt.pruning.plan import model_digest
from onnxopt.pruning.points import Figures, Point, Status, Sweep, Worth, point_name
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.results import TOLERATED, Pruned

OPTION = "--sweep"
COSTS: tuple[StaticMode, ...] = get_args(StaticMode)
"""Time is none of them: it would have to be confirmed for each point in turns of its own."""


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
    budgets = [Budget.parse(mode or "flops", entry, OPTION, may_be_whole=True) for entry in given]
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
    basis = _basis(proto, job, data, mode)
    sweep = store.known(source, mode, basis)
    left = [budget for budget in budgets if not _is_in(sweep, budget)]
    notes: list[str] = []
    if len(left) < len(budgets):
        notes.append(_taken(len(budgets) - len(left), len(budgets)))
    if left:
        work = _Work(proto, job, data, source, tell)
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
        _ = self.pruner.analysis  # what is wrong for all budgets ends it here

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
        assert budget.mode != "latency"
        off = measured(pruned.cost, budget.mode) / budget.target(pruned.original) - 1
        status = "met" if abs(off) <= TOLERATED else "missed"
        lossless, after = pruned.lossless.report, pruned.rewriting.report
        notes = (*pruned.notes, *self.judge.data.notes, *lossless.notes, *after.notes)
        point = Point(
            name, said, amount, relative, status,
            cost=Figures.of(pruned.cost), worth=worth, notes=tuple(dict.fromkeys(notes)),
        )  # fmt: skip
        return point, pruned.model

    def _worth(self, pruned: Pruned) -> Worth:
        same, error = _worst(self.judge.agreement(pruned.model))
        accuracy = self.judge.accuracy(pruned.model, self.job.metric)
        after = accuracy.after if accuracy and math.isfinite(accuracy.after) else None
        return Worth(after, same, error, self.judge.timing(pruned.model))


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


def _basis(proto: onnx.ModelProto, job: Job, data: Data, mode: Mode) -> dict[str, str]:
    """All that a point depends on but its budget; the processor for its time."""
    labelled, here = data.evaluation, machine()
    labels = "" if labelled is None or labelled.labels is None else _hex(labelled.labels.tobytes())
    return {
        "the model": model_digest(proto),
        "the cost": mode,
        "the calibration samples": _digest(data.used),
        "the samples held out": _digest(data.held_out),
        "the labelled samples": _digest(labelled) + labels,
        "the metric": job.metric if labelled else "",
        "the processor": f"{here.system}, {here.processor}",
        "the options of pruning": _hex_of(asdict(job.options)),
        "the options of rewriting": _hex_of(asdict(job.rewriting)),
    }


def _digest(samples: Calibration | None) -> str:
    return "" if samples is None else samples.digest


def _hex_of(options: object) -> str:
    return _hex(json.dumps(options, sort_keys=True, default=str).encode())


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
