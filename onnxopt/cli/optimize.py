"""`onnxopt optimize`: rewrite a model, verify it, write it, report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxopt.cli.options import (
    ExternalData,
    ExternalDataChoice,
    FreezeInputs,
    Json,
    Only,
    Quiet,
    Reports,
    RulesFolders,
    SetShape,
    Skip,
    Verbose,
    by_name,
    check_paths,
    shape,
)
from onnxopt.cli.progress import Bar
from onnxopt.cli.pruning import Place, prune_file, show_preview
from onnxopt.cli.pruning_job import job_of
from onnxopt.cli.pruning_options import PruningArguments, takes_pruning

if TYPE_CHECKING:
    import onnx

    from onnxopt.optimizer import Options
    from onnxopt.report import Report


InputLayout = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=nchw",
        help="Let this input have that layout from now on, so that the Transpose at the start "
        "goes away. Changes the signature, and says so. Repeatable.",
    ),
]
VerifyData = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz|DIR", help="Verify on these samples too (arrays named like inputs)."
    ),
]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Do not run the two models and compare.")
]
AllowUnverified = Annotated[
    bool,
    typer.Option(
        "--allow-unverified", help="Write a model that ONNX Runtime cannot run here, too."
    ),
]
AllowGrowth = Annotated[
    str, typer.Option(metavar="10%", help="How much the file may grow (64 KB are always fine).")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything but write the model.")]


@takes_pruning
def optimize(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The model to optimize.")],
    output: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Where to write it; may be IN.")
    ] = None,
    *,
    pruning: PruningArguments,
    rules: RulesFolders = None,
    skip: Skip = None,
    only: Only = None,
    set_shape: SetShape = None,
    input_layout: InputLayout = None,
    freeze_inputs: FreezeInputs = False,
    verify_data: VerifyData = None,
    no_verify: NoVerify = False,
    allow_unverified: AllowUnverified = False,
    allow_growth: AllowGrowth = "1%",
    external_data: ExternalData = ExternalDataChoice.auto,
    report: Reports = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    dry_run: DryRun = False,
) -> None:
    """Make a model smaller and faster, and prove that it still does the same.

    Both models run in ONNX Runtime on several inputs; OUT is written only if they agree. Names,
    order, types and dimensions of inputs and outputs stay as they are.

    \b
    Examples:
      onnxopt optimize model.onnx small.onnx
      onnxopt optimize model.onnx model.onnx --report report.md --report report.json
      onnxopt optimize model.onnx small.onnx --set-shape input=1,3,224,224
      onnxopt optimize model.onnx small.onnx --verify-data samples.npz
      onnxopt optimize model.onnx --dry-run

    With --flops, --params, --memory, --latency, --max-drop or --plan the model is pruned as well:
    see `onnxopt prune --help`.
    """
    data = (verify_data, *pruning.data)
    check_paths(source, output, report or [], dry_run, plan=pruning.save_plan, data=data)
    from onnxopt.model import load
    from onnxopt.optimizer import Options
    from onnxopt.quantities import parse_percent

    options = Options(
        rules_dirs=tuple(rules or ()),
        skip=tuple(skip or ()),
        only=tuple(only or ()),
        set_shapes=by_name("--set-shape", set_shape, shape),
        input_layouts=by_name("--input-layout", input_layout, str),
        freeze_inputs=freeze_inputs,
        verify=not no_verify,
        verify_data=verify_data,
        allow_unverified=allow_unverified,
        allow_growth=parse_percent(allow_growth),
    )
    place = Place(source, output, external_data, tuple(report or ()), pruning.save_plan)
    if not pruning.is_given:
        told = _optimized(load(source), options, place, quiet=quiet, dry_run=dry_run)
        _print(told, json=json, quiet=quiet, verbose=verbose)
        return
    job = job_of(pruning, options, is_preview=dry_run)
    if dry_run:
        show_preview(load(source), job, place, json=json, quiet=quiet)
    else:
        prune_file(load(source), job, place, json=json, quiet=quiet, verbose=verbose)


def _optimized(
    proto: onnx.ModelProto, options: Options, place: Place, *, quiet: bool, dry_run: bool
) -> Report:
    """Optimize, write the model and its reports."""
    from onnxopt.inspection import has_external_data
    from onnxopt.model import save
    from onnxopt.optimizer import optimize as run
    from onnxopt.report.files import write_report

    with Bar(quiet=quiet) as bar:
        result = run(proto, options, source=str(place.source), progress=bar)
    told = result.report
    if place.output is not None and not dry_run:
        save(
            result.model,
            place.output,
            external_data=place.external_data.value,
            was_external=has_external_data(place.source, proto),
        )
        told = replace(told, output=str(place.output))
    for file in place.reports:
        write_report(told, file)
    return told


def _print(report: Report, *, json: bool, quiet: bool, verbose: bool) -> None:
    from onnxopt.report.as_json import report_json
    from onnxopt.report.table import change_lines, console, report_table

    if json:
        typer.echo(report_json(report))
    elif not quiet:
        screen = console()
        screen.print(report_table(report))
        if verbose:
            screen.print(change_lines((*report.changes, *report.withdrawn, *report.declined)))
