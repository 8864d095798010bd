"""What `split export` and `split verify` tell, as a terminal shows it."""

from __future__ import annotations

import json
import math

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.quantities import bytes_text, count_text
from onnxopt.report.table import plain_table
from onnxopt.splitting.manifest import Cut, Manifest, Port
from onnxopt.splitting.verify import Verified

MOST_TENSORS = 4
"""Of one cut that the table names."""


def manifest_table(manifest: Manifest, remarks: tuple[str, ...] = ()) -> RenderableType:
    """Segments, cuts, and how they were proved."""
    segments = [
        (
            segment.file,
            count_text(segment.macs),
            bytes_text(segment.weight_bytes),
            "?" if segment.peak_bytes is None else bytes_text(segment.peak_bytes),
        )
        for segment in manifest.segments
    ]
    cuts = [
        (
            f"{cut.name}{' *' if number == manifest.chosen else ''}",
            _names(cut.tensors),
            bytes_text(sum(port.size_bytes for port in cut.tensors)),
            cut.codec,
            bytes_text(sum(port.size_bytes for port in cut.wire)),
            "-" if cut.error is None else f"{cut.error:.2g}",
        )
        for number, cut in enumerate(manifest.cuts)
    ]
    return Group(
        plain_table(("segment", "MACs", "weights", "peak"), segments),
        plain_table(
            ("cut", "what crosses", "bytes", "codec", "on the wire", "error"), cuts, left=2
        ),
        Text(
            "* used where nothing else is said; a cut has as many segments on the device as it is "
            "called, the last one everything"
        ),
        *(Text(line, style="yellow", overflow="fold") for line in remarks),
        *(Text(line, overflow="fold") for line in manifest.verified),
    )


def _names(ports: tuple[Port, ...]) -> str:
    names = [port.name for port in ports[:MOST_TENSORS]]
    if len(ports) > MOST_TENSORS:
        names.append(f"and {len(ports) - MOST_TENSORS} more")
    return "\n".join(names) or "nothing"


def verified_lines(found: Verified) -> RenderableType:
    """The verdict, against what, and what was shown."""
    lines = [Text(f"compared with {found.against}", overflow="fold")] if found.against else []
    if found.passed:
        lines.insert(0, Text(_passed_text(found), style="bold green"))
    else:
        lines.insert(0, Text(found.reason, style="bold red", overflow="fold"))
    lines += [
        Text(f"changed since the split: '{name}'", style="red", overflow="fold")
        for name in found.changed
    ]
    if found.proof is not None:
        lines += [Text(line, overflow="fold") for line in found.proof.notes]
        if found.proof.errors and not found.unlike:
            lines.append(Text("with codecs: equal bit for bit to codecs put between plain halves"))
        lines += [
            Text(_error_text(found.manifest.cuts[number], error), overflow="fold")
            for number, error in (found.proof.errors or {}).items()
        ]
    return Group(*lines)


def _passed_text(found: Verified) -> str:
    if found.proof is not None and found.proof.is_accepted:
        return f"the halves equal the whole within the tolerance of {found.proof.tolerance:.2g}"
    return "the halves equal the whole"


def _error_text(cut: Cut, error: float) -> str:
    known = "" if cut.error is None else f"; {cut.error:.2g} was measured when the model was split"
    return f"{cut.name}: its codec causes an error of {error:.2g}{known}"


def verified_json(source: str, found: Verified) -> str:
    """The verdict for a program."""
    proof = found.proof
    data = {
        "schema": "onnxopt-split-verification/1",
        "folder": source,
        "passed": found.passed,
        "reason": found.reason,
        "against": found.against,
        "changed": found.changed,
        "exact": None if proof is None else proof.exact.passed and not proof.plain,
        "plain_error": None if proof is None else _number(proof.plain),
        "optimized_error": None if proof is None else _number(proof.optimized),
        "tolerance": None if proof is None else proof.tolerance,
        "needed_tolerance": None if proof is None or proof.passed else proof.needed,
        "codec_errors": {
            found.manifest.cuts[number].name: _number(error)
            for number, error in ((proof.errors if proof is not None else None) or {}).items()
        },
        "codecs_unlike": found.unlike,
        "first_difference": "" if proof is None else proof.first,
        "notes": () if proof is None else proof.notes,
    }
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False)


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
