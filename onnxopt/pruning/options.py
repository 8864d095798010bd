"""How to prune: what the options of the command become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from onnxopt.errors import UsageError
from onnxopt.pruning.compensate import Compensation
from onnxopt.pruning.costs import UNITS, Mode
from onnxopt.pruning.criteria import Criterion

Strategy: TypeAlias = Literal["damage", "uniform", "complexity", "slr"]
Blocks: TypeAlias = Literal["auto", "keep", "drop"]
Reads: TypeAlias = Literal["auto", "all", "some"]

SELECTING_MODES: tuple[Mode, ...] = ("flops", "params")
"""A Gather costs no FLOPs, and one parameter for each channel that is read, which is hardly any of
the layer's own. It takes time that no profile knows, and makes one value more."""

WORTH_CHOOSING = 10**6
"""Multiply-accumulates of one run of a layer, below which a Gather before it takes more time than
it saves (each takes microseconds). A digits ResNet of smaller layers took 0.86 of its time instead
of 0.77 at 0.6 of its FLOPs; a ResNet-56, whose layers have 2.4 million, took the same."""

FEWEST_SAMPLES = 16
"""Calibration samples that refits need at least; some of them only judge."""


@dataclass(frozen=True)
class PruneOptions:
    """How to prune; the defaults are what the command does without options.

    Attributes:
        criterion: how channels are ordered within a group.
        strategy: how the budget is shared: by expected damage, evenly, drawn by complexity, or in
            two stages: channels under one threshold, then residual blocks.
        blocks: whether residual blocks may go; auto: where the budget is one of time, which
            narrower layers save little of.
        reads: whether layers read all channels that they are given, or may choose some of them, by
            a Gather; auto: for budgets of FLOPs and parameters, and where a Gather takes little
            time next to the layer.
        compensation: what happens to the weights that stay.
        multiple_of: what sizes of axes should be a multiple of.
        relaxed: `multiple_of` is finer for narrow groups, and halved where the budget could not be
            met within 1 % otherwise.
        ignore: names of nodes, or patterns of them, whose channels stay.
        max_per_group: largest share of a group that may go.
        min_channels: channels of a group that stay at least.
        seed: of whatever is drawn.
        prove: cut random units of each exact group alone, too, and compare.
    """

    criterion: Criterion = "obs"
    strategy: Strategy = "damage"
    blocks: Blocks = "auto"
    reads: Reads = "auto"
    compensation: Compensation = "ridge"
    multiple_of: int = 1
    relaxed: bool = False
    ignore: tuple[str, ...] = ()
    max_per_group: float = 1.0
    min_channels: int = 1
    seed: int = 0
    prove: bool = False

    def __post_init__(self) -> None:
        for value, legal in (
            (self.criterion, Criterion),
            (self.strategy, Strategy),
            (self.blocks, Blocks),
            (self.reads, Reads),
            (self.compensation, Compensation),
        ):
            if value not in get_args(legal):
                raise UsageError(f"there is no '{value}'", f"use {', '.join(get_args(legal))}")
        if self.blocks == "drop" and self.strategy in ("uniform", "complexity"):
            raise UsageError(
                f"the strategy {self.strategy} cuts channels only: no residual block may go",
                "use the strategy damage or slr, or keep the blocks",
            )
        if self.blocks == "keep" and self.strategy == "slr":
            raise UsageError(
                "the second stage of the strategy slr removes residual blocks, and all are to stay",
                "use another strategy, or let blocks go",
            )
        if self.reads == "some" and self.strategy != "damage":
            raise UsageError(
                f"the strategy {self.strategy} knows no layers that read some of their channels",
                "use the strategy damage, or let layers read all",
            )
        if self.multiple_of < 1:
            raise UsageError(
                f"channels cannot be a multiple of {self.multiple_of}", "ask for at least 1"
            )
        if not 0 <= self.max_per_group <= 1:
            raise UsageError(
                f"{self.max_per_group:g} is no fraction of the channels of a group",
                "write a number from 0 to 1, such as 0.8",
            )
        if self.min_channels < 1:
            raise UsageError(f"{self.min_channels} channels are too few", "at least 1 always stays")
        if self.seed < 0:
            raise UsageError(f"the seed {self.seed} is negative", "give 0 or more")

    def settled(self, mode: Mode, *, has_samples: bool) -> PruneOptions:
        """The same for a budget of this mode: whether layers choose what they read.

        Raises:
            UsageError: they are to read some of their channels, which this mode knows nothing of.
        """
        if self.reads == "some" and mode not in SELECTING_MODES:
            raise UsageError(
                f"what a Gather before a layer costs is not known for a budget of {UNITS[mode]}",
                "ask for FLOPs or parameters, or let layers read all their channels",
            )
        judges = has_samples and self.strategy == "damage" and self.criterion != "bn-scale"
        if self.reads == "auto" and not (judges and mode in SELECTING_MODES):
            return replace(self, reads="all")
        return self

    @property
    def least_choosing(self) -> int | None:
        """Multiply-accumulates of the smallest layer that may choose what it reads; None: none."""
        return {"all": None, "auto": WORTH_CHOOSING, "some": 0}[self.reads]

    @property
    def fewest_samples(self) -> int:
        return FEWEST_SAMPLES if self.compensation != "none" else 1
