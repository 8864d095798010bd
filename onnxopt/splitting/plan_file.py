"""What `split plan` writes: `onnxopt-split-plan/1`, which `split export` and `split run` read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from onnxopt.errors import UsageError
from onnxopt.profiling.files import read_json
from onnxopt.splitting.context import Box, Context, Point
from onnxopt.splitting.manifest import Codec
from onnxopt.typed_json import typed

SCHEMA: Literal["onnxopt-split-plan/1"] = "onnxopt-split-plan/1"

Objective: TypeAlias = Literal["latency", "energy", "throughput"]


@dataclass(frozen=True)
class PlannedCut:
    """One way to split, and what it costs.

    Attributes:
        tensors: names of those that cross, in the order of the model; none where nothing runs at
            the edge.
        outputs: names of the outputs of the model that the device makes. Both together name the
            cut: the device computes what they need.
        operators: how many the device has.
        point: what it takes.
        weight_bytes, peak_bytes: what the device holds: weights, and activations at once.
        latency_s, energy_j, interval_s: in the conditions planned for: one request; what the
            device uses for it; between two requests when many are in flight.
        measured: both parts were measured; otherwise the times are sums and interpolations.
        broken: budgets that it breaks, in words; it may not be chosen then.
        error: largest relative error that the codec causes in the outputs, on calibration data;
            None if that was not measured.
    """

    tensors: tuple[str, ...]
    outputs: tuple[str, ...]
    codec: Codec
    operators: int
    point: Point
    weight_bytes: int
    peak_bytes: int
    latency_s: float
    energy_j: float | None
    interval_s: float
    measured: bool
    broken: tuple[str, ...]
    error: float | None = None


@dataclass(frozen=True)
class Compared:
    """What another method chooses on the same profile.

    Attributes:
        cut: None if it finds nothing.
        latency_s: what that takes by the profile, whatever the method believes.
        by: latency by that of the plan.
    """

    method: str
    cut: PlannedCut | None
    latency_s: float | None
    by: float | None
    remark: str


@dataclass(frozen=True)
class Variant:
    """The model, or a pruned version of it, and how well it can be split.

    Attributes:
        name: the budget that it was pruned to, in words, and before which cut if not as a whole.
        why: it may not be used, for this reason; empty if it may.
        accuracy: on labelled samples; same_class: share of samples with the class of the original;
            both with the codecs of its plan.
        latency_s: of its best plan; device_s: with everything on the device, where that keeps the
            budgets.
    """

    name: str
    why: str
    accuracy: float | None
    same_class: float | None
    latency_s: float | None
    device_s: float | None


@dataclass(frozen=True)
class Plan:
    """The cuts to export, and why these.

    Attributes:
        model: SHA-256 of the file.
        cuts: from nothing on the device to everything, each with what the one before it has on the
            device and more; between both ends those that were chosen. Cut i of the manifest that
            `split export --plan` writes is cut i here.
        chosen: number of the best one in `context`.
        context: the conditions planned for; box: those that it shall adapt to, if asked for.
        regret: most that the best of `cuts` takes longer than the best of all cuts, anywhere in
            the box, as a share; None without a box.
        proved: the chosen one is the best of all cuts; otherwise the notes say what it is.
        best: further good plans in `context`, the best ones first, the chosen one among them.
        pareto: of all plans that keep the budgets those that no other one beats in latency,
            energy, device weights and device memory together; empty unless asked for.
        notes: assumptions and remarks, in sentences.
        variants: the original and its pruned versions, where these were asked for.
    """

    schema: Literal["onnxopt-split-plan/1"]
    source: str
    model: str
    objective: Objective
    context: Context
    box: Box | None
    cuts: tuple[PlannedCut, ...]
    chosen: int
    regret: float | None
    proved: bool
    best: tuple[PlannedCut, ...]
    pareto: tuple[PlannedCut, ...]
    compared: tuple[Compared, ...]
    notes: tuple[str, ...]
    variants: tuple[Variant, ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """What each cut costs, for `switching.Adapter`."""
        return tuple(cut.point for cut in self.cuts)

    @property
    def allowed(self) -> tuple[int, ...]:
        """The cuts that keep all budgets."""
        return tuple(number for number, cut in enumerate(self.cuts) if not cut.broken)


def read_plan(file: Path) -> Plan:
    """A plan that was written as JSON.

    Raises:
        UsageError: there is no such file, or it is something else.
    """
    plan: Plan = read_json(
        Plan, file, SCHEMA, "a plan", "write it with `onnxopt split plan MODEL ... -o plan.json`"
    )
    return _checked(plan, f"'{file}'")


def plan_of(text: str) -> Plan:
    """The plan in a manifest (`Manifest.planned`).

    Raises:
        UsageError: it is something else.
    """
    try:
        plan: Plan = typed(Plan, json.loads(text), "the plan")
    except (ValueError, RecursionError, OverflowError) as error:
        raise UsageError(f"the manifest holds no plan: {error}", "export the model again") from None
    return _checked(plan, "the plan of the manifest")


def _checked(plan: Plan, where: str) -> Plan:
    if not 0 <= plan.chosen < len(plan.cuts):
        raise UsageError(f"{where} chooses cut {plan.chosen}, of {len(plan.cuts)}")
    for context in (plan.context, *(plan.box.corners() if plan.box is not None else ())):
        scales = (context.bandwidth_bits, context.device_load, context.edge_load)
        if not all(0 < scale < float("inf") for scale in scales) or context.rtt_s < 0:
            raise UsageError(f"{where} has conditions that cannot be", "write it again")
    for cut in plan.cuts:
        point = cut.point
        numbers = (point.device_s, point.edge_s, point.sent_bytes, point.back_bytes)
        if not all(0 <= number < float("inf") for number in numbers):
            raise UsageError(f"{where} has a time or size that is negative or endless")
    return plan
