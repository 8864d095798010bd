"""Everything onnxopt tells, as a terminal shows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from onnxopt.report.lines import (
    Row,
    closing_lines,
    excess_text,
    operator_rows,
    signature_rows,
    size_rows,
)

if TYPE_CHECKING:
    from onnxopt.budgets import CheckResult
    from onnxopt.changes import Change
    from onnxopt.report.report import Report
    from onnxopt.verification.model_comparison import Comparison

MOST_LISTED = 10
"""Rewrites that `check` lists."""

WIDTH_OF_FILES = 100
"""Columns where the output is not a terminal and COLUMNS does not say."""


def console(file: TextIO | None = None) -> Console:
    """A console that obeys NO_COLOR, and COLUMNS where it is no terminal."""
    stream = file if file is not None else sys.stdout
    width = None
    if not stream.isatty():
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdigit() and int(columns) > 0 else WIDTH_OF_FILES
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def report_table(report: Report) -> RenderableType:
    """Before and after, the verdict, and what was rewritten."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column(Text(report.source or "model"), overflow="fold")
    for name in ("before", "after", ""):
        table.add_column(name, justify="right", overflow="fold")
    sections = (signature_rows(report), operator_rows(report), size_rows(report))
    for rows in sections:
        for row in rows:
            table.add_row(*_cells(row))
        if rows:
            table.add_section()
    lines = [Text(line, overflow="fold") for line in closing_lines(report)]
    return Group(table, verdict_text(report), *lines)


def _cells(row: Row) -> list[Text]:
    what, before, after, change = row
    style = "green" if change.startswith("-") else "yellow" if change else ""
    if what.startswith(("in ", "out ")):
        style = "bold yellow" if change else ""
    return [Text(what), Text(before), Text(after), Text(change, style=style)]


def verdict_text(report: Report) -> Text:
    if report.verdict is None:
        return Text(f"verdict: {report.verdict_line()}", style="bold yellow")
    style = "bold green" if report.verdict.passed else "bold red"
    return Text(f"verdict: {report.verdict_line()}", style=style)


def change_lines(changes: Sequence[Change]) -> RenderableType:
    """Rewrites one by one: what became of the site, or why it was left alone."""
    return Group(*(Text(_change_line(change)) for change in changes))


def _change_line(change: Change) -> str:
    return f"{change.by}: {change.site}{':' if change.done else ' not made:'} {change.what}"


def check_lines(result: CheckResult) -> RenderableType:
    """One line for each budget, those that broke in red."""
    lines = [_check_line(budget.ok, str(budget)) for budget in result.budgets]
    lines += [
        Text(f"       {budget.name} is a lower bound: some shapes are not known")
        for budget in result.budgets
        if budget.is_lower_bound
    ]
    if result.left_to_do is not None:
        count = len(result.left_to_do)
        said = f"onnxopt optimize would make {count} rewrites" if count else "optimized already"
        lines.append(_check_line(not count, said))
        lines += [Text(f"       {line}") for line in result.left_to_do[:MOST_LISTED]]
        if count > MOST_LISTED:
            lines.append(Text(f"       and {count - MOST_LISTED} more; --json lists them all"))
    return Group(*lines)


def _check_line(ok: bool, text: str) -> Text:
    mark = ("ok     ", "green") if ok else ("BROKEN ", "bold red")
    return Text.assemble(mark, text, overflow="fold")


def comparison_lines(found: Comparison) -> RenderableType:
    """The verdict, each output, and the first tensor that differs."""
    verdict = found.verdict
    style = "bold green" if verdict.passed else "bold red"
    parts: list[RenderableType] = [Text(verdict.summary(), style=style)]
    if verdict.outputs:
        rows = [
            (
                output.name,
                "ok" if output.ok else "DIFFERS",
                f"{output.worst_absolute:.3g}",
                f"{output.worst_relative:.3g}",
                excess_text(output),
                output.feed or "-",
            )
            for output in verdict.outputs
        ]
        head = ("output", "", "worst error", "relative", "of what is allowed", "on")
        parts.append(plain_table(head, rows, left=2))
    if found.first_difference is not None:
        first = found.first_difference
        parts.append(
            Text(
                f"the first tensor that differs: '{first.name}', off by {first.worst_absolute:.3g} "
                f"where {first.tolerance:.3g} is allowed, on {first.feed or 'all inputs'}"
            )
        )
    return Group(*parts, *(Text(f"not shown: {reason}") for reason in verdict.unverified))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """A table whose first `left` columns are words and whose others are numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
