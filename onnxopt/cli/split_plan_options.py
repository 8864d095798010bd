"""The options of `split plan`, in two groups: where to look for plans, and how to prune as well."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class ObjectiveChoice(str, Enum):
    """What is to be best."""

    latency = "latency"
    energy = "energy"
    throughput = "throughput"


class CodecsChoice(str, Enum):
    """Which codecs a plan may use."""

    auto = "auto"
    none = "none"
    fp16 = "fp16"
    uint8 = "uint8"


@dataclass(frozen=True)
class PlanArguments:
    """The options as they are given; their types say how they are read."""

    device: Annotated[
        Path, typer.Option(metavar="FILE.json", help="What `split profile` wrote on the device.")
    ]
    bandwidth: Annotated[
        str, typer.Option(metavar="5.85Mbit", help="Of the link, each way, per second.")
    ]
    edge: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="What it wrote at the edge.  [default: that of the device]"
        ),
    ] = None
    edge_speedup: Annotated[
        float, typer.Option(help="Take the edge as so many times as fast as it was measured.")
    ] = 1.0
    device_slowdown: Annotated[
        float, typer.Option(help="Take the device as so many times as slow as it was measured.")
    ] = 1.0
    rtt: Annotated[
        str, typer.Option(metavar="50ms", help="A request without data, there and back.")
    ] = "0ms"
    objective: Annotated[ObjectiveChoice, typer.Option(help="What is to be best.")] = (
        ObjectiveChoice.latency
    )
    codec: Annotated[
        CodecsChoice,
        typer.Option(
            help="How float32 tensors may cross. auto: whatever is best within --max-error; "
            "without --calibration none or fp16."
        ),
    ] = CodecsChoice.auto
    max_error: Annotated[
        str | None,
        typer.Option(
            metavar="1%",
            help="What a codec may change in an output, as a share of its largest element, on "
            "--calibration.  [default: 1% with --codec auto, anything with one named]",
        ),
    ] = None
    max_device_weights: Annotated[
        str | None, typer.Option(metavar="20MB", help="Weights that the device may hold.")
    ] = None
    max_device_memory: Annotated[
        str | None,
        typer.Option(metavar="64MB", help="Weights and activations that it may hold at once."),
    ] = None
    max_energy: Annotated[
        str | None, typer.Option(metavar="2J", help="What the device may use for one request.")
    ] = None
    max_latency: Annotated[
        str | None, typer.Option(metavar="200ms", help="What one request may take.")
    ] = None
    device_power: Annotated[
        float | None, typer.Option(metavar="W", help="What the device draws while it computes.")
    ] = None
    radio_power: Annotated[
        float, typer.Option(metavar="W", help="... while it sends or receives.")
    ] = 0.0
    idle_power: Annotated[
        float, typer.Option(metavar="W", help="... while it waits for the edge.")
    ] = 0.0
    adaptive: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Up to K cuts, for a range of conditions."),
    ] = None
    bandwidths: Annotated[
        str | None,
        typer.Option(
            metavar="LOW..HIGH",
            help="With --adaptive: of the link.  [default: 1.1Mbit..1Gbit]",
        ),
    ] = None
    rtts: Annotated[
        str | None,
        typer.Option(metavar="LOW..HIGH", help="With --adaptive: round trips.  [default: --rtt]"),
    ] = None
    device_loads: Annotated[
        str | None,
        typer.Option(
            metavar="LOW..HIGH", help="With --adaptive: device slower by this.  [default: 1..1]"
        ),
    ] = None
    edge_loads: Annotated[
        str | None,
        typer.Option(
            metavar="LOW..HIGH", help="With --adaptive: edge slower by this.  [default: 1..1]"
        ),
    ] = None
    raw_input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BYTES",
            help="The application has this input in so many bytes (pixels). Repeatable.",
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz|DIR", help="Samples to measure on what codecs change."),
    ] = None
    pareto: Annotated[
        bool, typer.Option("--pareto", help="List all plans that no other one beats in all.")
    ] = False
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="gads,dads,...",
            help="Beside: gads, dads, neurosurgeon, jalad, lmos, device-only, edge-only, or all.",
        ),
    ] = None


@dataclass(frozen=True)
class PrunedPlanArguments:
    """Options that say how to prune, all of them with --prune only."""

    prune: Annotated[
        str | None,
        typer.Option(
            metavar="0.8,0.6",
            help="Prune to these shares of the FLOPs, too, and take what is best of all.",
        ),
    ] = None
    evaluate: Annotated[
        Path | None,
        typer.Option("--eval", metavar="FILE.npz", help="With --prune: labelled samples."),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="With --prune: what may be lost of the accuracy."),
    ] = None
    min_agreement: Annotated[
        str | None,
        typer.Option(metavar="97.5%", help="With --prune: so many samples keep their class."),
    ] = None
    pruned_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE.onnx", help="With --prune: where a pruned model is written."),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="top1|top5|mse|MODULE:FUNCTION",
            help="With --prune: what --eval measures, and --max-drop bounds.  [default: top1]",
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --prune: keep finished pieces of pruning here, for further plans.",
        ),
    ] = None
