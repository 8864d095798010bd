"""`onnxopt inspect`: what is in a model and what it costs."""

from __future__ import annotations

import typer

from onnxopt.cli.options import Json, ModelArgument, Verbose


def inspect(model: ModelArgument, json: Json = False, verbose: Verbose = False) -> None:
    """Show what is in a model and what it costs: operators, parameters, bytes, MACs, memory.

    Nothing is run. Symbolic dimensions count as 1, which is said.

    \b
    Examples:
      onnxopt inspect model.onnx
      onnxopt inspect model.onnx --json
    """
    from onnxopt.inspection import inspect as look
    from onnxopt.model import load
    from onnxopt.report.as_json import inspection_json
    from onnxopt.report.inspection_table import inspection_table
    from onnxopt.report.table import console

    found = look(load(model), source=str(model))
    if json:
        typer.echo(inspection_json(found))
    else:
        console().print(inspection_table(found))
