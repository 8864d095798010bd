"""`onnxopt split serve`: the edge half, over the Open Inference Protocol v2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxopt.cli.options import Quiet, Verbose
from onnxopt.cli.progress import Bar


def serve(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="What `onnxopt split export` wrote.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Whom to listen to; 0.0.0.0 is everybody.")
    ] = "127.0.0.1",
    cut: Annotated[
        list[str] | None,
        typer.Option(metavar="cutNN", help="Serve this cut only, to load less. Repeatable."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads inside one operator.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Requests computed at once.")] = 1,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", help="Largest body of a request.")
    ] = "256MiB",
    max_connections: Annotated[int, typer.Option(min=1, help="Open at once.")] = 512,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Requests waiting for their turn; others are refused.")
    ] = 64,
    body_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, help="For a body, and 1 s more for each 16 KiB."),
    ] = 30.0,
    log: Annotated[
        bool, typer.Option("--log", help="A line of JSON on stderr per request.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve the edge half of a split model, until SIGINT (Ctrl-C) or SIGTERM.

    The Open Inference Protocol v2 over REST, with the binary tensor data extension: `onnxopt split
    run` and any other client of that protocol can talk to it. Each cut is a model of its own,
    NAME.cut00, NAME.cut01, ..., and each request says which one it wants, so the device may change
    the cut at any time. When it is told to stop it finishes what it computes.

    There is no encryption and no password: on anything but this machine's own network, put it
    behind something that has them.

    \b
    Examples:
      onnxopt split serve OUT/
      onnxopt split serve OUT/ --host 0.0.0.0 --port 8000 --threads 4 --log
      onnxopt split serve OUT/ --cut cut02
      curl http://127.0.0.1:8000/v2/health/ready
      curl http://127.0.0.1:8000/v2/models/NAME.cut02

    \b
    Exit codes: 0 stopped by a signal; 2 usage, or the port is taken; 3 bad model;
    4 ONNX Runtime does not load a segment here.
    """
    import asyncio
    import json
    import signal
    import sys
    from collections.abc import Mapping

    from onnxopt.quantities import bytes_text, parse_count
    from onnxopt.splitting.endpoint import Endpoint
    from onnxopt.splitting.folder import cut_number, read_manifest
    from onnxopt.splitting.limits import Limits
    from onnxopt.splitting.server import EdgeServer

    limits = Limits(
        body_bytes=parse_count(max_body),
        connections=max_connections,
        waiting=max_waiting,
        body_s=body_timeout,
    )
    manifest = read_manifest(folder)
    cuts = [cut_number(manifest, name) for name in cut] if cut else None
    with Bar(quiet=quiet) as bar:
        endpoint = Endpoint(folder, cuts=cuts, threads=threads, limits=limits, progress=bar)

    def write(entry: Mapping[str, object]) -> None:
        typer.echo(json.dumps(entry), err=True)

    def say(url: str) -> None:
        if quiet:
            return
        for half in endpoint.halves.values():
            size = half.wire_bytes
            crossing = (
                "requests of any size" if size is None else f"{bytes_text(size)} in a request"
            )
            typer.echo(f"{url}/v2/models/{half.name}: takes {crossing}")
        typer.echo(f"ready at {url}; stop with Ctrl-C")
        sys.stdout.flush()

    server = EdgeServer(endpoint, host=host, port=port, workers=workers, log=write if log else None)

    async def serve_until_told() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, server.stop)
            except NotImplementedError:  # no Unix: KeyboardInterrupt ends the loop instead
                signal.signal(number, lambda *_: server.stop())
        await server.serve(say)

    asyncio.run(serve_until_told())
