"""What a sweep came to, as plain data: one point for each budget, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from onnxopt.cost import Cost
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import UNITS, Mode, StaticMode, measured
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.outcome import Samples
from onnxopt.pruning.results import Latency
from onnxopt.timing import Timing

Status: TypeAlias = Literal["met", "missed", "refused", "failed"]


@dataclass(frozen=True)
class Figures:
    """What a model costs; memory is of weights and all activations."""

    flops: int
    macs: int
    parameters: int
    memory_bytes: int
    size_bytes: int

    @classmethod
    def of(cls, cost: Cost) -> Figures:
        return cls(
            round(measured(cost, "flops")),
            cost.macs,
            cost.parameters,
            round(measured(cost, "memory")),
            cost.size_bytes,
        )

    def by(self, mode: StaticMode) -> int:
        """What a budget of this mode is compared with."""
        return {"flops": self.flops, "params": self.parameters, "memory": self.memory_bytes}[mode]


@dataclass(frozen=True)
class Worth:
    """What a pruned model is worth beside the original; None where that was not measured.

    Attributes:
        accuracy: the metric on labelled samples; higher is better.
        same_class: share of samples with the class of the original; of several outputs the least.
        relative_error: of the outputs; of several the largest.
        timing: one run of both in turns, on this machine.
    """

    accuracy: float | None
    same_class: float | None
    relative_error: float | None
    timing: Timing


@dataclass(frozen=True)
class Point:
    """One budget and what became of it.

    Attributes:
        name: of the point, and of its model's file without the ending.
        budget: in words.
        amount, relative: of the budget, a share of the original's cost if `relative`.
        status: met within 1 %, of time within 3 %; missed by more; refused: it cannot be met, or
            nothing needs cutting; failed: what came out did not pass a check.
        why: a sentence on what was refused or failed; else "".
        cost, worth: of the pruned model; None without one.
        latency: what became of a budget of time; None of others, and without a model.
        model: name of its file in the folder of the sweep; None if there is none.
        model_sha256: of its content with its weights.
        notes: what else the user should know of this point, in sentences.
    """

    name: str
    budget: str
    amount: float
    relative: bool
    status: Status
    why: str = ""
    cost: Figures | None = None
    worth: Worth | None = None
    latency: Latency | None = None
    model: str | None = None
    model_sha256: str | None = None
    notes: tuple[str, ...] = ()

    def share(self, sweep: Sweep) -> float:
        """What was asked for, as a share of the original's cost."""
        if self.relative:
            return self.amount
        assert sweep.mode != "latency", "budgets of time are shares here"
        return self.amount / max(sweep.before.by(sweep.mode), 1)

    def remaining(self, sweep: Sweep) -> float:
        """What the model of the point costs, as a share of the original's cost.

        Of time as it was measured, or as the profile of another machine predicts it.
        """
        assert self.cost is not None
        if sweep.mode == "latency":
            assert self.latency is not None
            return self.latency.reached
        return self.cost.by(sweep.mode) / sweep.before.by(sweep.mode)


@dataclass(frozen=True)
class Sweep:
    """A model pruned to several budgets.

    Attributes:
        source: path of the model.
        mode: the cost that all budgets are about.
        basis: what all points depend on, mostly as digests, by what a person calls that.
        metric: what `accuracy` is; None without labelled samples.
        judged_on: the samples that accuracy and agreement are of; "" without any.
        before: what the original costs.
        accuracy: of the original.
        options: how it was pruned.
        calibration: the samples it was pruned with; None without any.
        points: from the most that remains to the least.
        versions: of onnxopt and of what its result depends on.
        notes: what else the user should know of this run, in sentences.
    """

    source: str
    mode: Mode
    basis: Mapping[str, str]
    metric: str | None
    judged_on: str
    before: Figures
    accuracy: float | None
    options: PruneOptions
    calibration: Samples | None = None
    points: tuple[Point, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_point(self, point: Point) -> Sweep:
        """The same with this point, in place of an older one of its name."""
        others = [other for other in self.points if other.name != point.name]
        ordered = sorted([*others, point], key=lambda one: (-one.share(self), one.name))
        return replace(self, points=tuple(ordered))

    @property
    def done(self) -> tuple[Point, ...]:
        """The points that have a model."""
        return tuple(point for point in self.points if point.cost is not None)

    @property
    def elsewhere(self) -> Latency | None:
        """Of budgets of another machine's time, which is predicted and not measured, the first."""
        found = (point.latency for point in self.done)
        return next((latency for latency in found if latency and latency.measured is None), None)


def point_name(budget: Budget) -> str:
    """Short, and good as the name of a file: flops-0.5, params-60000."""
    amount = f"{budget.amount:.6g}" if budget.relative else str(round(budget.amount))
    return f"{budget.mode}-{amount}"


def cost_name(mode: Mode) -> str:
    """What a person calls the cost that budgets of this mode are about."""
    return "memory" if mode == "memory" else UNITS[mode]
