"""Compression and cut together: prune to several budgets, plan each, take the best allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from onnxopt.errors import CheckError, UsageError
from onnxopt.model import load, save
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.machine import channel_block, machine
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.points import Point, Sweep
from onnxopt.pruning.sweep import run_sweep
from onnxopt.splitting.codec_errors import CodecErrors
from onnxopt.splitting.codings import Machines
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.measuring import measure_split
from onnxopt.splitting.operators import read_subject
from onnxopt.splitting.plan_file import Plan, Variant
from onnxopt.splitting.planning import Wish, plan_split
from onnxopt.splitting.profile_file import SplitProfile
from onnxopt.splitting.profiled import Profiled
from onnxopt.splitting.speeds import speeds
from onnxopt.splitting.spots import spots

CUTS = 12


@dataclass(frozen=True)
class Pruning:
    """What may become of the model.

    Attributes:
        budgets: to prune to; one of them becomes the model of both sides, or none.
        job: how, with the samples.
        most_drop: in points of the metric on labelled samples.
        least_agreement: share of held-out samples that keep their class.
    """

    budgets: Sequence[Budget]
    job: Job
    most_drop: float | None
    least_agreement: float | None


@dataclass
class _Kept:
    """The models of a sweep, in memory."""

    models: dict[str, onnx.ModelProto] = field(default_factory=dict)

    def known(self, source: str, mode: Mode, basis: dict[str, str]) -> Sweep | None:
        return None

    def keep(self, sweep: Sweep, point: Point, model: onnx.ModelProto | None) -> Sweep:
        if model is not None:
            self.models[point.name] = model
        return sweep.with_point(point)


@dataclass(frozen=True)
class Joint:
    """The plan, and the pruned model that it is for; None where that is the original."""

    plan: Plan
    model: onnx.ModelProto | None


def plan_pruned(
    proto: onnx.ModelProto,
    known: Profiled,
    wish: Wish,
    pruning: Pruning,
    *,
    source: str,
    tell: Tell = lambda stage, done: None,
) -> Joint:
    """Plan the model and pruned versions of it, and take the best that loses no more than it may.

    The pruned versions are measured on this machine, so both profiles must be of this machine, made
    slower or faster by factors. What of the model is on which side then runs pruned on both.
    The plan of a pruned model has no hash yet: that comes with its file.

    Raises:
        UsageError: a profile is of another machine, nothing says what may be lost, or samples do
            not fit.
        CheckError: no version has a cut that keeps the budgets.
    """
    _check(known, pruning)
    store = _Kept()
    sweep = run_sweep(proto, pruning.job, pruning.budgets, source=source, store=store, tell=tell)
    first = _planned(known, wish, source, pruning, tell)
    best, best_model = first, None
    variants = [_variant("the original", None, sweep, first, "")]
    for point in sweep.points:
        why = why_refused(point, sweep, pruning)
        made = None
        model = store.models.get(point.name)
        if not why and model is not None:
            tell(f"measuring the model at {point.budget}", 0.0)
            made = _planned(_measured(model, known, source), wish, source, pruning, tell)
            if made is not None and (best is None or _value(made) < _value(best)):
                best, best_model = made, model
        variants.append(_variant(point.budget, point, sweep, made, why))
    if best is None:
        raise CheckError("no cut keeps the budgets, of the model or of any pruned version", "")
    return Joint(replace(best, variants=tuple(variants)), best_model)


def _check(known: Profiled, pruning: Pruning) -> None:
    if pruning.most_drop is None and pruning.least_agreement is None:
        raise UsageError(
            "pruning changes what the model gives, and nothing says how much may be lost",
            "add --max-drop 2.5 with --eval FILE.npz, or --min-agreement 97.5% with --calibration",
        )
    here = machine()
    for side, at in (("device", known.machines.device), ("edge", known.machines.edge)):
        there = at.profile.machine
        if (there.processor, there.onnxruntime) != (here.processor, here.onnxruntime):
            raise UsageError(
                f"pruned models are measured here ({here.processor}), and the profile of the "
                f"{side} is of another machine ({there.processor})",
                "prune with `onnxopt prune --sweep`, profile the results on both machines, and "
                "plan each",
            )


def _measured(model: onnx.ModelProto, known: Profiled, source: str) -> Profiled:
    """A pruned version as the original was profiled, on both sides."""
    profiles: list[SplitProfile] = []
    for at in (known.machines.device, known.machines.edge):
        settings = at.profile.settings
        if profiles and settings == known.machines.device.profile.settings:
            profiles.append(profiles[0])
            continue
        subject = read_subject(model, dict(settings.shapes))
        cuts = enumerate_cuts(subject.dag)
        asked = Asked(
            threads=settings.threads,
            provider=settings.provider,
            shapes=dict(settings.shapes),
            seconds=max(0.01, settings.seconds),
        )
        profiles.append(measure_split(subject, cuts, spots(cuts, CUTS), asked, source=source))
    subject = read_subject(model, dict(profiles[0].shapes))
    device, edge = known.machines.device.factor, known.machines.edge.factor
    machines = Machines(speeds(subject, profiles[0], device), speeds(subject, profiles[1], edge))
    return Profiled(subject, machines, "")


def _planned(known: Profiled, wish: Wish, source: str, pruning: Pruning, tell: Tell) -> Plan | None:
    """Its plan; None if no cut keeps the budgets."""
    samples = pruning.job.calibration
    errors = None if samples is None else CodecErrors(known.subject, samples, tell).of
    try:
        return plan_split(
            known.subject,
            known.machines,
            wish,
            source=source,
            digest=known.digest,
            errors=errors,
        )
    except CheckError:
        return None


def _value(plan: Plan) -> float:
    """What is to be small."""
    chosen = plan.cuts[plan.chosen]
    if plan.objective == "energy":
        assert chosen.energy_j is not None
        return chosen.energy_j
    return chosen.interval_s if plan.objective == "throughput" else chosen.latency_s


def why_refused(point: Point, sweep: Sweep, pruning: Pruning) -> str:
    """Why a pruned version may not be used, by what it loses; empty if it may."""
    worth = point.worth
    if worth is None:
        return point.why or "it was not made"
    if pruning.most_drop is not None:
        assert sweep.accuracy is not None and worth.accuracy is not None
        points = 100 if pruning.job.metric.startswith("top") else 1
        drop = points * (sweep.accuracy - worth.accuracy)
        if drop > pruning.most_drop + 1e-9:
            return f"it loses {drop:.3g} of {pruning.job.metric}"
    if pruning.least_agreement is not None:
        if worth.same_class is None:
            return "its outputs are no classes, so no agreement can be told"
        if worth.same_class < pruning.least_agreement:
            return f"it gives the same class for {worth.same_class:.1%} only"
    return ""


def _variant(name: str, point: Point | None, sweep: Sweep, plan: Plan | None, why: str) -> Variant:
    worth = None if point is None else point.worth
    accuracy = sweep.accuracy if point is None else None
    return Variant(
        name,
        why or ("" if plan is not None else "no cut keeps the budgets"),
        accuracy if worth is None else worth.accuracy,
        None if worth is None else worth.same_class,
        None if plan is None else plan.cuts[plan.chosen].latency_s,
        None if plan is None else plan.cuts[-1].latency_s,
    )


def pruning_of(
    budgets: Sequence[Budget],
    calibration: Path | None,
    evaluation: Path | None,
    most_drop: float | None,
    least_agreement: float | None,
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
    options = PruneOptions(multiple_of=channel_block(), relaxed=True)
    job = Job(mode=budgets[0].mode, options=options, calibration=calibration, evaluation=evaluation)
    return Pruning(budgets, job, most_drop, least_agreement)


def plan_and_prune(
    proto: onnx.ModelProto,
    known: Profiled,
    wish: Wish,
    pruning: Pruning,
    model: Path,
    target: Path,
    *,
    tell: Tell = lambda stage, done: None,
) -> Plan:
    """As `plan_pruned`; a pruned model is written, and the plan is for that file."""
    joint = plan_pruned(proto, known, wish, pruning, source=str(model), tell=tell)
    if joint.model is None:
        note = "no pruned version is better: the plan is for the original, and nothing was written"
        return replace(joint.plan, notes=(*joint.plan.notes, note))
    save(joint.model, target)
    written = load(target)
    note = f"the plan is for '{target}': export that with it; it runs on both sides"
    return replace(
        joint.plan,
        source=str(target),
        model=read_source(target, written).digest,
        notes=(*joint.plan.notes, note),
    )
