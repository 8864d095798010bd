"""`onnxopt split plan`: where to split a model, by two profiles and what lies between."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.grouped import takes
from onnxopt.cli.options import Json, ModelArgument, Quiet, Verbose
from onnxopt.cli.progress import Bar
from onnxopt.cli.split_plan_options import PlanArguments, PrunedPlanArguments
from onnxopt.cli.split_planning import pruning_asked, wish_of


@takes(asked=PlanArguments, pruning=PrunedPlanArguments)
def plan(
    model: ModelArgument,
    *,
    asked: PlanArguments,
    pruning: PrunedPlanArguments,
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
    from onnxopt.report.split_plan_table import split_plan_table
    from onnxopt.report.table import console
    from onnxopt.splitting.codec_errors import CodecErrors
    from onnxopt.splitting.planning import plan_split
    from onnxopt.splitting.profiled import profiled
    from onnxopt.splitting.pruned_plan import plan_and_prune

    if output is not None:
        check_target(output)
    wish, how = wish_of(asked), pruning_asked(pruning, asked.calibration)
    proto = load(model)
    known = profiled(
        proto,
        model,
        asked.device,
        asked.edge or asked.device,
        asked.device_slowdown,
        asked.edge_speedup,
    )
    with Bar(quiet=quiet or json) as bar:
        if how is None or pruning.pruned_model is None:
            samples = asked.calibration
            errors = None if samples is None else CodecErrors(known.subject, samples, bar)
            made = plan_split(
                known.subject,
                known.machines,
                wish,
                source=str(model),
                digest=known.digest,
                errors=None if errors is None else errors.of,
            )
        else:
            made = plan_and_prune(proto, known, wish, how, model, pruning.pruned_model, tell=bar)
    if output is not None:
        write_json(made, output)
    if json:
        typer.echo(as_json(made).rstrip("\n"))
    elif not quiet:
        console().print(split_plan_table(made))
