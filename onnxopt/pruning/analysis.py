"""One look at a model before it is cut: its groups, their order and what losing channels does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxopt.cost import Cost
from onnxopt.errors import UsageError
from onnxopt.graph import Array
from onnxopt.pruning.by_widths import CostByWidths
from onnxopt.pruning.cache import NO_CACHE, Cache
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.costs import owners
from onnxopt.pruning.layers import find_weights
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.moments import NotFiniteError
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.results import GroupView
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.scales import Scales, scales_of
from onnxopt.pruning.sensitivity import damages, factors
from onnxopt.pruning.statistics import Ranking, chunks, rank
from onnxopt.pruning.trials import couples

Tell: TypeAlias = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, 0 to 1."""

UNMEASURED = (
    "no output shows what a cut does to the model (outputs do that if they are floats, finite, "
    "and keep their shape), so each group's cut is judged by the error of the layers that read its "
    "channels alone"
)


@dataclass(frozen=True)
class Analysis:
    """What is known of the groups of one model.

    Attributes:
        rankings, lost: for each group the order of its units, and the damage [units + 1] when so
            many are gone.
        scales: what BatchNormalizations multiply the channels with; for bn-scale alone.
        notes: what the user should know of how they were found, in sentences.
    """

    proto: onnx.ModelProto
    channels: Channels
    rankings: tuple[Ranking, ...]
    lost: tuple[Array, ...]
    scales: Scales = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        return self.channels.groups

    def views(self, meter: Meter) -> tuple[GroupView, ...]:
        """The groups as a person sees them; shares are of what this meter shows."""
        cost = meter.by_widths(self.channels, self.groups)
        shares = _shares(cost, self.groups)
        return tuple(
            GroupView(
                name=group.name,
                units=len(group.units),
                members=_members(group),
                share=share,
                lost=tuple(float(x) for x in lost),
                changed=group.changed,
                measured=ranking.measured,
                is_read=group.is_read,
            )
            for group, ranking, lost, share in zip(
                self.groups, self.rankings, self.lost, shares, strict=True
            )
        )


def _members(group: ChannelGroup) -> tuple[str, ...]:
    nodes = (role.node for role in (*group.producers, *group.consumers))
    return tuple(dict.fromkeys(node.name or node.outputs[0].name for node in nodes))


def _shares(cost: CostByWidths, groups: Sequence[ChannelGroup]) -> list[float]:
    full = [len(group.units) for group in groups]
    each, total = cost.by_owner(full), cost.total(full) or 1.0
    return [sum(each.get(name, 0.0) for name in names) / total for names in owners(groups)]


def analyse(
    proto: onnx.ModelProto,
    batches: Sequence[Batch],
    options: PruneOptions,
    *,
    has_samples: bool,
    tell: Tell,
    scales: Callable[[Channels], Scales] = lambda channels: {},
    workers: int = 1,
    cache: Cache = NO_CACHE,
    may_be_empty: bool = False,
    choosing: frozenset[str] | None = None,
) -> Analysis:
    """Find the groups and measure them.

    Args:
        batches: samples; without any, drawn inputs with which the model runs.
        has_samples: the batches are samples.
        scales: finds what BatchNormalizations multiply the channels with; asked for bn-scale.
        workers: how many pieces of work are under way at once.
        may_be_empty: there need not be any groups, since something else is gone already.
        choosing: as of `channels_of`.

    Raises:
        UsageError: there is nothing to cut, or the criterion cannot be applied.
    """
    tell("following channels", 0.0)
    channels = channels_of(proto, batches, options, choosing)
    if not channels.groups and not may_be_empty:
        raise nothing_to_cut(channels)
    found = scales(channels) if options.criterion == "bn-scale" else {}
    rankings = _rankings(
        channels, batches if has_samples else (), options, found, tell, workers, cache
    )
    lost, notes = [ranking.curve for ranking in rankings], list[str]()
    if options.criterion == "bn-scale":
        notes += _without_scales(channels, found)
    if has_samples and options.strategy in ("damage", "slr"):
        in_turns = options.compensation == "ridge"
        with finite():
            known = factors(
                proto,
                rankings,
                batches,
                couples=couples(channels, rankings) if in_turns else {},
                is_repaired=options.compensation != "none",
                workers=workers,
                saved=cache.pieces("sensitivities", *_key(channels, options, found), in_turns),
                tell=lambda done: tell("measuring sensitivity", done),
            )
        lost = damages(rankings, known)
        if all(f is None for f in known) and any(ranking.trials for ranking in rankings):
            notes.append(UNMEASURED)
    return Analysis(
        proto, channels, tuple(rankings), tuple(map(_finite, lost)), found, tuple(notes)
    )


