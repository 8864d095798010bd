"""`onnxopt prune`: cut channels to a budget, make up for them, write the model, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxopt.cli.options import (
    ExternalData,
    ExternalDataChoice,
    FreezeInputs,
    Json,
    Quiet,
    Reports,
    SetShape,
    Verbose,
    by_name,
    check_paths,
    shape,
)
from onnxopt.cli.pruning import Place, prune_file, show_preview
from onnxopt.cli.pruning_job import job_of
from onnxopt.cli.pruning_options import PruningArguments, takes_pruning
from onnxopt.cli.sweeping import check_sweep, sweep_file

if TYPE_CHECKING:
    from onnxopt.pruning.budget import Budget


@takes_pruning
def prune(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The model to prune.")],
    output: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="Where to write it; may be IN. A folder with --sweep."),
    ] = None,
    *,
    pruning: PruningArguments,
    set_shape: SetShape = None,
    freeze_inputs: FreezeInputs = False,
    external_data: ExternalData = ExternalDataChoice.auto,
    report: Reports = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what could be cut, and cut nothing.")
    ] = False,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="0.9,0.8,..",
            help="Prune to each of these budgets of FLOPs (params=0.9,0.8, memory=.. or "
            "latency=..: of those; latency in shares of the original's time, measured here for "
            "each point, or predicted with --profile), and show what is lost for what is saved. "
            "OUT is a folder for the models and for sweep.json, sweep.md and sweep.svg; what is "
            "there already is not done again. Without OUT nothing is kept but what --report names: "
            ".json, .md, .svg or .png.",
        ),
    ] = None,
) -> None:
    """Cut whole channels, heads and hidden units down to a budget, and refit what stays.

    No labels, no gradients: a few hundred samples of what the model meets in use tell which
    channels matter, and what the weights that stay must become. OUT is written only if every
    check holds.

    \b
    Examples:
      onnxopt prune model.onnx small.onnx --flops 0.5 --calibration samples.npz
      onnxopt prune model.onnx small.onnx --params -30% --calibration images/ \\
          --preprocess mean=0.485:0.456:0.406,std=0.229:0.224:0.225
      onnxopt prune model.onnx small.onnx --latency 0.7 --calibration samples.npz
      onnxopt prune model.onnx small.onnx --latency 12ms --profile device.json \\
          --calibration samples.npz
      onnxopt prune model.onnx --dry-run --calibration samples.npz
      onnxopt prune model.onnx small.onnx --calibration samples.npz --eval test.npz --max-drop 1.0
      onnxopt prune model.onnx small.onnx --plan plan.json --calibration samples.npz
      onnxopt prune model.onnx curve/ --sweep 0.9,0.8,0.7,0.6,0.5 --calibration samples.npz
      onnxopt prune model.onnx curve/ --sweep latency=0.9,0.8,0.7 --calibration samples.npz

    Of a --sweep, a budget that cannot be met is a row that says why; the exit code is 1 if a model
    failed a check (the others are written), and 2 if no budget can be met.
    """
    place = Place(source, output, external_data, tuple(report or ()), pruning.save_plan)
    budgets: tuple[Budget, ...] = ()
    if sweep is not None:
        budgets = check_sweep(sweep, place, pruning, dry_run=dry_run)
    else:
        data = pruning.data
        check_paths(source, output, report or [], dry_run, plan=pruning.save_plan, data=data)
    from onnxopt.model import load
    from onnxopt.optimizer import Options

    shapes = by_name("--set-shape", set_shape, shape)
    rewriting = Options(set_shapes=shapes, freeze_inputs=freeze_inputs)
    job = job_of(pruning, rewriting, is_preview=dry_run, sweep=budgets)
    if budgets:
        sweep_file(load(source), job, budgets, place, json=json, quiet=quiet)
    elif dry_run:
        show_preview(load(source), job, place, json=json, quiet=quiet)
    else:
        prune_file(load(source), job, place, json=json, quiet=quiet, verbose=verbose)
