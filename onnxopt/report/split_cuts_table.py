"""What `split cuts` tells, as a terminal shows it, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.quantities import bytes_text, count_text
from onnxopt.report.table import plain_table
from onnxopt.splitting.dag import Tensor
from onnxopt.splitting.listing import ListedCut, Listing

SCHEMA = "onnxopt-split-cuts/1"

COLUMNS = ("cut", "what crosses", "", "bytes", "as uint8", "MACs", "weights", "peak")

MOST_TENSORS = 3
"""Of one cut that the table names."""


def cuts_table(found: Listing, *, everything: bool) -> RenderableType:
    """The cuts worth a look, or all of them."""
    shown = [cut for cut in found.cuts if everything or cut.is_useful]
    lines = [f"{len(found.cuts)} cuts with operators on both sides"]
    if len(shown) < len(found.cuts):
        lines.append(
            f"not shown: {len(found.cuts) - len(shown)} that send as much as one with no more work "
            "on the device, or more; --all shows them"
        )
    lines += _notes(found)
    return Group(
        plain_table(COLUMNS, [_row(cut) for cut in shown], left=3),
        *(Text(line, overflow="fold") for line in lines),
    )


def _row(cut: ListedCut) -> tuple[str, ...]:
    names = [_tensor(tensor) for tensor in cut.tensors[:MOST_TENSORS]]
    if len(cut.tensors) > MOST_TENSORS:
        names.append(f"and {len(cut.tensors) - MOST_TENSORS} more")
    sides = (cut.device, cut.edge)
    return (
        str(cut.id),
        "\n".join(names),
        "device\nedge",
        bytes_text(cut.size_bytes),
        bytes_text(cut.uint8_bytes),
        "\n".join(count_text(side.macs) for side in sides),
        "\n".join(bytes_text(side.weight_bytes) for side in sides),
        "\n".join(bytes_text(side.peak_bytes) for side in sides),
    )


def _tensor(tensor: Tensor) -> str:
    if tensor.dims is None:
        return f"{tensor.name} {tensor.dtype}"
    sizes = ",".join("?" if dim is None else str(dim) for dim in tensor.dims)
    return f"{tensor.name} {tensor.dtype}[{sizes}]"


def _notes(found: Listing) -> list[str]:
    inputs = ", ".join(_tensor(tensor) for tensor in found.inputs) or "nothing"
    size = bytes_text(sum(tensor.size_bytes for tensor in found.inputs))
    sends = "would send" if found.stuck else "sends"
    notes = [
        f"all at the edge {sends} {inputs} ({size}); all on the device takes "
        f"{bytes_text(found.whole.weight_bytes)} of weights and "
        f"{bytes_text(found.whole.peak_bytes)} of activations"
    ]
    if found.stuck:
        notes.append(
            "the device must make what the edge could not send back, so all at the edge is not "
            f"possible: {'; '.join(found.stuck)}"
        )
    if found.sizes:
        notes.append(f"sizes are for {', '.join(found.sizes)}; --set-shape tells them for others")
    nothing = {t.name for cut in found.cuts for t in cut.tensors if not t.size_bytes}
    if nothing:
        notes.append(f"nothing is known of the size of {len(nothing)} tensors: they count as empty")
    if not found.is_complete:
        notes.append(
            "operators lie side by side in more than 20,000 ways somewhere: of these cuts some "
            "are listed; `split plan` looks at all of them"
        )
    if found.refused:
        notes.append(f"cannot cross: {'; '.join(found.refused)}")
    if found.unloadable:
        notes.append(
            "ONNX Runtime does not load this model here, so `split export` proves nothing of it "
            f"and needs --no-verify: {found.unloadable}"
        )
    if found.random:
        notes.append(f"random, and so not comparable: {', '.join(found.random)}")
    return notes


def cuts_json(source: str, found: Listing) -> str:
    """All cuts, in topological order."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "model": source,
        "sizes": found.sizes,
        "complete": found.is_complete,
        "inputs": [_plain(tensor) for tensor in found.inputs],
        "whole": asdict(found.whole),
        "refused": found.refused,
        "unsendable_outputs": found.stuck,
        "random": found.random,
        "unloadable": found.unloadable,
        "cuts": [
            {
                "id": cut.id,
                "tensors": [_plain(tensor) for tensor in cut.tensors],
                "bytes": cut.size_bytes,
                "fp16_bytes": cut.fp16_bytes,
                "uint8_bytes": cut.uint8_bytes,
                "device": asdict(cut.device),
                "edge": asdict(cut.edge),
                "useful": cut.is_useful,
            }
            for cut in found.cuts
        ],
    }
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False)


def _plain(tensor: Tensor) -> dict[str, Any]:
    dims = None if tensor.dims is None else list(tensor.dims)
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": dims,
        "bytes": tensor.size_bytes,
    }
