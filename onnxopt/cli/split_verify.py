"""`onnxopt split verify`: do the halves equal the whole?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import Json, Quiet, Tolerance, Verbose, tolerance_of
from onnxopt.cli.progress import Bar


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="What `onnxopt split export` wrote.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The whole model; by default where it was when it was split."
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option("--verify-data", metavar="FILE.npz|DIR", help="Compare on these samples too."),
    ] = None,
    tolerance: Tolerance = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run the halves one after the other, and the whole, on the same inputs, and compare.

    Without codecs and with ONNX Runtime's optimizations off every bit must be the same; with them
    on outputs may differ by 1e-5 of their largest element, or by the --tolerance that is given here
    or was given to `split export`. That goes for models of 16-bit floats with them off, too.
    With a codec the halves must give, bit for bit, what they give without it and with the codec put
    between. What it changes is measured and told; more than was measured when the model was split
    is a failure on your samples (--verify-data), not on drawn inputs.
    Files must be those that the split wrote. Where the whole model is gone, the halves are compared
    with the model that they come to when they are joined, which is said.

    \b
    Examples:
      onnxopt split verify out/
      onnxopt split verify out/ --model model.onnx --verify-data samples.npz

    \b
    Exit codes: 0 they are equal; 1 they are not, or a file was changed: the first tensor that
    differs is named; 2 usage; 3 bad model; 4 ONNX Runtime does not run it here.
    """
    from onnxopt.report.split_export_table import verified_json, verified_lines
    from onnxopt.report.table import console
    from onnxopt.splitting.verify import verify_folder

    with Bar(quiet=quiet or json) as bar:
        found = verify_folder(
            folder,
            model=model,
            samples=samples,
            tolerance=tolerance_of(tolerance),
            progress=bar,
        )
    if json:
        typer.echo(verified_json(str(folder), found))
    elif not quiet or not found.passed:
        console().print(verified_lines(found))
    if not found.passed:
        raise typer.Exit(1)
