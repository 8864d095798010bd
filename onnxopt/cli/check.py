"""`onnxopt check`: budgets that a model must keep, as a step of a CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import Json, ModelArgument, Quiet, Verbose
from onnxopt.cli.progress import Bar
from onnxopt.errors import UsageError

Limit = Annotated[str | None, typer.Option(metavar="N", show_default=False)]


def check(
    model: ModelArgument,
    max_nodes: Limit = None,
    max_size: Limit = None,
    max_params: Limit = None,
    max_macs: Limit = None,
    max_peak_memory: Limit = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="BASE.onnx", help="What has no limit must not exceed this model's."),
    ] = None,
    is_optimized: Annotated[
        bool, typer.Option("--is-optimized", help="`onnxopt optimize` must find nothing to do.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Keep budgets: exit code 1 says which broke and by how much.

    N is a number such as 500, 500k, 1.5G, 10MB or 64KiB, or with --against a percentage of that
    model, such as 105%.

    \b
    Examples:
      onnxopt check model.onnx --max-size 10MB --max-macs 1.5G
      onnxopt check new.onnx --against old.onnx
      onnxopt check new.onnx --against old.onnx --max-size 105%
      onnxopt check model.onnx --is-optimized
    """
    from onnxopt.budgets import CheckResult, check_budgets, left_to_do
    from onnxopt.cost import cost_of
    from onnxopt.model import load
    from onnxopt.report.as_json import check_json
    from onnxopt.report.table import check_lines, console

    given = {
        "nodes": max_nodes,
        "size": max_size,
        "params": max_params,
        "macs": max_macs,
        "peak_memory": max_peak_memory,
    }
    limits = {name: text for name, text in given.items() if text is not None}
    if not limits and against is None and not is_optimized:
        raise UsageError("there is nothing to check", "give a budget, --against or --is-optimized")
    proto = load(model)
    base = None if against is None else cost_of(load(against))
    budgets = check_budgets(cost_of(proto), limits, base, base_name=str(against))
    todo = None
    if is_optimized:
        with Bar(quiet=quiet) as bar:
            todo = left_to_do(proto, progress=bar)
    result = CheckResult(budgets, todo)
    if json:
        typer.echo(check_json(str(model), result))
    elif not quiet:
        console().print(check_lines(result))
    if not result.passed:
        raise typer.Exit(1)
