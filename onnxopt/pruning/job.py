"""All that `onnxopt prune` does between reading files and writing them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxopt.calibration import Calibration
from onnxopt.errors import UsageError
from onnxopt.evaluation import load_metric
from onnxopt.pruning.agreement import check_signature
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.asked import Data, Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import measured
from onnxopt.pruning.judging import Judge
from onnxopt.pruning.outcome import PruneReport
from onnxopt.pruning.plan import Plan, model_digest
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.results import Preview, Pruned
from onnxopt.pruning.search import largest_cut

POINTS = ("top1", "top5")
"""Metrics that are fractions of the samples: their drop is in percentage points."""


@dataclass(frozen=True)
class Done:
    """The pruned model, its report, and the plan that leads to it."""

    pruned: Pruned
    report: PruneReport
    plan: Plan


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def preview(proto: onnx.ModelProto, job: Job, tell: Tell) -> Preview:
    """What could be cut, without cutting it."""
    data = Data.load(proto, job)
    pruner = _pruner(proto, data, job, tell)
    found = pruner.preview(job.mode, job.budget)
    return replace(found, notes=(*found.notes, *pruner.cache.notes()))


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def run(proto: onnx.ModelProto, job: Job, *, source: str, tell: Tell) -> Done:
    """Prune a model and judge the result.

    Raises:
        UsageError: samples, budget or plan are not for this model.
        BadModelError, UnverifiableError: the model is not valid, or does not run here.
        CheckError: something is wrong with the result, or it loses more than it may.
    """
    digest = model_digest(proto)
    job = _with_plan(job, digest)
    load_metric(job.metric)  # before samples are read
    data = Data.load(proto, job)
    if job.plan is not None:
        _check_samples(job.plan, data.used)
    pruner, judge = prepare(proto, job, data, tell)
    pruned = _pruned(pruner, job, judge, tell)
    check_signature(pruner.lossless.model, pruned.model)
    tell("comparing with the original", 0.0)
    plan = Plan(
        model=digest,
        budget=job.plan.budget if job.plan else _reached(pruned, job),
        options=job.options if job.plan else pruner.settled(job.mode),
        calibration="" if data.used is None else data.used.digest,
        samples=job.samples,
        augment=job.augment,
        set_shapes=dict(job.rewriting.set_shapes),
        freeze_inputs=job.rewriting.freeze_inputs,
    )
    pruned = replace(pruned, notes=(*pruned.notes, *pruner.cache.notes()))
    return Done(pruned, _report(pruned, plan, job, judge, source), plan)


def prepare(proto: onnx.ModelProto, job: Job, data: Data, tell: Tell) -> tuple[Pruner, Judge]:
    """The model, ready to be pruned, and what judges the results.

    Raises:
        UsageError: the metric cannot judge the original by these labels, among others.
        BadModelError, UnverifiableError: the model is not valid, or does not run here.
    """
    metric = load_metric(job.metric)
    pruner = _pruner(proto, data, job, tell)
    judge = Judge(pruner.lossless.model, data, metric)
    if data.evaluation is not None:
        tell("evaluating", 0.0)
        _ = judge.before  # labels that do not fit the metric are refused before the work begins
    return pruner, judge


def _pruner(proto: onnx.ModelProto, data: Data, job: Job, tell: Tell) -> Pruner:
    return Pruner(
        proto,
        data.used,
        job.options,
        rewriting=job.rewriting,
        workers=job.workers,
        cache=job.cache,
        profile=job.profile,
        replays=job.plan is not None,
        tell=tell,
    )


def _with_plan(job: Job, digest: str) -> Job:
    """The job as its plan has it.

    Raises:
        UsageError: the plan is for another model.
    """
    plan = job.plan
    if plan is None:
        return job
    if plan.model != digest:
        raise UsageError(
            "the plan was made for another model: the SHA-256 of its content differs",
            "give the model that the plan was made for",
        )
    rewriting = replace(job.rewriting, set_shapes=plan.set_shapes, freeze_inputs=plan.freeze_inputs)
    options = replace(plan.options, prove=job.options.prove)
    samples = plan.samples or job.samples
    return replace(
        job,
        mode=plan.budget.mode,
        options=options,
        rewriting=rewriting,
        samples=samples,
        augment=plan.augment,
    )


def _check_samples(plan: Plan, used: Calibration | None) -> None:
    if not plan.fits_samples and used is None:
        return
    if plan.calibration and used is None:
        raise UsageError(
            "the plan fits weights to calibration samples, and there are none",
            "give the same --calibration as when it was made",
        )
    if used is not None and used.digest != plan.calibration:
        raise UsageError(
            "the calibration samples are not those that the plan was made with",
            "give the same --calibration as when it was made"
            if plan.calibration
            else "leave --calibration out: the plan was made without",
        )


def _pruned(pruner: Pruner, job: Job, judge: Judge, tell: Tell) -> Pruned:
    if job.plan is not None:
        return pruner.replay(job.plan)
    if job.max_drop is None:
        assert job.budget is not None
        return pruner.at(job.budget)
    drop = job.max_drop / 100 if job.metric in POINTS else job.max_drop
    lowest = None
    if job.budget is not None:
        lowest = pruner.share(job.budget)
    found = largest_cut(
        pruner.at, lambda made: judge.score(made.model), judge.before - drop, job.mode, lowest, tell
    )
    note = (
        "the cut was chosen by the labelled samples that it is judged on here: expect slightly "
        "less on others"
    )
    return replace(found, notes=(*found.notes, note))


def _reached(pruned: Pruned, job: Job) -> Budget:
    """The budget that was asked for or, after a search, the cost that was found."""
    if job.budget is not None and job.max_drop is None:
        return job.budget
    if job.mode == "latency":
        assert pruned.latency is not None, "only what was searched for"
        return Budget(job.mode, pruned.latency.reached)
    return Budget(job.mode, measured(pruned.cost, job.mode) / measured(pruned.original, job.mode))


def _wanted(job: Job, plan: Plan) -> str:
    """What was asked for, in words."""
    if job.max_drop is None or job.plan is not None:
        return str(plan.budget)
    unit = " points" if job.metric in POINTS else ""
    return (
        f"the largest cut that loses at most {job.max_drop:g}{unit} of {job.metric}, "
        f"found {plan.budget}"
    )


def _report(pruned: Pruned, plan: Plan, job: Job, judge: Judge, source: str) -> PruneReport:
    found = pruned.latency
    timing = (found and found.measured) or judge.timing(pruned.model)
    mode = plan.budget.mode
    if mode == "latency":
        original_ms = timing.first_ms if found is None else found.original_ms
        target, reached = (
            plan.budget.of(original_ms),
            original_ms * (timing.ratio if found is None else found.reached),
        )
    else:
        target, reached = plan.budget.target(pruned.original), measured(pruned.cost, mode)
    lossless, rewriting = pruned.lossless.report, pruned.rewriting.report
    notes = (*pruned.notes, *judge.data.notes, *lossless.notes, *rewriting.notes)
    return PruneReport(
        source=source,
        output=None,
        budget=_wanted(job, plan),
        mode=mode,
        target=target,
        reached=reached,
        latency=found,
        before=pruned.original,
        after=pruned.cost,
        options=job.options,
        rounds=pruned.rounds,
        replayed=job.plan is not None,
        calibration=judge.data.samples,
        agreement=judge.agreement(pruned.model),
        accuracy=judge.accuracy(pruned.model, job.metric),
        timing=timing,
        lossless=(lossless.verdict_line(), rewriting.verdict_line()),
        notes=tuple(dict.fromkeys(notes)),
        versions=lossless.versions,
    )
