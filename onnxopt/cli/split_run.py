"""`onnxopt split run`: the device half, and the client of the edge half."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from onnxopt.cli.options import Json, Quiet, Verbose
from onnxopt.cli.progress import Bar

if TYPE_CHECKING:
    from onnxopt.signature import Array
    from onnxopt.splitting.answers import Chooser
    from onnxopt.splitting.manifest import Manifest


class FallbackChoice(str, Enum):
    """What the device does where the edge fails."""

    ready = "ready"
    lazy = "lazy"
    off = "off"


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="What `onnxopt split export` wrote.")
    ],
    edge: Annotated[
        str | None, typer.Option(metavar="URL", help="http://HOST:PORT of `split serve`.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run all on this machine, without an edge.")
    ] = False,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="FILE|DIR", help="x.npy, x.npz, or a folder of such files."
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Samples in a request, where the model takes any number.")
    ] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Run all requests so often.")] = 1,
    cut: Annotated[
        str | None, typer.Option(metavar="cutNN", help="Use this cut, not the chosen one.")
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option("--adaptive", help="Choose the cut anew for each request, as conditions are."),
    ] = False,
    deadline: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.001, help="After so long the edge is not waited for."
        ),
    ] = 30.0,
    fallback: Annotated[
        FallbackChoice,
        typer.Option(help="Where the edge fails: finish here, load for that only then, or end."),
    ] = FallbackChoice.ready,
    probes: Annotated[
        bool,
        typer.Option(
            help="With --adaptive: 8 kB now and then beside requests that run here, so that a link "
            "that is good again is noticed."
        ),
    ] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside one operator.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.npz", help="Write the outputs there."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Write a line of JSON for each request there."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a split model: its device half here, the other half at the edge.

    Tells how long requests took, and where: computing here, on the wire, computing at the edge.
    Where the edge is gone or late the request is finished here, and the edge is asked again later.
    Arrays hold samples along their first axis; one request takes as many as the model does.

    \b
    Examples:
      onnxopt split run OUT/ --edge http://10.0.0.7:8000 --input x.npy
      onnxopt split run OUT/ --edge http://10.0.0.7:8000 --input x.npz --repeat 100 -o y.npz
      onnxopt split run OUT/ --edge http://10.0.0.7:8000 --input images/ --adaptive --trace t.jsonl
      onnxopt split run OUT/ --edge http://10.0.0.7:8000 --input x.npy --deadline 0.2
      onnxopt split run OUT/ --local --input x.npy

    \b
    Exit codes: 0 fine, also where requests had to be finished here, which is said;
    1 the edge failed under --fallback off; 2 usage, or the edge serves something else;
    3 bad model; 4 ONNX Runtime does not load or run a segment here.
    """
    from onnxopt.errors import UsageError
    from onnxopt.files import check_target
    from onnxopt.profiling.files import as_json
    from onnxopt.report.split_run_table import split_run_table
    from onnxopt.report.table import console
    from onnxopt.splitting.client import SplitClient
    from onnxopt.splitting.folder import cut_number, read_manifest
    from onnxopt.splitting.requests import read_requests
    from onnxopt.splitting.running import joined, run_all

    if input is None:
        raise UsageError("there is nothing to run", "give --input FILE")
    _check_asked(edge, local, cut, adaptive, fallback)
    for target in (output, trace):
        if target is not None:
            check_target(target)
    manifest = read_manifest(folder)
    number = None if cut is None else cut_number(manifest, cut)
    requests = read_requests(input, manifest.inputs, batch=batch)
    with Bar(quiet=quiet or json) as bar, _opened(trace) as lines:
        client = SplitClient(
            folder,
            edge,
            cut=number,
            chooser=_chooser(manifest) if adaptive else None,
            deadline_s=deadline,
            fallback=fallback.value,
            threads=threads,
            probes=probes,
            progress=bar,
        )
        with client:
            ran = run_all(
                client,
                requests,
                len(requests),
                edge=edge,
                repeat=repeat,
                keep=output is not None,
                trace=lines,
                progress=bar,
            )
    if output is not None:
        _write(output, joined(ran.outputs))
    if json:
        typer.echo(as_json(ran.summary).rstrip("\n"))
    elif not quiet:
        console().print(split_run_table(ran.summary))


def _check_asked(
    edge: str | None, local: bool, cut: str | None, adaptive: bool, fallback: FallbackChoice
) -> None:
    """Options that contradict each other."""
    from onnxopt.errors import UsageError

    if local == (edge is not None):
        raise UsageError("where shall the other half run?", "give either --edge URL or --local")
    if local and cut is not None:
        raise UsageError("--local runs all here, and --cut says something else", "give one of them")
    if adaptive and (local or cut is not None):
        raise UsageError("--adaptive chooses the cut, as --local and --cut do", "give one of them")
    if local and fallback is not FallbackChoice.ready:
        raise UsageError("--fallback is for when the edge fails, and --local has none")


def _chooser(manifest: Manifest) -> Chooser:
    """What chooses cuts by the plan that the model was split by."""
    from onnxopt.errors import UsageError
    from onnxopt.splitting.plan_file import plan_of
    from onnxopt.splitting.switching import Adapter

    if manifest.planned is None:
        raise UsageError(
            "the model was split without a plan, so nobody knows what its cuts cost",
            "use `onnxopt split plan` and `onnxopt split export --plan`",
        )
    plan = plan_of(manifest.planned)
    return Adapter(plan.points, plan.context, allowed=plan.allowed, box=plan.box)


@contextmanager
def _opened(trace: Path | None) -> Iterator[TextIO | None]:
    """The file of the trace, line by line on disk."""
    if trace is None:
        yield None
        return
    with trace.open("w", buffering=1) as stream:
        yield stream


def _write(file: Path, arrays: Mapping[str, Array]) -> None:
    import io

    from onnxopt.files import write_atomically
    from onnxopt.profiling.feeds import write_feeds

    packed = io.BytesIO()
    write_feeds(packed, arrays)
    write_atomically(file, [packed.getvalue()])
