"""The report of `prune` as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from onnxopt.pruning.outcome import PruneReport
from onnxopt.report.as_markdown import markdown_cell, markdown_table
from onnxopt.report.pruning_lines import (
    BLOCK_HEAD,
    block_row,
    cost_rows,
    error_text,
    final_choices,
    headline,
    result_lines,
)


def pruning_markdown(report: PruneReport) -> str:
    """The whole report."""
    title = report.source or "model"
    if report.output is not None:
        title += f" → {report.output}"
    rows = cost_rows(report.before, report.after)
    parts = [
        f"# onnxopt prune: {markdown_cell(title)}",
        f"**{markdown_cell(headline(report))}**",
        markdown_table(("", "before", "after", "change"), rows, left=1),
        "\n".join(f"- {markdown_cell(line)}" for line in result_lines(report)),
        *_blocks(report),
        _groups(report),
        _declined(report),
        "Made with " + ", ".join(f"{name} {v}" for name, v in report.versions.items()) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _blocks(report: PruneReport) -> Iterator[str]:
    """The residual blocks that could go in each round; damages are expected."""
    for depth in (done.depth for done in report.rounds if done.depth is not None):
        rows = [block_row(choice) for choice in depth.blocks]
        yield f"## Residual blocks\n\n{markdown_table(BLOCK_HEAD, rows, left=2)}"


def _groups(report: PruneReport) -> str:
    rows = [
        (
            choice.name,
            "exact" if choice.group.exact else f"approximate: {choice.group.changed}",
            str(choice.units),
            str(left),
            "" if choice.group.is_read else f"{choice.group.share:.1%}",
            "-" if choice.proof is None else error_text(choice.proof.error),
        )
        for choice, left in final_choices(report)
    ]
    head = ("group", "cut", "width", "left", "share of the cost", "proof of a random cut")
    return f"## Groups of channels\n\n{markdown_table(head, rows, left=2)}"


def _declined(report: PruneReport) -> str:
    found = report.rounds[0].declined
    if not found:
        return ""
    rows = [(item.node, item.reason, str(item.channels)) for item in found]
    table = markdown_table(("node", "why", "channels"), rows, left=2)
    return f"## Declined\n\n{table}"
