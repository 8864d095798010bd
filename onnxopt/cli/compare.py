"""`onnxopt compare`: do two models compute the same?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import Json, Quiet, Verbose
from onnxopt.cli.progress import Bar


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The model that is right.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The model that is compared with it.")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Ask for the same bits, not only up to rounding.")
    ] = False,
    verify_data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz|DIR", help="Compare on these samples too (arrays named like inputs)."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run two models on the same inputs and compare every output.

    Where they differ, the first tensor inside that differs is named; exit code 1.

    \b
    Examples:
      onnxopt compare model.onnx small.onnx
      onnxopt compare model.onnx small.onnx --verify-data samples.npz --exact
    """
    from onnxopt.model import load
    from onnxopt.report.as_json import comparison_json
    from onnxopt.report.table import comparison_lines, console
    from onnxopt.verification.model_comparison import compare as run

    with Bar(quiet=quiet) as bar:
        found = run(load(a), load(b), exact=exact, verify_data=verify_data, progress=bar)
    if json:
        typer.echo(comparison_json(str(a), str(b), found))
    elif not quiet:
        console().print(comparison_lines(found))
    if not found.verdict.passed:
        raise typer.Exit(1)
