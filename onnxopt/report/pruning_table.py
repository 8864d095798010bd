"""What `prune` tells, as a terminal shows it."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxopt.pruning.outcome import PruneReport
from onnxopt.pruning.results import Preview
from onnxopt.report.pruning_lines import (
    BLOCK_HEAD,
    GROUP_HEAD,
    block_row,
    cost_rows,
    error_text,
    final_choices,
    group_row,
    headline,
    preview_notes,
    result_lines,
)
from onnxopt.report.table import plain_table


def pruning_table(report: PruneReport) -> RenderableType:
    """Cost before and after, and what the result is worth."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(report.source or "model"), overflow="fold")
    for name in ("before", "after", ""):
        table.add_column(name, justify="right", overflow="fold")
    for what, before, after, change in cost_rows(report.before, report.after):
        style = "green" if change.startswith("-") else "yellow" if change else ""
        table.add_row(Text(what), Text(before), Text(after), Text(change, style=style))
    parts: list[RenderableType] = [table, Text(headline(report), style="bold")]
    if report.options.prove:
        parts.append(_proofs(report))
    lines = [Text(line, overflow="fold") for line in result_lines(report)]
    return Group(*parts, *lines)


def _proofs(report: PruneReport) -> RenderableType:
    rows = []
    for choice, left in final_choices(report):
        proof = choice.proof
        said = "-" if proof is None else "holds" if proof.exact else "approximate"
        error = "-" if proof is None else error_text(proof.error)
        rows.append((choice.name, said, error, str(choice.units), str(left)))
    return plain_table(("group", "random cut", "error", "width", "left"), rows, left=2)


def declined_lines(report: PruneReport) -> RenderableType:
    """Every group that was declined, with its node and the reason."""
    found = report.rounds[0].declined
    return Group(
        *(Text(f"declined: {item.node}: {item.channels} channels: {item.reason}") for item in found)
    )


def preview_table(source: str, found: Preview) -> RenderableType:
    """The groups that could be cut, and what is declined."""
    head, rows = list(GROUP_HEAD), [list(group_row(group)) for group in found.groups]
    if found.widths:
        head.append("would keep")
        rows = [[*row, str(n)] for row, n in zip(rows, found.widths, strict=True)]
    parts: list[RenderableType] = [Text(source), plain_table(head, rows, left=2)]
    if found.blocks:
        rows = [list(block_row(choice)) for choice in found.blocks]
        parts.append(plain_table(BLOCK_HEAD, rows, left=2))
    parts += [Text(line, overflow="fold") for line in preview_notes(found)]
    if found.declined:
        parts.append(Text("declined:"))
        reasons = [(item.node, str(item.channels), item.reason) for item in found.declined]
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("node", overflow="fold")
        table.add_column("channels", justify="right")
        table.add_column("why", overflow="fold")
        for row in reasons:
            table.add_row(*(Text(cell) for cell in row))
        parts.append(table)
    return Group(*parts)
