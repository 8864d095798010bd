"""Settings for third-party servers of the edge half: a Triton repository, MLServer folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.files import write_atomically
from onnxopt.model import ExternalData, save
from onnxopt.signature import Port, model_inputs, model_outputs
from onnxopt.splitting.halves import Parts, take_apart
from onnxopt.splitting.segments import Piece
from onnxopt.splitting.tensors import type_name

Server: TypeAlias = Literal["triton", "mlserver"]

MLSERVER_RUNTIME = "onnxopt.splitting.mlserver_edge.EdgeModel"
"""MLServer has no runtime for ONNX of its own."""


def write_serving_files(
    parts: Parts,
    name: str,
    folder: Path,
    servers: Sequence[Server],
    *,
    external_data: ExternalData = "auto",
    was_external: bool = False,
) -> None:
    """Put `triton/` and `mlserver/` into a folder: the edge half of each cut under its own name.

    These servers know nothing of segments, so each half is one model with its codec inside; of a
    longer chain weights are on disk once for each cut.

    Args:
        name: of the model; its halves are NAME.cut01 and so on.

    Raises:
        UsageError: a half takes or gives what the server cannot, or its codec needs newer operators
            than the model imports.
    """
    for number in range(len(parts.pieces)):
        half = _edge_half(parts, number)
        for server in servers:
            model = f"{name}.cut{number:02d}"
            place = folder / server / model
            inside = place / "1" if server == "triton" else place
            inside.mkdir(parents=True)
            inputs = [p for p in model_inputs(half.proto) if p.name in half.reads]
            outputs = model_outputs(half.proto)
            _check(server, [*inputs, *outputs])
            write: Callable[[str, Sequence[Port], Sequence[Port]], str] = (
                triton_config if server == "triton" else mlserver_settings
            )
            settings = "config.pbtxt" if server == "triton" else "model-settings.json"
            write_atomically(place / settings, [write(model, inputs, outputs).encode()])
            save(
                half.proto,
                inside / "model.onnx",
                external_data=external_data,
                was_external=was_external,
            )


def _edge_half(parts: Parts, number: int) -> Piece:
    """All segments behind a cut as one model that takes what crosses."""
    if number == 0 and not parts.borders[0].coding.encoded:
        return take_apart(parts.subject, (), ("none", "none")).pieces[0]
    if len(parts.pieces) == 2 and number == 1 and parts.borders[1].models is None:
        return parts.pieces[1]
    device = frozenset(o for piece in parts.plain[:number] for o in piece.operators)
    codec = parts.borders[number].codec
    halves = take_apart(parts.subject, (device,), ("none", codec, "none"))
    if halves.borders[1].models is not None:
        raise UsageError(
            f"the codec {codec} needs newer operators than the model imports, so no edge half can "
            "hold it, and the server cannot decode on its own",
            "use --codec none, or leave out --serve",
        )
    return halves.pieces[1]


def _check(server: Server, ports: Sequence[Port]) -> None:
    for port in ports:
        if port.kind != "tensor" or port.optional or port.dtype == np.dtype(object):
            raise UsageError(
                f"'{port.name}' is {port.describe()}, which {server} does not exchange",
                "leave out --serve, or cut where such values stay on the device",
            )
        if server == "triton" and port.dims is None:
            raise UsageError(
                f"nothing says how many dimensions '{port.name}' has, which Triton must know",
                "declare the shape of the input or output in the model",
            )


def triton_config(name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """The text of a config.pbtxt."""
    lines = [
        f"name: {_quoted(name)}",
        'platform: "onnxruntime_onnx"',
        "max_batch_size: 0",
        *(line for port in inputs for line in _triton_port("input", port)),
        *(line for port in outputs for line in _triton_port("output", port)),
    ]
    return "\n".join(lines) + "\n"


def _triton_port(kind: str, port: Port) -> list[str]:
    sizes = [dim if isinstance(dim, int) else -1 for dim in port.dims or ()]
    lines = [
        f"{kind} {{",
        f"  name: {_quoted(port.name)}",
        f"  data_type: TYPE_{type_name(port.dtype)}",
        f"  dims: [ {', '.join(map(str, sizes or [1]))} ]",
    ]
    if not sizes:  # Triton has no scalars: they go in and out as one element
        lines.append("  reshape { shape: [ ] }")
    return [*lines, "}"]


def _quoted(text: str) -> str:
    """A string of protobuf's text format."""
    shown = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\{ord(c):03o}" for c in shown) + '"'


def mlserver_settings(name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """The text of a model-settings.json."""
    settings = {
        "name": name,
        "implementation": MLSERVER_RUNTIME,
        "parameters": {"uri": "./model.onnx", "version": "1"},
        "inputs": [_mlserver_port(port) for port in inputs],
        "outputs": [_mlserver_port(port) for port in outputs],
    }
    return json.dumps(settings, indent=1, ensure_ascii=False) + "\n"


def _mlserver_port(port: Port) -> dict[str, object]:
    sizes = [dim if isinstance(dim, int) else -1 for dim in port.dims or ()]
    return {"name": port.name, "datatype": type_name(port.dtype), "shape": sizes}
