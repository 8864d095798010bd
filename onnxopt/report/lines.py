"""The rows and lines that the table and the Markdown report share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxopt.cost import Cost
from onnxopt.quantities import bytes_text, change_text, count_text
from onnxopt.report.report import Report

if TYPE_CHECKING:
    from onnxopt.verification.verdict import OutputError

Row = tuple[str, str, str, str]
"""What, before, after, change."""


def signature_rows(report: Report) -> list[Row]:
    """Inputs and outputs; where nothing changed, once."""
    rows: list[Row] = []
    before, after = report.before, report.after
    for kind, old, new in (
        ("in", before.inputs, after.inputs),
        ("out", before.outputs, after.outputs),
    ):
        for name in dict.fromkeys((*old, *new)):
            left, right = old.get(name, "-"), new.get(name, "-")
            rows.append((f"{kind} {name}", left, right, "" if left == right else "changed"))
    return rows


def operator_rows(report: Report) -> list[Row]:
    """The operators whose count changed."""
    old, new = report.before.operators, report.after.operators
    changed = [op for op in sorted({*old, *new}) if old.get(op, 0) != new.get(op, 0)]
    pairs = [(op, old.get(op, 0), new.get(op, 0)) for op in changed]
    return [(op, str(left), str(right), f"{right - left:+,}") for op, left, right in pairs]


def size_rows(report: Report) -> list[Row]:
    before, after = report.before, report.after
    return [
        _row("nodes", before.nodes, after.nodes, str),
        _row("initializers", before.initializers, after.initializers, str),
        _row("parameters", before.parameters, after.parameters, count_text),
        _row("size", before.size_bytes, after.size_bytes, bytes_text),
        row_by_shapes("MACs", before, after, lambda cost: cost.macs, count_text),
        row_by_shapes(
            "peak activations", before, after, lambda cost: cost.peak_memory_bytes, bytes_text
        ),
    ]


def row_by_shapes(
    what: str, before: Cost, after: Cost, of: Callable[[Cost], int], text: Callable[[int], str]
) -> Row:
    """What is known as far as shapes are. No change where one of the two is a lower bound: it may
    only be better known now."""
    left, right = of(before), of(after)
    change = "" if before.unknown or after.unknown else change_text(left, right)
    return what, bound_text(before, text(left)), bound_text(after, text(right)), change


def bound_text(cost: Cost, text: str) -> str:
    """With a sign that it is a lower bound, where shapes are not known."""
    return f">= {text}" if cost.unknown else text


def _row(what: str, before: int, after: int, text: Callable[[int], str]) -> Row:
    return what, text(before), text(after), change_text(before, after)


def closing_lines(report: Report) -> list[str]:
    """What stands under the table, below the verdict."""
    lines: list[str] = []
    if report.rewrites:
        counts = ", ".join(f"{by} {count}" for by, count in report.rewrites.items())
        lines.append(f"rewrites: {counts}")
    else:
        lines.append("rewrites: none, the model is as simple as onnxopt can make it")
    if report.withdrawn:
        lines += [f"taken back: {c.by} at {c.site}: {c.what}" for c in report.withdrawn]
    if report.declined:
        count = len(report.declined)
        lines.append(f"not made: {count} that matched; onnxopt explain says why")
    if report.before.assumed:
        lines.append("costs are for " + ", ".join(f"{name} = 1" for name in report.before.assumed))
    if report.verdict is not None:
        lines += [f"not shown: {reason}" for reason in report.verdict.unverified]
    return [*lines, *(f"note: {note}" for note in report.notes)]


def excess_text(output: OutputError) -> str:
    """The largest share of its tolerance that an error took, over all elements of the output."""
    if math.isinf(output.excess):
        return "not allowed"
    return f"{output.excess:.0%}"
