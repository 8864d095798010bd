"""What pruning found and did, as plain data: groups, rounds, the pruned model."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from onnxopt.cost import Cost
from onnxopt.optimizer import Optimized
from onnxopt.pruning.groups import Declined
from onnxopt.pruning.proof import Proof
from onnxopt.pruning.refit import Refit
from onnxopt.pruning.removal import Gone
from onnxopt.timing import Timing

TOLERATED = 0.01
"""How far from the budget, as a share of it, a result may be without a word."""

TIME_TOLERATED = 0.03
"""The same of a budget of time."""


@dataclass(frozen=True)
class GroupView:
    """One group of channels before it is cut.

    Attributes:
        name: the node that makes its channels first.
        units: how many channels there are.
        members: nodes whose weights change with it.
        share: what the layers that make it cost, as a share of the model's cost; 0 if none does.
        lost: expected damage, as a share of the outputs' variance (without samples: weights that
            are gone by those that are left), when so many units are gone [units + 1].
        changed: why a cut is only approximate; "" if it is exact.
        measured: `lost` is from samples; else it is a guess from the weights alone.
        is_read: they are what one layer reads of channels that others read too, or that must stay.
    """

    name: str
    units: int
    members: tuple[str, ...]
    share: float
    lost: tuple[float, ...]
    changed: str
    measured: bool
    is_read: bool = False

    @property
    def exact(self) -> bool:
        return not self.changed


@dataclass(frozen=True)
class GroupChoice:
    """What became of one group in one round.

    Attributes:
        widths: those that it may have had.
        width: units that are left.
        removed: numbers of the units that are gone.
        damage: expected loss of output variance at this width.
        followed: of what one layer reads so many are gone because nothing makes them any more.
        proof: of a cut of random units of this group alone, if that was asked for.
    """

    group: GroupView
    widths: tuple[int, ...]
    width: int
    damage: float
    removed: tuple[int, ...]
    proof: Proof | None = None
    followed: int = 0

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def units(self) -> int:
        return self.group.units


@dataclass(frozen=True)
class BlockView:
    """One residual block before it goes.

    Attributes:
        name: of the node that adds.
        kind: what its branch is: "basic", "attention", ...
        share: what its layers cost, as a share of the model's cost.
        removed, shifted, replaced: expected damage, as a share of the outputs' variance, if that
            becomes of it alone; None where nothing tells, or where it is hardly better.
    """

    name: str
    kind: str
    share: float
    removed: float | None
    shifted: float | None
    replaced: float | None


@dataclass(frozen=True)
class BlockChoice:
    """A residual block, and what became of it; None: it stays."""

    block: BlockView
    becomes: Gone | None


@dataclass(frozen=True)
class Depth:
    """Residual blocks that went.

    Attributes:
        blocks: all that could go, in the order of the model.
        proof: that what is left gives what the model gives with their stand-ins put into it.
        refits: of all layers, after they went.
    """

    blocks: tuple[BlockChoice, ...]
    proof: Proof
    refits: tuple[Refit, ...] = ()

    @property
    def gone(self) -> tuple[BlockChoice, ...]:
        return tuple(choice for choice in self.blocks if choice.becomes is not None)


@dataclass(frozen=True)
class Round:
    """One pass of choosing, cutting and refitting.

    Attributes:
        proof: that the cut model gives what the model with these channels zeroed gives.
        multiple_of: the grid of the widths.
        depth: the blocks that went before channels were cut, if any could.
    """

    groups: tuple[GroupChoice, ...]
    declined: tuple[Declined, ...]
    proof: Proof
    multiple_of: int = 1
    refits: tuple[Refit, ...] = ()
    depth: Depth | None = None


@dataclass(frozen=True)
class LatencyTry:
    """Widths that were chosen for a budget of time: what of the original's is predicted for them.

    Attributes:
        measured: what they took beside the original, before refits; None for another machine.
    """

    predicted: float
    measured: Timing | None


@dataclass(frozen=True)
class Latency:
    """A budget of time, and what became of it. Shares are of the original, rewritten without loss.

    Attributes:
        asked: share that may remain.
        original_ms: of one run, by the profile.
        predicted: share, of the widths that were taken.
        measured: the finished model beside the original; None for another machine.
        tries: in order; the last need not be the one that was taken.
        machine: of the profile.
        stopped: why there were no more tries; "" where the budget is met or was tried often enough.
    """

    asked: float
    original_ms: float
    predicted: float
    measured: Timing | None
    tries: tuple[LatencyTry, ...]
    machine: str
    stopped: str = ""

    @property
    def reached(self) -> float:
        """The share that remains, as well as it is known."""
        return self.predicted if self.measured is None else self.measured.ratio


@dataclass(frozen=True)
class Pruned:
    """The pruned model and how it came about.

    Attributes:
        original, cost: what the model costs before and after.
        lossless: the model that was pruned: the original, rewritten.
        rewriting: what the lossless rewriter made of the pruned model.
        latency: if the budget was one of time, and not a plan's.
    """

    model: onnx.ModelProto
    original: Cost
    cost: Cost
    rounds: tuple[Round, ...]
    lossless: Optimized
    rewriting: Optimized
    notes: tuple[str, ...] = field(default=())
    latency: Latency | None = None


@dataclass(frozen=True)
class Preview:
    """What could be cut, and what would be.

    Attributes:
        widths: what each group would keep in one round; empty without a budget.
        blocks: the residual blocks that could go, and which would; empty where none may.
    """

    original: Cost
    groups: tuple[GroupView, ...]
    declined: tuple[Declined, ...]
    widths: tuple[int, ...] = ()
    blocks: tuple[BlockChoice, ...] = ()
    notes: tuple[str, ...] = ()
