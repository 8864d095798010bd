"""`onnxopt split join`: one model again of the parts of a split one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import ExternalData, ExternalDataChoice, Quiet, Verbose


def join(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="What `onnxopt split export` wrote.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="The model file to write.")
    ],
    external_data: ExternalData = ExternalDataChoice.auto,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put the segments of a split model together again: the inverse of `split export`.

    Names stay what they were; codecs are taken out; what no output needs does not come back.

    \b
    Examples:
      onnxopt split join out/ -o model.onnx
    """
    from onnxopt.model import check_output, save
    from onnxopt.splitting.verify import join_folder, keeps_data_outside

    check_output(output)
    proto = join_folder(folder)
    written = save(
        proto,
        output,
        external_data=external_data.value,
        was_external=keeps_data_outside(folder),
    )
    if not quiet:
        typer.echo(f"{written[-1]}: {len(proto.graph.node)} nodes of the segments in {folder}")
