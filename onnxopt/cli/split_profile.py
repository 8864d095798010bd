"""`onnxopt split profile`: what a model and both sides of its cuts take on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import Json, ModelArgument, Quiet, SetShape, Verbose, by_name, shape
from onnxopt.cli.progress import Bar


def profile(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.json", help="Write the profile there."),
    ] = None,
    cuts: Annotated[
        int, typer.Option(min=0, metavar="N", help="Measure both sides of so many cuts at most.")
    ] = 12,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="PLAN.json", help="Measure the cuts of this plan first."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside one operator.")] = 1,
    set_shape: SetShape = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Feed these arrays instead of drawn ones."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Run everything in turns for so long; three times at least.")
    ] = 10.0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a model as `split plan` needs it: once on the device, and once at the edge.

    The whole model, its fused kernels by node, and both sides of some cuts run in turns, so that
    all of them meet the same noise. The cuts are those that may be best for some speed of the link
    and of the edge, by their sizes; both machines measure the same ones. What `split plan` then
    chooses can be measured itself with --plan.

    \b
    Examples:
      onnxopt split profile model.onnx -o device.json
      onnxopt split profile model.onnx -o edge.json --threads 8
      onnxopt split profile model.onnx -o device.json --set-shape input=1,3,224,224
      onnxopt split profile model.onnx -o device.json --plan plan.json

    \b
    Exit codes: 0 fine, even on a noisy machine, which is said; 2 usage; 3 bad model;
    4 ONNX Runtime does not load or run the model here.
    """
    from onnxopt.files import check_target
    from onnxopt.model import load
    from onnxopt.profiling.bench import Asked
    from onnxopt.profiling.files import as_json, write_json
    from onnxopt.report.split_profile_table import split_profile_table
    from onnxopt.report.table import console
    from onnxopt.splitting.describing import read_source
    from onnxopt.splitting.enumeration import enumerate_cuts
    from onnxopt.splitting.measuring import measure_split
    from onnxopt.splitting.operators import read_subject
    from onnxopt.splitting.plan_file import read_plan
    from onnxopt.splitting.spots import spots, spots_of

    shapes = by_name("--set-shape", set_shape, shape)
    if output is not None:
        check_target(output)
    planned = read_plan(plan) if plan is not None else None
    proto = load(model)
    source = read_source(model, proto)
    subject = read_subject(proto, shapes)
    found = enumerate_cuts(subject.dag)
    chosen = spots(found, cuts)
    if planned is not None:
        found, chosen = spots_of(found, planned, source.digest, cuts)
    with Bar(quiet=quiet or json) as bar:
        made = measure_split(
            subject,
            found,
            chosen,
            Asked(threads=threads, shapes=shapes, inputs=inputs, seconds=seconds),
            source=str(model),
            digest=source.digest,
            progress=bar,
        )
    if output is not None:
        write_json(made, output)
    if json:
        typer.echo(as_json(made).rstrip("\n"))
    elif not quiet:
        console().print(split_profile_table(made))
