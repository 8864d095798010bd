"""`onnxopt profile`: what a model costs on this machine, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import Json, Quiet, SetShape, Verbose, by_name, shape
from onnxopt.cli.progress import Bar


def profile(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The model file, or the folder of a kit.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Write the profile there."),
    ] = None,
    widths: Annotated[
        bool,
        typer.Option("--widths", help="Measure each distinct layer at several widths, too."),
    ] = False,
    kit: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Measure nothing: write what another machine measures there."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside one operator.")] = 1,
    batch: Annotated[
        int | None, typer.Option(min=1, help="First dimension of every input that is open.")
    ] = None,
    set_shape: SetShape = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Feed these arrays instead of drawn ones."),
    ] = None,
    provider: Annotated[
        str, typer.Option(metavar="NAME", help="Execution provider of ONNX Runtime.")
    ] = "CPUExecutionProvider",
    seconds: Annotated[
        float, typer.Option(help="Run everything in turns for so long; three times at least.")
    ] = 10.0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a model in ONNX Runtime: loading, first run, steady state, kernels, memory.

    With --widths also each distinct layer at several widths, and what of its time is start-up,
    which no cut of channels saves: of each layer, and of each residual block. A device needs only
    numpy and onnxruntime to measure a kit: copy the folder and the package onnxopt there, and run
    the last line of the examples.

    \b
    Examples:
      onnxopt profile model.onnx
      onnxopt profile model.onnx --widths --threads 4 -o profile.json
      onnxopt profile model.onnx --set-shape input=1,3,224,224 --seconds 30
      onnxopt profile model.onnx --widths --kit kit
      python -m onnxopt.profiling kit -o device.json

    \b
    Exit codes: 0 fine, even on a noisy machine, which is said; 2 usage; 3 bad model;
    4 ONNX Runtime does not load or run the model here.
    """
    from onnxopt.files import check_target
    from onnxopt.model import load
    from onnxopt.profiler import make_kit, profile_model
    from onnxopt.profiling.bench import Asked
    from onnxopt.profiling.files import as_json, write_json
    from onnxopt.profiling.measure import measure
    from onnxopt.report.profile_table import profile_table
    from onnxopt.report.table import console

    shapes = by_name("--set-shape", set_shape, shape)
    asked = Asked(threads, provider, batch, shapes, inputs, seconds)
    if output is not None:
        check_target(output)
    if kit is not None:
        made = make_kit(load(model), kit, asked, source=str(model), widths=widths)
        if not quiet:
            typer.echo(f"{kit}: the model and {len(made.layers)} small models of its layers")
            typer.echo(f"measure it with: python -m onnxopt.profiling {kit} -o device.json")
        return
    with Bar(quiet=quiet or json) as bar:
        if model.is_dir():
            found = measure(model, asked, progress=bar)
        else:
            found = profile_model(
                load(model), asked, source=str(model), widths=widths, progress=bar
            )
    if output is not None:
        write_json(found, output)
    if json:
        typer.echo(as_json(found).rstrip("\n"))
    elif not quiet:
        console().print(profile_table(found))
