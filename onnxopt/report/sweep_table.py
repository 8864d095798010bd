"""A sweep as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.pruning.points import Sweep
from onnxopt.report.sweep_lines import sweep_head, sweep_headline, sweep_lines, sweep_rows
from onnxopt.report.table import plain_table


def sweep_table(sweep: Sweep, written: Sequence[str] = ()) -> RenderableType:
    """The original, the points, and what there is to know.

    Args:
        written: what lies where, in sentences.
    """
    lines = [*sweep_lines(sweep), *written]
    return Group(
        Text(sweep.source or "model"),
        plain_table(sweep_head(sweep), sweep_rows(sweep)),
        Text(sweep_headline(sweep), style="bold"),
        *(Text(line, overflow="fold") for line in lines),
    )
