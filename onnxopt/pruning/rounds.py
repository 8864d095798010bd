"""Rounds of pruning: cut what was chosen, prove the cut, refit what stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx

from onnxopt.errors import CheckError
from onnxopt.graph import Array
from onnxopt.pruning.analysis import Analysis, Tell, analyse, channels_of, finite, ignored
from onnxopt.pruning.blocks import Block, blocks_of
from onnxopt.pruning.cache import NO_CACHE, Cache
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.choosing import Choice, choose, least_widths
from onnxopt.pruning.compensate import compensate, following
from onnxopt.pruning.gap import prove_gap, standins
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.pairs import find_pairs
from onnxopt.pruning.plan import RecordedRound
from onnxopt.pruning.proof import Proof, prove
from onnxopt.pruning.refit import Refit
from onnxopt.pruning.removal import without
from onnxopt.pruning.results import BlockChoice, Depth, GroupChoice, GroupView, Round
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.scales import Scales

Confirm: TypeAlias = Callable[[Callable[[float], Choice], Channels], Choice]
"""Is given how widths are chosen for a target, and says which choice meets the budget."""


@dataclass
class Rounds:
    """The rounds of one pruning.

    Args:
        base: the model, rewritten without loss, with a bias in every convolution.
        first: what is known of it, if it has been analysed already.
    """

    base: onnx.ModelProto
    options: PruneOptions
    batches: Sequence[Batch]
    has_samples: bool
    tell: Tell
    first: Analysis | None = None
    workers: int = 1
    cache: Cache = NO_CACHE
    done: list[Round] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pruned = self.base
        self._kept: dict[tuple[str, int], Array] = {}
        self._least: dict[str, int] = {}
        self._choosing: frozenset[str] | None = None
        self._depth: Depth | None = None

    def choose_and_cut(self, meter: Meter, target: float, confirm: Confirm | None = None) -> None:
        """One round that ends at this cost, or at what is confirmed to be the budget."""
        self.cut(meter, *self.choose(meter, target, confirm))

    def choose(
        self, meter: Meter, target: float, confirm: Confirm | None = None
    ) -> tuple[Analysis, Choice]:
        """What such a round would cut; nothing is cut yet."""
        analysis = self.analysis()
        self.tell("choosing widths", 0.0)
        least, channels = self._least, analysis.channels

        def chosen(target: float) -> Choice:
            return choose(analysis, meter, target, self.options, least)

        return analysis, chosen(target) if confirm is None else confirm(chosen, channels)

    def cut(self, meter: Meter, analysis: Analysis, choice: Choice) -> None:
        """Cut what was chosen for the model as it is, and refit what stays."""
        channels = analysis.channels
        if not self._least:
            self._least = least_widths(analysis, self.options)
        proofs = self._proofs(channels)
        proof = self._proved(channels, choice.dead)
        lost = frozenset(channels.tracker.following(choice.dead))
        groups = tuple(
            _group_choice(group, view, curve.widths, choice.dead, lost, each)
            for group, view, curve, each in zip(
                channels.groups, analysis.views(meter), choice.curves, proofs, strict=True
            )
        )
        self._cut(channels, choice.dead, proof, groups, choice.multiple_of)

    @property
    def least(self) -> Mapping[str, int]:
        """Units that must stay in whatever rounds follow, by name of group."""
        return self._least

    def channels(self) -> Channels:
        """Of the model as it is."""
        return channels_of(self.pruned, self.batches, self.options, self._choosing)

    def analysis(self) -> Analysis:
        """Of the model as it is."""
        known = self.first
        if known is not None and known.proto is self.pruned:
            return known
        scales = {} if known is None else self._left_of(known.scales)
        return analyse(
            self.pruned, self.batches, self.options,
            has_samples=self.has_samples, tell=self.tell, scales=lambda channels: scales,
            workers=self.workers, cache=self.cache, may_be_empty=self._depth is not None,
            choosing=self._choosing,
        )  # fmt: skip

    def drop(self, chosen: Sequence[BlockChoice]) -> None:
        """Take out residual blocks of the model as it is, and refit what stays.

        Args:
            chosen: all blocks that could go; where all stay nothing changes.

        Raises:
            CheckError: a block is not there, or what is left is not what was meant.
        """
        found = {block.name: block for block in self.blocks()}
        gone = {c.block.name: c.becomes for c in chosen if c.becomes is not None}
        if not gone:
            self._depth = Depth(tuple(chosen), Proof(0.0, True))
            return
        if missing := sorted(gone.keys() - found.keys()):
            raise CheckError(
                f"there is no residual block '{missing[0]}' in this model",
                "the plan was made by another version of onnxopt: prune again",
            )
        named = {found[name]: becomes for name, becomes in gone.items()}
        made = standins(self.pruned, named, self.batches)
        proof = prove_gap(self.pruned, made, self.batches[0])
        if not proof.holds:
            raise CheckError(
                f"without its blocks the model is off by {proof.error:.1e} from what was meant",
                "nothing was written; please report this model; --blocks keep leaves blocks alone",
            )
        self.pruned = without(self.pruned, made)
        with finite():
            refits = tuple(self._compensate())
        self._depth = Depth(tuple(chosen), proof, refits)

    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks of the model as it is that may go; their sums have their names."""
        kept = set(ignored(self.pruned, self.options.ignore))
        names = {o: n.name for n in self.pruned.graph.node for o in n.output}
        found = blocks_of(self.pruned, self.batches[0]).found
        return tuple(
            b for b in found if not kept.intersection(names[n] for n in (*b.nodes, b.exit))
        )

    def repeat(self, recorded: RecordedRound) -> None:
        """One round as a plan has it.

        Raises:
            CheckError: the groups or blocks are others, or the cut does not prove.
        """
        if recorded.blocks:
            self.drop(recorded.blocks)
        channels = self.channels()
        found = [(group.name, len(group.units)) for group in channels.groups]
        if found != [(view.name, view.units) for view, _, _ in recorded.groups]:
            raise CheckError(
                "the plan's groups of channels are not those of this model",
                "the plan was made by another version of onnxopt: prune again",
            )
        dead = frozenset(
            group.units[number]
            for group, (_, _, removed) in zip(channels.groups, recorded.groups, strict=True)
            for number in removed
        )
        proofs = self._proofs(channels)
        proof = self._proved(channels, dead)
        lost = frozenset(channels.tracker.following(dead))
        groups = tuple(
            _group_choice(group, view, widths, dead, lost, each)
            for group, (view, widths, _), each in zip(
                channels.groups, recorded.groups, proofs, strict=True
            )
        )
        self._cut(channels, dead, proof, groups, recorded.multiple_of)

    def _cut(
        self,
        channels: Channels,
        dead: frozenset[int],
        proof: Proof,
        groups: tuple[GroupChoice, ...],
        multiple_of: int,
    ) -> None:
        self._choosing = channels.selective
        self.pruned = channels.cut(dead)
        self._remember(channels, dead)
        with finite():
            refits = tuple(self._compensate())
        depth, self._depth = self._depth, None
        self.done.append(Round(groups, channels.declined, proof, multiple_of, refits, depth))

    def _proved(self, channels: Channels, dead: frozenset[int]) -> Proof:
        proof = prove(channels, dead, self.batches[:1])
        if not proof.holds:
            raise CheckError(
                f"the cut model differs from the zeroed one by {proof.error:.1e}",
                "nothing was written; please report this model",
            )
        return proof

    def _proofs(self, channels: Channels) -> list[Proof | None]:
        """Of random cuts of each exact group alone, in the first round, if that is asked for."""
        groups = channels.groups
        if not self.options.prove or self.done:
            return [None] * len(groups)
        found: list[Proof | None] = []
        for number, group in enumerate(groups):
            self.tell("proving", number / len(groups))
            dead = half_of(channels, group, [self.options.seed, number])
            found.append(prove(channels, dead, self.batches[:1], [group]) if dead else None)
        failed = [g.name for g, p in zip(groups, found, strict=True) if p and not p.holds]
        if failed:
            raise CheckError(
                f"random cuts of these groups do not prove: {', '.join(failed)}",
                "nothing was written; please report this model; --ignore leaves groups alone",
            )
        return found

    def _remember(self, channels: Channels, dead: Iterable[int]) -> None:
        """Which channels of the original are left, after this round and those before."""
        for key, mask in channels.kept(dead).items():
            before = self._kept.get(key)
            if before is None:
                self._kept[key] = mask
            else:
                both = before.copy()
                both[np.flatnonzero(before)] = mask
                self._kept[key] = both

    def _left_of(self, scales: Scales) -> Scales:
        """The scales of the channels that are left."""
        return {
            key: found[self._kept[key]] if key in self._kept else found
            for key, found in scales.items()
        }

    def _compensate(self) -> list[Refit]:
        if not self.has_samples or self.options.compensation == "none":
            return []
        after = Channels(self.pruned, self.batches[0])
        layers = list(find_layers(after.model.graph, after.instance.shape))
        kept = [[*axis, mask] for axis, mask in sorted(self._kept.items())]
        return compensate(
            self.base,
            self.pruned,
            layers,
            following(after.model.graph, layers, after.instance.shape),
            self._kept,
            self.batches,
            self.options.compensation,
            find_pairs(after.model.graph, layers),
            self.workers,
            lambda done: self.tell("refitting", done),
            self.cache.pieces("refits", self.base, self.pruned, kept, self.options.compensation),
        )


def half_of(channels: Channels, group: ChannelGroup, seed: Sequence[int]) -> frozenset[int]:
    """Half of the units of a group at random, but no axis without any."""
    rng = np.random.default_rng(list(seed))
    dead = rng.choice(group.units, len(group.units) // 2, replace=False).tolist()
    return channels.possible(dead)


def _group_choice(
    group: ChannelGroup,
    view: GroupView,
    widths: tuple[int, ...],
    dead: frozenset[int],
    lost: frozenset[int],
    proof: Proof | None,
) -> GroupChoice:
    """What became of a group.

    Args:
        lost: the units of `dead` that layers cannot read, as nothing makes them any more.
    """
    removed = tuple(i for i, unit in enumerate(group.units) if unit in dead)
    followed = len(lost.intersection(group.units)) if group.is_read else 0
    return GroupChoice(
        group=view,
        widths=widths,
        width=len(group.units) - len(removed),
        damage=max(view.lost[len(removed) - followed] - view.lost[0], 0.0),
        removed=removed,
        proof=proof,
        followed=followed,
    )
