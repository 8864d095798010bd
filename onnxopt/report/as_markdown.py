"""The report as Markdown, for a pull request or a build summary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnxopt.changes import Change
from onnxopt.report.lines import (
    closing_lines,
    excess_text,
    operator_rows,
    signature_rows,
    size_rows,
)
from onnxopt.report.report import Report

MOST_LISTED = 200
"""Rewrites listed one by one; the JSON report has them all."""


def report_markdown(report: Report) -> str:
    """The whole report."""
    title = report.source or "model"
    if report.output is not None:
        title += f" → {report.output}"
    rows = [*signature_rows(report), *operator_rows(report), *size_rows(report)]
    parts = [
        f"# onnxopt: {markdown_cell(title)}",
        f"**Verdict:** {markdown_cell(report.verdict_line())}",
        markdown_table(("", "before", "after", "change"), rows, left=1),
        "\n".join(f"- {markdown_cell(line)}" for line in closing_lines(report)),
        _verification(report),
        _changes("Rewrites made", "what", report.changes),
        _changes("Rewrites taken back", "why", report.withdrawn),
        _changes("Rewrites that matched and were not made", "why", report.declined),
        "Made with " + ", ".join(f"{name} {v}" for name, v in report.versions.items()) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verification(report: Report) -> str:
    if report.verdict is None or not report.verdict.outputs:
        return ""
    rows = [
        (
            output.name,
            f"{output.worst_absolute:.3g}",
            f"{output.worst_relative:.3g}",
            excess_text(output),
            output.feed or "-",
        )
        for output in report.verdict.outputs
    ]
    head = ("output", "worst error", "relative", "of what is allowed", "on")
    draws = "; ".join(report.verdict.draws)
    table = markdown_table(head, rows, left=1)
    return f"## Verification\n\n{table}\n\nInputs: {markdown_cell(draws)}."


def _changes(title: str, column: str, changes: tuple[Change, ...]) -> str:
    if not changes:
        return ""
    rows = [(change.by, change.site, change.what) for change in changes[:MOST_LISTED]]
    more = len(changes) - len(rows)
    rest = f"\n\nand {more} more" if more else ""
    return f"## {title}\n\n{markdown_table(('by', 'where', column), rows)}{rest}"


def markdown_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int = 3) -> str:
    """The first `left` columns start at the left, numbers end at the right."""
    rule = tuple("---" if column < left else "---:" for column in range(len(head)))
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(markdown_cell(c) for c in line) + " |" for line in lines)


def markdown_cell(text: str) -> str:
    """Names in models hold anything: keep them from becoming markup."""
    return re.sub(r"[\\|`*<]|\](?=\()|\b_|_\b", r"\\\g<0>", " ".join(text.split()))
