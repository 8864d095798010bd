"""A sweep as Markdown, with all that was measured."""

from __future__ import annotations

from onnxopt.pruning.points import Point, Sweep
from onnxopt.quantities import bytes_text, count_text
from onnxopt.report.as_markdown import markdown_cell, markdown_table
from onnxopt.report.sweep_lines import (
    ABSENT,
    asked_text,
    predicted_text,
    sweep_head,
    sweep_headline,
    sweep_lines,
    sweep_rows,
)


def sweep_markdown(sweep: Sweep, picture: str | None = None) -> str:
    """The whole sweep.

    Args:
        picture: the name of the file that shows it, beside this one.
    """
    parts = [
        f"# onnxopt prune --sweep: {markdown_cell(sweep.source or 'model')}",
        f"**{markdown_cell(sweep_headline(sweep))}**",
        "" if picture is None else f"![what is lost for what is saved]({picture})",
        markdown_table(sweep_head(sweep), sweep_rows(sweep), left=1),
        "\n".join(f"- {markdown_cell(line)}" for line in sweep_lines(sweep)),
        _details(sweep),
        "Made with " + ", ".join(f"{name} {v}" for name, v in sweep.versions.items()) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _details(sweep: Sweep) -> str:
    head = (
        "asked",
        "MACs",
        "size",
        "same class",
        *(("predicted",) if sweep.mode == "latency" else ()),
        sweep_head(sweep)[-1],
        "original",
        "ratio",
        "quartiles",
        "model",
    )
    rows = [_detail(sweep, point) for point in sweep.done]
    return f"## Each point\n\n{markdown_table(head, rows, left=1)}"


def _detail(sweep: Sweep, point: Point) -> tuple[str, ...]:
    assert point.cost is not None and point.worth is not None
    same, timing = point.worth.same_class, point.worth.timing
    return (
        asked_text(sweep, point),
        count_text(point.cost.macs),
        bytes_text(point.cost.size_bytes),
        ABSENT if same is None else f"{same:.2%}",
        *((predicted_text(point),) if sweep.mode == "latency" else ()),
        f"{timing.second_ms:.3g} ms",
        f"{timing.first_ms:.3g} ms",
        f"{timing.ratio:.2f}",
        f"{timing.low:.2f} to {timing.high:.2f}",
        point.model or ABSENT,
    )
