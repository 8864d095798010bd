"""Prune a model to a budget: rank, choose widths, cut, make up for what is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import gcd
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import onnx.numpy_helper

from onnxopt.calibration import Calibration
from onnxopt.cost import Cost, cost_of
from onnxopt.errors import CheckError, UsageError
from onnxopt.graph import Array
from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.allocate import Curve, allocate, complexity, uniform
from onnxopt.pruning.channels import ChannelGroup, Channels, Declined
from onnxopt.pruning.compensate import Compensation, Refit, compensate, following
from onnxopt.pruning.costs import Mode, measured, owners, width_cost
from onnxopt.pruning.criteria import Criterion
from onnxopt.pruning.grid import legal_widths
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.proof import Proof, prove
from onnxopt.pruning.samples import Batch, batches_of
from onnxopt.pruning.sensitivity import damages
from onnxopt.pruning.statistics import Ranking, chunks, rank
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs

Strategy: TypeAlias = Literal["damage", "uniform", "complexity"]
Tell: TypeAlias = Callable[[str, float], None]

ONE_ROUND = 0.45
"""Share of the cost that may be left after one round; smaller targets take two (design, 5)."""

CLOSE_ENOUGH = 0.005
"""How far from the budget, as a share of it, the chosen widths may end."""

MOST_CORRECTIONS = 4


@dataclass(frozen=True)
class Budget:
    """What the pruned model may cost.

    Attributes:
        mode: FLOPs (twice the multiply-accumulates), parameters, or memory (weights and
            activations, in bytes).
        amount: a share of the original's cost if `relative`, else the cost itself.
    """

    mode: Mode
    amount: float
    relative: bool = True

    def target(self, original: Cost) -> float:
        return self.amount * measured(original, self.mode) if self.relative else self.amount


@dataclass(frozen=True)
class PruneOptions:
    """How to prune; the defaults are what the command does without options.

    Attributes:
        criterion: how channels are ordered within a group.
        strategy: how the budget is shared: by expected damage, evenly, or drawn by complexity.
        compensation: what happens to the weights that stay.
        multiple_of: sizes of axes that are wanted.
        ignore: names of nodes, or patterns of them, whose channels stay.
        max_per_group: largest share of a group that may go.
        min_channels: channels of a group that stay at least.
        seed: of whatever is drawn.
    """

    criterion: Criterion = "obs"
    strategy: Strategy = "damage"
    compensation: Compensation = "ridge"
    multiple_of: int = 1
    ignore: tuple[str, ...] = ()
    max_per_group: float = 0.9
    min_channels: int = 1
    seed: int = 0


@dataclass(frozen=True)
class GroupChoice:
    """What became of one group in one round.

    Attributes:
        damage: expected loss of output variance at this width.
        removed: numbers of the units that are gone.
    """

    name: str
    units: int
    width: int
    damage: float
    exact: bool
    measured: bool
    removed: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """One pass of choosing, cutting and refitting."""

    groups: tuple[GroupChoice, ...]
    declined: tuple[Declined, ...]
    proof: Proof | None
    refits: tuple[Refit, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """The pruned model and how it came about."""

    model: onnx.ModelProto
    original: Cost
    cost: Cost
    rounds: tuple[Round, ...]
    notes: tuple[str, ...] = field(default=())


def prune(
    proto: onnx.ModelProto,
    budget: Budget,
    calibration: Calibration | None = None,
    options: PruneOptions = PruneOptions(),
    *,
    tell: Tell = lambda stage, done: None,
) -> Pruned:
    """Remove channels until the model costs what the budget says, and refit what stays.

    Args:
        proto: the model; it is not changed.
        calibration: unlabelled samples; without them channels go by their weights alone and
            nothing is refitted.

    Raises:
        UsageError: the budget cannot be met, or the options make no sense.
        BadModelError, UnverifiableError: the model is not valid, or does not run here.
        CheckError: a cut that should be exact is not: a bug of ours. Nothing is returned.
    """
    original = cost_of(proto)
    target = budget.target(original)
    if target >= measured(original, budget.mode):
        raise UsageError("the model is within the budget already", "ask for less")
    tell("rewriting", 0.0)
    base = with_biases(optimize(proto, Options(verify=False)).model)
    batches = _batches(base, calibration)
    run = _Run(base, budget.mode, target, options, batches, calibration is not None, tell)
    run.all_rounds()
    tell("rewriting", 0.0)
    made = optimize(without_zero_biases(run.pruned)).model
    return Pruned(made, original, cost_of(made), tuple(run.rounds))


def _batches(proto: onnx.ModelProto, calibration: Calibration | None) -> list[Batch]:
    if calibration is None:
        from onnxopt.verification.feeds import draws

        return [dict(draws(proto, Session(proto)).feeds[0].arrays)]
    return batches_of(calibration, model_inputs(proto))


@dataclass
class _Run:
    """The rounds of one pruning."""

    base: onnx.ModelProto
    mode: Mode
    target: float
    options: PruneOptions
    batches: Sequence[Batch]
    has_samples: bool
    tell: Tell
    rounds: list[Round] = field(default_factory=list)
    kept: dict[tuple[str, int], Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pruned = self.base

    def all_rounds(self) -> None:
        start = measured(cost_of(self.base), self.mode)
        share = self.target / start
        if share < ONE_ROUND and self.has_samples and self.options.strategy == "damage":
            self.one_round((start * self.target) ** 0.5)
        self.one_round(self.target)

    def one_round(self, target: float) -> None:
        """Choose, cut, prove and refit once."""
        options = self.options
        channels = Channels(self.pruned, self.batches[0], self._ignored())
        groups = channels.groups
        if not groups:
            raise UsageError("no channels of this model can be removed", why_not(channels))
        rankings = self._rankings(channels, groups)
        curves = [
            _curve(channels, group, harm, options)
            for group, harm in zip(groups, self._damages(rankings), strict=True)
        ]
        dead, widths = self._choose(channels, curves, rankings, target)
        proof = prove(channels, dead, self.batches[:1])
        if not proof.holds:
            raise CheckError(
                f"the cut model differs from the zeroed one by {proof.error:.1e}",
                "nothing was written; please report this model",
            )
        before = self.pruned
        self.pruned = channels.cut(dead)
        self._remember(channels, dead)
        refits = self._compensate(channels)
        del before
        choices = tuple(
            _choice(group, ranking, curve, width, dead)
            for group, ranking, curve, width in zip(groups, rankings, curves, widths, strict=True)
        )
        self.rounds.append(Round(choices, channels.declined, proof, tuple(refits)))

    def _ignored(self) -> list[str]:
        names = [node.name or node.output[0] for node in self.base.graph.node]
        found: list[str] = []
        for pattern in self.options.ignore:
            matched = [name for name in names if fnmatchcase(name, pattern)]
            if not matched:
                raise UsageError(f"no node is called '{pattern}'", "see `onnxopt prune --dry-run`")
            found += matched
        return found

    def _rankings(self, channels: Channels, groups: Sequence[ChannelGroup]) -> list[Ranking]:
        layers = list(find_layers(channels.model.graph, channels.instance.shape))
        found: dict[int, Ranking] = {}
        parts = list(chunks(groups, layers, channels)) if self.has_samples else [range(len(groups))]
        for part in parts:
            self.tell("looking at samples", len(found) / len(groups))
            usable = layers if self.has_samples else []
            some = [groups[i] for i in part]
            ranked = rank(
                self.pruned, channels, some, usable, self.batches,
                self.options.criterion, self.options.seed,
            )  # fmt: skip
            found.update(zip(part, ranked, strict=True))
        return [found[i] for i in range(len(groups))]

    def _damages(self, rankings: Sequence[Ranking]) -> list[Array]:
        if not self.has_samples or self.options.strategy != "damage":
            return [ranking.curve for ranking in rankings]
        self.tell("measuring sensitivity", 0.0)
        copy = onnx.ModelProto()
        copy.CopyFrom(self.pruned)
        return damages(copy, rankings, self.batches)

    def _choose(
        self,
        channels: Channels,
        curves: Sequence[Curve],
        rankings: Sequence[Ranking],
        target: float,
    ) -> tuple[set[int], list[int]]:
        """The units to remove; widths are corrected until the cut model costs what it should."""
        groups = channels.groups
        cost = width_cost(channels, groups, self.mode)
        full = [len(group.units) for group in groups]
        fixed = measured(cost_of(optimize(self.pruned, _QUICK).model), self.mode) - cost.total(full)
        aim = target - fixed
        best: tuple[set[int], list[int]] | None = None
        for _ in range(MOST_CORRECTIONS):
            widths = list(self._allocate(curves, cost, aim, groups))
            dead = _dead(channels, rankings, widths)
            cut = optimize(channels.cut(dead), _QUICK).model
            actual = measured(cost_of(cut), self.mode)
            if best is None or actual <= target * (1 + CLOSE_ENOUGH):
                best = dead, widths
            if actual <= target * (1 + CLOSE_ENOUGH):
                break
            aim -= actual - target
        assert best is not None
        return best

    def _allocate(
        self, curves: Sequence[Curve], cost: Any, aim: float, groups: Sequence[ChannelGroup]
    ) -> Sequence[int]:
        if self.options.strategy == "uniform":
            return uniform(curves, cost, aim)
        if self.options.strategy == "complexity":
            return complexity(curves, cost, aim, seed=self.options.seed, owners=owners(groups))
        return allocate(curves, cost, aim)

    def _remember(self, channels: Channels, dead: set[int]) -> None:
        """Which channels of the original are left, after this round and those before."""
        for key, mask in channels.kept(dead).items():
            before = self.kept.get(key)
            if before is None:
                self.kept[key] = mask
            else:
                both = before.copy()
                both[np.flatnonzero(before)] = mask
                self.kept[key] = both

    def _compensate(self, channels: Channels) -> list[Refit]:
        if not self.has_samples or self.options.compensation == "none":
            return []
        after = Channels(self.pruned, self.batches[0])
        layers = list(find_layers(after.model.graph, after.instance.shape))
        return compensate(
            self.base,
            self.pruned,
            layers,
            following(after.model.graph, layers),
            self.kept,
            self.batches,
            self.options.compensation,
            lambda done: self.tell("refitting", done),
        )


_QUICK = Options(verify=False)


def _curve(
    channels: Channels,
    group: ChannelGroup,
    lost: Array,
    options: PruneOptions,
) -> Curve:
    units = len(group.units)
    multiple, fixed = _grid(channels, group, options.multiple_of)
    widths = legal_widths(
        units,
        multiple_of=multiple,
        min_channels=options.min_channels,
        max_per_group=options.max_per_group,
        fixed=fixed,
    )
    harm = [max(float(lost[units - w] - lost[0]), 0.0) for w in widths]
    harm[-1] = 0.0
    return Curve(group.name, widths, tuple(harm))


def _grid(channels: Channels, group: ChannelGroup, multiple_of: int) -> tuple[int, int]:
    """What the number of units should be a multiple of, and what else lies on their axis."""
    role = group.producers[0]
    label = channels.tracker.axes(role.weight)[role.axis]
    if isinstance(label, str):
        return 1, 0
    roots = channels.tracker.atoms.roots(label)
    own = int(np.isin(roots, group.units).sum())
    each = max(own // len(group.units), 1)
    others = len(roots) - own
    if each > 1:
        return multiple_of // gcd(multiple_of, each), 0
    return multiple_of, others


def _dead(channels: Channels, rankings: Sequence[Ranking], widths: Sequence[int]) -> set[int]:
    """The units beyond the widths; of an axis that would lose all, the best one stays."""
    rank_of: dict[int, float] = {}
    dead: set[int] = set()
    for group, ranking, width in zip(channels.groups, rankings, widths, strict=True):
        units = len(group.units)
        for place, number in enumerate(ranking.order.tolist()):
            rank_of[group.units[number]] = place / units
            if place < units - width:
                dead.add(group.units[number])
    while empty := next(channels.emptied(dead), None):
        dead.discard(max(empty, key=lambda unit: (rank_of.get(unit, 0.0), unit)))
    return dead


def _choice(
    group: ChannelGroup, ranking: Ranking, curve: Curve, width: int, dead: set[int]
) -> GroupChoice:
    removed = tuple(i for i, unit in enumerate(group.units) if unit in dead)
    damage = curve.damage[curve.widths.index(width)]
    return GroupChoice(
        group.name,
        len(group.units),
        len(group.units) - len(removed),
        damage,
        group.exact,
        ranking.measured,
        removed,
    )


def why_not(channels: Channels) -> str:
    """The commonest reasons for which channels stay."""
    reasons = sorted(channels.declined, key=lambda d: -d.channels)[:3]
    return "; ".join(f"{d.node}: {d.reason}" for d in reasons) or "it has no layers with weights"


def with_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every convolution has a bias: refits move means, which need one."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    shapes = {t.name: (tuple(t.dims), t.data_type) for t in made.graph.initializer}
    for node in made.graph.node:
        transposed = node.op_type == "ConvTranspose"
        if (node.op_type != "Conv" and not transposed) or node.domain not in ("", "ai.onnx"):
            continue
        found = shapes.get(node.input[1])
        if found is None or (len(node.input) > 2 and node.input[2]):
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        count = found[0][1] * groups if transposed else found[0][0]
        name = _free(f"{node.output[0]}{ADDED_BIAS}", shapes)
        shapes[name] = ((count,), found[1])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(found[1])
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(count, dtype), name))
        del node.input[2:]
        node.input.append(name)
    return made


ADDED_BIAS = "_added_bias"


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


def without_zero_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take out the biases of `with_biases` that no refit made use of."""
    zero = {
        t.name
        for t in proto.graph.initializer
        if ADDED_BIAS in t.name and not onnx.numpy_helper.to_array(t).any()
    }
    for node in proto.graph.node:
        if len(node.input) == 3 and node.input[2] in zero:
            del node.input[2:]
    return proto
