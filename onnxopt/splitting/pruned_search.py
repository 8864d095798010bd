"""Versions of a model, pruned as a whole or before a cut: each is planned, the best is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx

from onnxopt.errors import CheckError, UsageError
from onnxopt.optimizer import optimize
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.points import Point, Sweep, point_name
from onnxopt.pruning.sweep import run_sweep
from onnxopt.splitting.codec_errors import CodecErrors, coded_cut
from onnxopt.splitting.device_part import device_part
from onnxopt.splitting.plan_file import Plan, PlannedCut, Variant
from onnxopt.splitting.planning import Wish, plan_split
from onnxopt.splitting.profiled import Profiled
from onnxopt.splitting.pruned_profile import profiled_here
from onnxopt.splitting.pruned_worth import Judging, Kept, Pruning, why_refused
from onnxopt.splitting.wishes import device_of


@dataclass
class Models:
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


class Search:
    """Versions of the model, planned one after the other.

    Attributes:
        variants: what became of each.
        best: the best that is allowed, until now.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        known: Profiled,
        wish: Wish,
        pruning: Pruning,
        source: str,
        tell: Tell,
    ) -> None:
        self._proto, self._known, self._wish, self._pruning = proto, known, wish, pruning
        self._source, self._tell = source, tell
        self._judging = Judging(proto, pruning.job)
        self._accuracy: float | None = None
        self._original: Plan | None = None
        self._done: set[tuple[str, ...]] = set()
        self.variants: list[Variant] = []
        self.best: Joint | None = None

    def whole(self) -> None:
        """The original, and the whole model pruned to each budget."""
        budgets = {budget: str(budget) for budget in self._pruning.budgets}
        store = Models()
        sweep = self._sweep(self._proto, self._pruning.job, [*budgets], store)
        self._accuracy = sweep.accuracy
        self._original = self._consider("the original", self._known, None, Kept(sweep.accuracy, 1))
        self._points(sweep, budgets, store)

    def next_cut(self) -> PlannedCut | None:
        """A cut with operators on both sides that the best plan has, or that of the original, and
        before which nothing was pruned yet; None without one."""
        plans = (self.best.plan if self.best is not None else None, self._original)
        for plan in filter(None, plans):
            chosen = plan.cuts[plan.chosen]
            if chosen.operators and chosen.point.is_remote and chosen.tensors not in self._done:
                return chosen
        return None

    def before(self, cut: PlannedCut) -> None:
        """The part before a cut pruned to each budget, the other one as it is."""
        self._done.add(cut.tensors)
        where = f"before {', '.join(cut.tensors)}"
        job = self._pruning.job
        try:
            base = optimize(self._proto, job.rewriting, progress=self._tell).model
            part = device_part(base, dict(self._known.machines.device.profile.shapes), cut, job)
            named = {part.budget(b): f"{b} {where}" for b in self._pruning.budgets}
            store = Models()
            sweep = self._sweep(part.proto, part.job(job), [*named], store)
        except (UsageError, CheckError) as error:
            self.variants.append(Variant(f"pruned {where}", error.what, None, None, None, None))
            return
        self._points(sweep, named, store)

    def _sweep(
        self, proto: onnx.ModelProto, job: Job, budgets: Sequence[Budget], store: Models
    ) -> Sweep:
        return run_sweep(proto, job, budgets, source=self._source, store=store, tell=self._tell)

    def _points(self, sweep: Sweep, budgets: dict[Budget, str], store: Models) -> None:
        names = {point_name(budget): name for budget, name in budgets.items()}
        for point in sweep.points:
            name, model = names[point.name], store.models.get(point.name)
            why = point.why or "it was not made"
            if point.worth is not None:
                kept = Kept.of(point.worth)
                why = why_refused(kept, self._accuracy, self._pruning)
            if why or model is None or point.worth is None:
                self.variants.append(_variant(name, point, None, why))
                continue
            self._tell(f"measuring the model at {name}", 0.0)
            self._consider(name, profiled_here(model, self._known, self._source), model, kept)

    def _consider(
        self, name: str, known: Profiled, model: onnx.ModelProto | None, kept: Kept
    ) -> Plan | None:
        """Plan a version with its codecs, or without where these lose too much; None if no cut
        keeps the budgets."""
        made = self._planned(known, self._wish)
        why = ""
        if made is not None:
            why, kept_coded = self._loss(known, made, kept)
            if why:
                made = self._planned(known, replace(self._wish, codecs=("none",)))
                note = f"without codecs: with them {why}"
                made = made and replace(made, notes=(*made.notes, note))
            else:
                kept = kept_coded
        if made is not None and (self.best is None or _value(made) < _value(self.best.plan)):
            self.best = Joint(made, model)
        self.variants.append(_variant(name, kept, made, ""))
        return made

    def _planned(self, known: Profiled, wish: Wish) -> Plan | None:
        """Its plan; None if no cut keeps the budgets."""
        samples = self._pruning.job.calibration
        errors = None
        if samples is not None and set(wish.codecs) != {"none"}:
            errors = CodecErrors(known.subject, samples, self._tell).of
        wish = wish if errors is not None else replace(wish, max_error=None)
        try:
            return plan_split(
                known.subject,
                known.machines,
                wish,
                source=self._source,
                digest=known.digest,
                errors=errors,
            )
        except CheckError:
            return None

    def _loss(self, known: Profiled, plan: Plan, kept: Kept) -> tuple[str, Kept]:
        """Why a plan loses too much with its codecs, "" if it does not; and what it keeps."""
        for cut in plan.cuts:
            if cut.codec == "none" or cut.broken or not cut.point.is_remote:
                continue
            item = coded_cut(known.subject, device_of(known.subject.dag, cut), cut.codec)
            if item is None:
                continue
            self._tell(f"judging {cut.codec} at {', '.join(cut.tensors)}", 0.0)
            try:
                kept = kept.and_less(self._judging.kept(item))
            except CheckError as error:
                return error.what, kept
        return why_refused(kept, self._accuracy, self._pruning), kept


def _value(plan: Plan) -> float:
    """What is to be small."""
    chosen = plan.cuts[plan.chosen]
    if plan.objective == "energy":
        assert chosen.energy_j is not None
        return chosen.energy_j
    return chosen.interval_s if plan.objective == "throughput" else chosen.latency_s


def _variant(name: str, kept: Kept | Point, plan: Plan | None, why: str) -> Variant:
    if isinstance(kept, Point):
        kept = Kept(None, None) if kept.worth is None else Kept.of(kept.worth)
    return Variant(
        name,
        why or ("" if plan is not None else "no cut keeps the budgets"),
        kept.accuracy,
        kept.same_class,
        None if plan is None else plan.cuts[plan.chosen].latency_s,
        None if plan is None or plan.cuts[-1].broken else plan.cuts[-1].latency_s,
    )
