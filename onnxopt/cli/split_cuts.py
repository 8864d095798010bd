"""`onnxopt split cuts`: where a model can be cut, and what that costs."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxopt.cli.options import Json, ModelArgument, SetShape, Verbose, by_name, shape


def cuts(
    model: ModelArgument,
    set_shape: SetShape = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all cuts in the table, not only the useful ones.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List where a model can be cut in two, and what crosses there.

    A cut has some operators on the device and all that follow from the others at the edge: nothing
    comes back before the end. Control flow is one operator with all that its bodies read; weights
    and what follows from them alone is copied, never sent; what a shape tells stays with the
    operator that made the tensor. Nothing is run, unless that alone tells how large a tensor is; a
    model that ONNX Runtime does not load here is listed, and told of.

    \b
    Examples:
      onnxopt split cuts model.onnx
      onnxopt split cuts model.onnx --set-shape input=1,3,224,224
      onnxopt split cuts model.onnx --json
    """
    from onnxopt.model import load
    from onnxopt.report.split_cuts_table import cuts_json, cuts_table
    from onnxopt.report.table import console
    from onnxopt.splitting.listing import list_cuts
    from onnxopt.splitting.operators import read_subject

    shapes = by_name("--set-shape", set_shape, shape)
    found = list_cuts(read_subject(load(model), shapes))
    if json:
        typer.echo(cuts_json(str(model), found))
    else:
        console().print(cuts_table(found, everything=everything))
