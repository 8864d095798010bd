"""`onnxopt split export`: write both halves of a model, or a chain of segments, and prove them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxopt.cli.options import (
    ExternalData,
    ExternalDataChoice,
    Json,
    ModelArgument,
    Quiet,
    SetShape,
    Tolerance,
    Verbose,
    by_name,
    shape,
    tolerance_of,
)
from onnxopt.cli.progress import Bar

if TYPE_CHECKING:
    from onnxopt.splitting.describing import Source
    from onnxopt.splitting.manifest import Codec
    from onnxopt.splitting.operators import Subject
    from onnxopt.splitting.serving_files import Server
    from onnxopt.splitting.wishes import Wish


class CodecChoice(str, Enum):
    """How tensors cross."""

    none = "none"
    fp16 = "fp16"
    uint8 = "uint8"

    @property
    def codec(self) -> Codec:
        names: tuple[Codec, ...] = ("none", "fp16", "uint8")
        return next(name for name in names if name == self.value)


def export(
    model: ModelArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="The folder to write.")
    ],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME]", help="Cut at these tensors or nodes; what else crosses is added."
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Cut as `split plan` wrote it there."),
    ] = None,
    adaptive: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Up to K cuts spread over the model: a chain."),
    ] = None,
    codec: Annotated[
        CodecChoice | None,
        typer.Option(help="How float32 tensors cross; a plan says so itself.  [default: none]"),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            "--verify-data",
            "--calibration",
            metavar="FILE.npz|DIR",
            help="Prove, and measure what a codec changes, on these samples too.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Prove that the halves equal the whole.")
    ] = True,
    tolerance: Tolerance = None,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="triton,mlserver", help="Write what these servers need for the edge half, too."
        ),
    ] = None,
    set_shape: SetShape = None,
    external_data: ExternalData = ExternalDataChoice.auto,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cut a model, prove that its parts equal it, and write all of them or nothing.

    OUT gets device.onnx, edge.onnx and split.json; with several cuts a chain of segments, of which
    any number may run on the device. `--set-shape` is for the sizes that are told: the halves keep
    the symbolic dimensions of the model.

    \b
    Examples:
      onnxopt split export model.onnx --at /layer2/Relu_output_0 -o out/
      onnxopt split export model.onnx --at conv_5 --codec uint8 --calibration samples.npz -o out/
      onnxopt split export model.onnx --plan plan.json -o out/
      onnxopt split export model.onnx --adaptive 3 -o out/
      onnxopt split export model.onnx --at conv_5 --serve triton,mlserver -o out/

    \b
    Exit codes: 0 fine; 1 the parts do not equal the whole, nothing was written; 2 usage: an unknown
    name, or a set of names between which something would have to come back from the edge;
    3 bad model; 4 ONNX Runtime does not run the model here; --no-verify writes it unproved.
    """
    from onnxopt.errors import UsageError
    from onnxopt.model import load
    from onnxopt.profiling.files import as_json
    from onnxopt.report.split_export_table import manifest_table
    from onnxopt.report.table import console
    from onnxopt.runtime import Session
    from onnxopt.splitting.describing import read_source
    from onnxopt.splitting.export import export as run
    from onnxopt.splitting.operators import read_subject
    from onnxopt.splitting.whole_folder import check_folder

    servers, accepted = _servers(serve), tolerance_of(tolerance)
    _check_asked(at, plan, adaptive, codec)
    check_folder(output)
    proto = load(model)
    source = read_source(model, proto)
    subject = read_subject(proto, by_name("--set-shape", set_shape, shape))
    try:
        wish = _wish(subject, source, at, plan, adaptive, codec)
    except UsageError:
        if verify:
            Session(proto)  # one that does not load is told of before names that it has not
        raise
    with Bar(quiet=quiet or json) as bar:
        done = run(
            subject,
            wish,
            source,
            output,
            samples=samples,
            verify=verify,
            tolerance=accepted,
            external_data=external_data.value,
            serve=servers,
            progress=bar,
        )
    if json:
        typer.echo(as_json(done.manifest).rstrip("\n"))
    elif not quiet:
        console().print(manifest_table(done.manifest, done.remarks))


def _servers(text: str | None) -> tuple[Server, ...]:
    from onnxopt.errors import UsageError

    found: list[Server] = []
    for name in filter(None, (piece.strip() for piece in (text or "").split(","))):
        if name == "triton":
            found.append("triton")
        elif name == "mlserver":
            found.append("mlserver")
        else:
            raise UsageError(f"--serve knows no server '{name}'", "use triton, mlserver or both")
    return tuple(dict.fromkeys(found))


def _check_asked(
    at: list[str] | None, plan: Path | None, adaptive: int | None, codec: CodecChoice | None
) -> None:
    from onnxopt.errors import UsageError

    if (bool(at), plan is not None, adaptive is not None).count(True) != 1:
        raise UsageError(
            "nothing says where to cut, or several things do",
            "give one of --at NAME, --plan FILE.json and --adaptive K",
        )
    if plan is not None and codec is not None:
        raise UsageError("the plan says how tensors cross", "leave out --codec, or plan with it")


def _wish(
    subject: Subject,
    source: Source,
    at: list[str] | None,
    plan: Path | None,
    adaptive: int | None,
    codec: CodecChoice | None,
) -> Wish:
    from onnxopt.splitting.plan_file import read_plan
    from onnxopt.splitting.wishes import named, planned, split_names, spread

    how = (codec or CodecChoice.none).codec
    if plan is not None:
        return planned(subject, read_plan(plan), plan.read_text(), source.digest)
    if adaptive is not None:
        return spread(subject, adaptive, how)
    return named(subject, split_names(subject, at or []), how)
