"""`onnxopt explain`: the rewrites that matched and did not fire, and why."""

from __future__ import annotations

import typer

from onnxopt.cli.options import (
    Json,
    ModelArgument,
    Only,
    RulesFolders,
    SetShape,
    Skip,
    Verbose,
    by_name,
    shape,
)


def explain(
    model: ModelArgument,
    rules: RulesFolders = None,
    skip: Skip = None,
    only: Only = None,
    set_shape: SetShape = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say why rewrites that matched were not made.

    \b
    Examples:
      onnxopt explain model.onnx
      onnxopt explain model.onnx --only fold-batchnorm-into-conv
    """
    from onnxopt.model import load
    from onnxopt.optimizer import Options
    from onnxopt.optimizer import explain as declined
    from onnxopt.report.as_json import explanation_json
    from onnxopt.report.table import change_lines, console

    options = Options(
        rules_dirs=tuple(rules or ()),
        skip=tuple(skip or ()),
        only=tuple(only or ()),
        set_shapes=by_name("--set-shape", set_shape, shape),
    )
    changes = declined(load(model), options)
    if json:
        typer.echo(explanation_json(str(model), changes))
    elif changes:
        console().print(change_lines(changes))
    else:
        typer.echo("no rewrite matched that was not made")
