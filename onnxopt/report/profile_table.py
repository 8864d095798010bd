"""What `profile` tells, as a terminal shows it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.profiling.document import Profile
from onnxopt.profiling.rows import (
    BLOCK_COLUMNS,
    KERNEL_COLUMNS,
    LAYER_COLUMNS,
    OPERATOR_COLUMNS,
    block_rows,
    closing_lines,
    facts,
    kernel_rows,
    layer_rows,
    operator_rows,
)
from onnxopt.report.table import plain_table


def profile_table(profile: Profile) -> RenderableType:
    """What was measured where; operators, kernels, layers, blocks; and whether to trust it."""
    parts: list[RenderableType] = [
        plain_table((profile.source or "model", ""), facts(profile), left=2),
        plain_table(OPERATOR_COLUMNS, operator_rows(profile)),
        plain_table(KERNEL_COLUMNS, kernel_rows(profile), left=2),
    ]
    if profile.layers:
        parts.append(plain_table(LAYER_COLUMNS, layer_rows(profile)))
    if profile.blocks:
        parts.append(plain_table(BLOCK_COLUMNS, block_rows(profile), left=2))
    lines = [Text(line, overflow="fold") for line in closing_lines(profile)]
    if not profile.noise.trusted:
        for line in lines[-2:]:
            line.stylize("bold yellow")
    return Group(*parts, *lines)