def channels_of(
    proto: onnx.ModelProto,
    batches: Sequence[Batch],
    options: PruneOptions,
    choosing: frozenset[str] | None = None,
) -> Channels:
    """The channels of a model, as these options look at them.

    Args:
        choosing: the layers that choose what they read, if that is known from an earlier round.

    Raises:
        UsageError: a pattern of what to ignore fits no node.
    """
    chosen = ignored(proto, options.ignore)
    selects = options.least_choosing if choosing is None else choosing
    return Channels(proto, batches[0], chosen, selects=selects)


@contextmanager
def finite() -> Iterator[None]:
    """What is looked at of samples is finite; if not, that is told as a mistake in them."""
    try:
        yield
    except NotFiniteError as error:
        raise UsageError(
            str(error), "check that the calibration samples are normalised as in training"
        ) from error


def _finite(lost: Array) -> Array:
    """The same without infinity and NaN: a very great damage in their place.

    No damage where nothing is gone: else all cuts would look as bad as none, and so be free.
    """
    known = lost[np.isfinite(lost)]
    worst = 10 * max(float(known.max()) if len(known) else 1.0, 1.0)
    made = np.nan_to_num(np.asarray(lost, np.float64), nan=worst, posinf=worst, neginf=0.0)
    if not np.isfinite(lost[0]):
        made[0] = 0.0
    return made


def _key(channels: Channels, options: PruneOptions, scales: Scales) -> tuple[Any, ...]:
    """What rankings depend on, beside the samples."""
    known = [[*place, found] for place, found in sorted(scales.items())]
    choosing = sorted(channels.selective)
    asked = options.criterion, options.seed, options.ignore, choosing
    return channels.proto, *asked, known


def _rankings(
    channels: Channels,
    batches: Sequence[Batch],
    options: PruneOptions,
    scales: Scales,
    tell: Tell,
    workers: int,
    cache: Cache,
) -> list[Ranking]:
    groups = channels.groups
    layers = list(find_weights(channels.model.graph, channels.instance.shape)) if batches else []
    parts = list(chunks(groups, layers, channels)) if batches else [list(range(len(groups)))]
    found: dict[int, Ranking] = {}
    for part in parts:
        some = [groups[i] for i in part]

        def told(stage: str, done: float, before: int = len(found), own: int = len(part)) -> None:
            tell(stage, (before + done * own) / len(groups))

        told("looking at samples", 0.0)
        with finite():
            ranked = rank(
                channels.proto,
                channels,
                some,
                layers,
                batches,
                options.criterion,
                options.seed,
                scales,
                workers=workers,
                saved=cache.pieces("rankings", *_key(channels, options, scales), part),
                tell=told,
            )
        found.update(zip(part, ranked, strict=True))
    return [found[i] for i in range(len(groups))]


def _without_scales(channels: Channels, scales: Scales) -> Iterator[str]:
    """A note that names the groups without a BatchNormalization.

    Raises:
        UsageError: there is none in the whole model.
    """
    names = [g.name for g in channels.groups if scales_of(scales, channels, g) is None]
    if len(names) == len(channels.groups):
        raise UsageError(
            "bn-scale needs a BatchNormalization over the channels, and no group of them has one",
            "use another --criterion, or a model exported without folding BatchNormalizations",
        )
    if names:
        yield (
            "these groups have no BatchNormalization and go by the size of their weights (l2): "
            + ", ".join(names)
        )


def ignored(proto: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    """The nodes that the patterns name.

    Raises:
        UsageError: a pattern that fits no node.
    """
    names = [node.name for node in proto.graph.node if node.name]
    found: list[str] = []
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(
                f"no node is called '{pattern}'", "`onnxopt prune MODEL --dry-run` lists the names"
            )
        found += matched
    return found


FREEZE = "--freeze-inputs"


def nothing_to_cut(channels: Channels, blocks: str = "", fix: str = "") -> UsageError:
    """No channels can be removed, and no residual blocks: what is to be told of these."""
    why = _why_not(channels)
    if not fix and FREEZE in why:
        fix = f"{FREEZE} says that callers leave these weights as they are"
    return UsageError(f"no channels of this model can be removed{blocks}: {why}", fix)


def _why_not(channels: Channels) -> str:
    """The commonest reasons for which channels stay."""
    reasons = sorted(channels.declined, key=lambda d: -d.channels)[:3]
    return "; ".join(f"{d.node}: {d.reason}" for d in reasons) or "it has no layers with weights"


def reference_cost(original: Cost, base: Cost) -> Cost:
    """What a relative budget is a share of: the original, where that is known.

    Where the original's shapes are not declared its rewritten form tells more.
    """
    if not original.unknown or base.unknown:
        return original
    return replace(
        original,
        macs=base.macs,
        activation_bytes=base.activation_bytes,
        peak_memory_bytes=base.peak_memory_bytes,
        unknown=(),
    )
