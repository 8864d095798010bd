"""`onnxopt split plan`: where to split a model, by two profiles and what lies between."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import Json, ModelArgument, Quiet, Verbose, by_name
from onnxopt.cli.progress import Bar
from onnxopt.cli.split_planning import (
    CodecsChoice,
    ObjectiveChoice,
    box_of,
    budgets_of,
    codecs_of,
    powers_of,
    pruning_asked,
)


def plan(
    model: ModelArgument,
    device: Annotated[
        Path, typer.Option(metavar="FILE.json", help="What `split profile` wrote on the device.")
    ],
    bandwidth: Annotated[
        str, typer.Option(metavar="5.85Mbit", help="Of the link, each way, per second.")
    ],
    edge: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="What it wrote at the edge.  [default: that of the device]"
        ),
    ] = None,
    edge_speedup: Annotated[
        float, typer.Option(help="Take the edge as so many times as fast as it was measured.")
    ] = 1.0,
    device_slowdown: Annotated[
        float, typer.Option(help="Take the device as so many times as slow as it was measured.")
    ] = 1.0,
    rtt: Annotated[
        str, typer.Option(metavar="50ms", help="A request without data, there and back.")
    ] = "0ms",
    objective: Annotated[
        ObjectiveChoice, typer.Option(help="What is to be best.")
    ] = ObjectiveChoice.latency,
    codec: Annotated[
        CodecsChoice,
        typer.Option(
            help="How float32 tensors may cross. auto: whatever is best within --max-error; "
            "without --calibration none or fp16."
        ),
    ] = CodecsChoice.auto,
    max_error: Annotated[
        str | None,
        typer.Option(
            metavar="1%",
            help="What a codec may change in an output, as a share of its largest element, on "
            "--calibration.  [default: 1% with --codec auto, anything with one named]",
        ),
    ] = None,
    max_device_weights: Annotated[
        str | None, typer.Option(metavar="20MB", help="Weights that the device may hold.")
    ] = None,
    max_device_memory: Annotated[
        str | None,
        typer.Option(metavar="64MB", help="Weights and activations that it may hold at once."),
    ] = None,
    max_energy: Annotated[
        str | None, typer.Option(metavar="2J", help="What the device may use for one request.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="200ms", help="What one request may take.")
    ] = None,
    device_power: Annotated[
        float | None, typer.Option(metavar="W", help="What the device draws while it computes.")
    ] = None,
    radio_power: Annotated[
        float, typer.Option(metavar="W", help="... while it sends or receives.")
    ] = 0.0,
    idle_power: Annotated[
        float, typer.Option(metavar="W", help="... while it waits for the edge.")
    ] = 0.0,
    adaptive: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Up to K cuts, for a range of conditions."),
    ] = None,
    bandwidths: Annotated[
        str | None,
        typer.Option(
            metavar="LOW..HIGH",
            help="With --adaptive: of the link.  [default: 1.1Mbit..1Gbit]",
        ),
    ] = None,
    rtts: Annotated[
        str | None,
        typer.Option(metavar="LOW..HIGH", help="With --adaptive: round trips.  [default: --rtt]"),
    ] = None,
    device_loads: Annotated[
        str | None,
        typer.Option(
            metavar="LOW..HIGH", help="With --adaptive: device slower by this.  [default: 1..1]"
        ),
    ] = None,
    edge_loads: Annotated[
        str | None,
        typer.Option(
            metavar="LOW..HIGH", help="With --adaptive: edge slower by this.  [default: 1..1]"
        ),
    ] = None,
    raw_input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BYTES",
            help="The application has this input in so many bytes (pixels). Repeatable.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz|DIR", help="Samples to measure on what codecs change."),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(
            metavar="0.8,0.6",
            help="Prune to these shares of the FLOPs, too, and take what is best of all.",
        ),
    ] = None,
    evaluate: Annotated[
        Path | None,
        typer.Option("--eval", metavar="FILE.npz", help="With --prune: labelled samples."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="With --prune: what may be lost of the accuracy."),
    ] = None,
    min_agreement: Annotated[
        str | None,
        typer.Option(metavar="97.5%", help="With --prune: so many samples keep their class."),
    ] = None,
    pruned_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE.onnx", help="With --prune: where a pruned model is written."),
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="List all plans that no other one beats in all.")
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="gads,dads,...",
            help="Beside: gads, dads, neurosurgeon, jalad, lmos, device-only, edge-only, or all.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PLAN.json", help="Write the plan.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find the best way to split a model: of all cuts, with all codecs.

    Everything on the device and everything at the edge are among them; often they are best. Budgets
    are hard: if none is kept, you are told which one and by how much. With --adaptive the plan has
    up to K cuts more, nested in each other, of which the client chooses as conditions change.

    \b
    Examples:
      onnxopt split plan model.onnx --device device.json --edge edge.json \\
          --bandwidth 5.85Mbit --rtt 50ms -o plan.json
      onnxopt split plan model.onnx --device device.json --edge-speedup 10 --bandwidth 20Mbit
      onnxopt split plan model.onnx --device device.json --edge edge.json --bandwidth 20Mbit \\
          --objective energy --device-power 4 --radio-power 1.2 --max-device-memory 64MB
      onnxopt split plan model.onnx --device device.json --edge edge.json --bandwidth 20Mbit \\
          --adaptive 3 --bandwidths 1.1Mbit..1Gbit --edge-loads 1..4 -o plan.json
      onnxopt split plan model.onnx --device device.json --edge edge.json --bandwidth 20Mbit \\
          --pareto --compare all
      onnxopt split plan model.onnx --device device.json --edge-speedup 10 --bandwidth 20Mbit \\
          --calibration samples.npz --max-error 0.5%
      onnxopt split plan model.onnx --device device.json --edge-speedup 10 --bandwidth 20Mbit \\
          --prune 0.8,0.6,0.4 --calibration samples.npz --eval test.npz --max-drop 2.5 \\
          --pruned-model pruned.onnx -o plan.json

    \b
    Exit codes: 0 fine; 1 no cut keeps the budgets; 2 usage; 3 bad model;
    4 ONNX Runtime does not run the model (with --calibration).
    """
    from onnxopt.files import check_target
    from onnxopt.model import load
    from onnxopt.profiling.files import as_json, write_json
    from onnxopt.quantities import parse_bits, parse_count, parse_seconds
    from onnxopt.report.split_plan_table import split_plan_table
    from onnxopt.report.table import console
    from onnxopt.splitting.baselines import METHODS
    from onnxopt.splitting.choosing import Task
    from onnxopt.splitting.codec_errors import CodecErrors
    from onnxopt.splitting.context import Context
    from onnxopt.splitting.planning import Wish, plan_split
    from onnxopt.splitting.profiled import profiled
    from onnxopt.splitting.pruned_plan import plan_and_prune

    if output is not None:
        check_target(output)
    context = Context(parse_bits(bandwidth), parse_seconds(rtt))
    budgets = budgets_of(max_device_weights, max_device_memory, max_energy, max_latency)
    powers = powers_of(device_power, radio_power, idle_power)
    box = box_of(adaptive, context, bandwidths, rtts, device_loads, edge_loads)
    methods = (
        tuple(METHODS) if compare == "all" else tuple(filter(None, (compare or "").split(",")))
    )
    codecs = codecs_of(codec, max_error, calibrated=calibration is not None)
    wish = Wish(
        Task(context, objective.value, budgets, powers),
        codecs.allowed,
        box,
        adaptive or 1,
        by_name("--raw-input", raw_input, parse_count),
        methods,
        pareto,
        codecs.max_error,
        codecs.notes,
    )
    proto = load(model)
    known = profiled(proto, model, device, edge or device, device_slowdown, edge_speedup)
    pruning = pruning_asked(prune, calibration, evaluate, max_drop, min_agreement, pruned_model)
    with Bar(quiet=quiet or json) as bar:
        if pruning is None or pruned_model is None:
            errors = None if calibration is None else CodecErrors(known.subject, calibration, bar)
            made = plan_split(
                known.subject,
                known.machines,
                wish,
                source=str(model),
                digest=known.digest,
                errors=None if errors is None else errors.of,
            )
        else:
            made = plan_and_prune(proto, known, wish, pruning, model, pruned_model, tell=bar)
    if output is not None:
        write_json(made, output)
    if json:
        typer.echo(as_json(made).rstrip("\n"))
    elif not quiet:
        console().print(split_plan_table(made))
