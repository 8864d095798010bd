"""The options of pruning, which `prune` and `optimize` share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxopt.cli.grouped import takes

PANEL = "Pruning"


class CriterionChoice(str, Enum):
    """How channels are ordered within a group."""

    obs = "obs"
    admm = "admm"
    l1 = "l1"
    l2 = "l2"
    fpgm = "fpgm"
    bn_scale = "bn-scale"
    random = "random"


class StrategyChoice(str, Enum):
    """How the budget is shared among groups."""

    damage = "damage"
    uniform = "uniform"
    complexity = "complexity"
    slr = "slr"


class BlocksChoice(str, Enum):
    """Whether residual blocks may go."""

    auto = "auto"
    keep = "keep"
    drop = "drop"


class ReadsChoice(str, Enum):
    """Whether layers may read a part of the channels that they are given."""

    auto = "auto"
    all = "all"
    some = "some"


class CompensationChoice(str, Enum):
    """What happens to the weights that stay."""

    ridge = "ridge"
    scale = "scale"
    none = "none"


class AugmentChoice(str, Enum):
    """What more is made of the calibration samples."""

    none = "none"
    flip = "flip"


def _option(*names: str, metavar: str | None = None, help: str = "") -> Any:
    return typer.Option(*names, metavar=metavar, help=help, show_default=False)


@dataclass(frozen=True)
class PruningArguments:
    """The options as they are given; their types say how they are read."""

    flops: Annotated[
        str | None,
        _option(metavar="0.5", help="FLOPs that remain: 0.5, 50%, -30% (what goes) or 60M."),
    ] = None
    params: Annotated[
        str | None, _option(metavar="0.5", help="Parameters that remain, likewise.")
    ] = None
    memory: Annotated[
        str | None,
        _option(metavar="8MB", help="Memory of weights and activations that remains, likewise."),
    ] = None
    latency: Annotated[
        str | None,
        _option(
            metavar="0.7",
            help="Time of one run that remains: 0.7, 70%, -30% or 12ms. Layers are timed here "
            "first, and the cut model beside the original.",
        ),
    ] = None
    profile: Annotated[
        Path | None,
        _option(
            metavar="FILE.json",
            help="With a budget of time: the times of the layers, by `onnxopt profile --widths` on "
            "the device that counts. Of another machine than this the result is predicted only.",
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        _option(
            metavar="FILE.npz|DIR",
            help="Unlabelled samples (arrays named like inputs, or a folder of .npy or images).",
        ),
    ] = None
    preprocess: Annotated[
        str | None,
        _option(metavar="mean=..,std=..", help="How images become samples."),
    ] = None
    samples: Annotated[
        int | None, _option(metavar="N", help="Calibration samples to use (1024).")
    ] = None
    augment: Annotated[
        AugmentChoice | None,
        _option(
            help="flip: use the mirror image of each sample too, for images that could as well be "
            "mirrored (none)."
        ),
    ] = None
    seed: Annotated[int | None, _option(metavar="N", help="Of whatever is drawn (0).")] = None
    criterion: Annotated[
        CriterionChoice | None, _option(help="How channels of a group are ordered (obs).")
    ] = None
    strategy: Annotated[
        StrategyChoice | None,
        _option(
            help="How the budget is shared: by expected damage, evenly, drawn by complexity; slr: "
            "channels under one threshold first, then residual blocks (damage)."
        ),
    ] = None
    blocks: Annotated[
        BlocksChoice | None,
        _option(
            help="Whether residual blocks may go as a whole, or a linear map take their place: "
            "auto lets them where the budget is one of time (auto)."
        ),
    ] = None
    reads: Annotated[
        ReadsChoice | None,
        _option(
            help="Whether a layer may do without some of the channels that others read too or that "
            "have to stay: a Gather chooses what it reads. some: any layer; auto: layers so large "
            "that this takes hardly any time, for budgets of FLOPs and parameters (auto)."
        ),
    ] = None
    compensation: Annotated[
        CompensationChoice | None, _option(help="How what stays makes up for it (ridge).")
    ] = None
    multiple_of: Annotated[
        int | None,
        _option(
            metavar="N",
            help="Widths are multiples of this (by default of what kernels here take at once, less "
            "in narrow groups and where the budget would be missed).",
        ),
    ] = None
    ignore: Annotated[
        list[str] | None,
        _option(metavar="NAME|PATTERN", help="Nodes whose channels stay. Repeatable."),
    ] = None
    max_per_group: Annotated[
        float | None, _option(metavar="0.8", help="Largest share of a group that may go (1).")
    ] = None
    min_channels: Annotated[
        int | None, _option(metavar="N", help="Channels of a group that stay at least (1).")
    ] = None
    prove: Annotated[
        bool, typer.Option("--prove", help="Prove random cuts of each group alone as well.")
    ] = False
    evaluate: Annotated[
        Path | None,
        _option(
            "--eval", metavar="FILE.npz", help="Labelled samples (array 'labels') to judge by."
        ),
    ] = None
    metric: Annotated[
        str | None,
        _option(metavar="top1|top5|mse|MODULE:FUNCTION", help="What --eval measures (top1)."),
    ] = None
    max_drop: Annotated[
        float | None,
        _option(
            metavar="POINTS",
            help="Search the largest cut whose metric on --eval falls by no more than this (points "
            "of top1 and top5, else units of the metric); a budget then says how far to go at "
            "most.",
        ),
    ] = None
    save_plan: Annotated[
        Path | None, _option(metavar="PLAN.json", help="Write what was cut, to be replayed.")
    ] = None
    plan: Annotated[
        Path | None,
        _option(metavar="PLAN.json", help="Cut what this plan says, to the same bytes."),
    ] = None
    workers: Annotated[
        int | None,
        _option(
            metavar="N",
            help="Pieces of work at once, each in a thread that may take 0.5 GB (as many as there "
            "are cores, at most 4). The result is the same to the byte.",
        ),
    ] = None
    cache: Annotated[
        Path | None,
        _option(
            metavar="DIR",
            help="Keep finished pieces of work here, so that an interrupted run goes on where it "
            "was. Takes about four times the model, and once more for each other budget; may be "
            "deleted at any time.",
        ),
    ] = None

    @property
    def data(self) -> tuple[Path | None, ...]:
        """What these options have read."""
        return self.calibration, self.evaluate, self.plan, self.profile

    @property
    def is_given(self) -> bool:
        return any(getattr(self, f.name) not in (None, False, []) for f in fields(self))


takes_pruning = takes(pruning=PruningArguments)
