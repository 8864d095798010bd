"""A sweep as a picture (SVG or PNG), with Matplotlib, which only those who want one need."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from onnxopt.errors import UsageError
from onnxopt.pruning.budget import cost_text
from onnxopt.pruning.points import Sweep, cost_name
from onnxopt.quantities import count_text
from onnxopt.report.sweep_lines import PERCENT, quality, quality_of, whole_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".png")
INSTALL = "pip install 'onnxopt[plots]'"

STYLE: dict[str, Any] = {
    "svg.hashsalt": "onnxopt",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
MODELS, ORIGINAL, GUIDE = "#1f5fa8", "#c2410c", "#888888"
SMALLEST_RANGE = 98.0
"""Where an axis of percent begins at most: smaller differences are shown as small."""

WIDTH_IN, PANEL_HEIGHT_IN, DOTS_PER_IN = 6.4, 2.7, 150


def can_draw() -> bool:
    """Whether Matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def require_drawing() -> None:
    """Raise UsageError unless a picture can be drawn."""
    if not can_draw():
        raise UsageError("drawing a picture needs Matplotlib, which is not installed", INSTALL)


def sweep_picture(sweep: Sweep, suffix: str = ".svg") -> bytes:
    """What the models are worth, and below it their time, against what they cost.

    Where that cost is time itself, their FLOPs stand below: time falls less than these.

    The same sweep gives the same bytes, with the same Matplotlib.

    Args:
        suffix: .svg or .png.

    Raises:
        UsageError: Matplotlib is not installed.
    """
    require_drawing()
    import matplotlib.style
    from matplotlib.figure import Figure

    panels: list[Callable[[Axes, Sweep], None]] = [
        *(partial(_draw_worth, worth) for worth in _worths(sweep)),
        _draw_flops if sweep.mode == "latency" else _draw_time,
    ]
    stream = io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(
            figsize=(WIDTH_IN, 0.6 + PANEL_HEIGHT_IN * len(panels)), layout="constrained"
        )
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for draw, panel in zip(panels, axes, strict=True):
            draw(panel, sweep)
        _draw_cost_axis(axes[-1], sweep)
        axes[0].set_title(sweep.source or "model", loc="left", fontsize=10, parse_math=False)
        nothing = dict.fromkeys(("Date", "Creator") if suffix == ".svg" else ("Software",))
        figure.savefig(stream, format=suffix[1:], dpi=DOTS_PER_IN, metadata=nothing)
    return stream.getvalue()


@dataclass(frozen=True)
class _Worth:
    """One way in which the models are worth something: the axis, the original's, each point's."""

    label: str
    original: float | None
    values: list[float | None]
    is_percent: bool = False


def _worths(sweep: Sweep) -> list[_Worth]:
    """What was measured: the metric, or else agreement with the original."""
    name, values = quality(sweep), [quality_of(sweep, point) for point in sweep.done]
    shares = [None if value is None else 100 * value for value in values]
    if name is not None and sweep.metric is not None:
        if name not in PERCENT:
            return [_Worth(name, sweep.accuracy, values)]
        whole = None if sweep.accuracy is None else 100 * sweep.accuracy
        return [_Worth(f"{name} (%)", whole, shares, is_percent=True)]
    found = [] if name is None else [_Worth("class of the original (%)", 100.0, shares, True)]
    errors = [point.worth.relative_error for point in sweep.done if point.worth is not None]
    if any(error is not None for error in errors):
        found.append(_Worth("relative error of the outputs", 0.0, errors))
    return found


def _draw_worth(worth: _Worth, axes: Axes, sweep: Sweep) -> None:
    known = [(x, y) for x, y in zip(_shares(sweep), worth.values, strict=True) if y is not None]
    if worth.original is not None:
        known = [(100.0, worth.original), *known]
        axes.axhline(worth.original, color=GUIDE, linewidth=0.8, linestyle="--")
        axes.plot([100.0], [worth.original], "D", color=ORIGINAL, label="original", zorder=3)
    if known:
        _draw_line(axes, known)
        axes.legend(loc="best")
    if worth.is_percent and known:
        low = min([SMALLEST_RANGE, *(y for _, y in known)])
        room = 0.05 * (100 - low)
        axes.set_ylim(low - room, 100 + room)
    axes.set_ylabel(worth.label, parse_math=False)


def _draw_time(axes: Axes, sweep: Sweep) -> None:
    timings = [point.worth.timing for point in sweep.done if point.worth is not None]
    ratios = [100 * timing.ratio for timing in timings]
    shares = _shares(sweep)
    _draw_line(axes, [(100.0, 100.0), *zip(shares, ratios, strict=True)])
    spread = [
        [100 * (timing.ratio - timing.low) for timing in timings],
        [100 * (timing.high - timing.ratio) for timing in timings],
    ]
    axes.errorbar(shares, ratios, spread, fmt="none", color=MODELS, capsize=3, label="quartiles")
    _draw_guide(axes, sweep)
    axes.set_ylabel(f"time of one run (% of {whole_ms(sweep):.3g} ms)")
    axes.legend(loc="best")


def _draw_flops(axes: Axes, sweep: Sweep) -> None:
    shares, whole = _shares(sweep), sweep.before.flops
    flops = [100 * point.cost.flops / max(whole, 1) for point in sweep.done if point.cost]
    _draw_line(axes, [(100.0, 100.0), *zip(shares, flops, strict=True)])
    found = [point.latency.measured if point.latency else None for point in sweep.done]
    for time, y in zip(found, flops, strict=True):
        if time is not None:
            spread = [[100 * (time.ratio - time.low)], [100 * (time.high - time.ratio)]]
            axes.errorbar([100 * time.ratio], [y], xerr=spread, color=MODELS, capsize=3)
    _draw_guide(axes, sweep)
    axes.set_ylabel(f"remaining FLOPs (% of {count_text(whole)})", parse_math=False)
    axes.legend(loc="best")


def _draw_guide(axes: Axes, sweep: Sweep) -> None:
    """Where a model would be whose other cost falls in step with that of the budgets."""
    axes.plot([100.0], [100.0], "D", color=ORIGINAL, zorder=3)
    start, label = min(_shares(sweep)), f"in step with {cost_name(sweep.mode)}"
    axes.plot([start, 100], [start, 100], ":", color=GUIDE, label=label, zorder=1)


def _draw_line(axes: Axes, points: list[tuple[float, float]]) -> None:
    ordered = sorted(points, reverse=True)
    axes.plot(*zip(*ordered, strict=True), "o-", color=MODELS, label="pruned", zorder=2)


def _draw_cost_axis(axes: Axes, sweep: Sweep) -> None:
    axes.set_xlabel(f"remaining {cost_name(sweep.mode)} (% of {_whole(sweep)})", parse_math=False)


def _whole(sweep: Sweep) -> str:
    """What the original costs; its time on the machine that the budgets are about."""
    if sweep.mode != "latency":
        return cost_text(sweep.before.by(sweep.mode), sweep.mode)
    if sweep.elsewhere is None:
        return f"{whole_ms(sweep):.3g} ms"
    return f"{sweep.elsewhere.original_ms:.3g} ms on {sweep.elsewhere.machine}, predicted"


def _shares(sweep: Sweep) -> list[float]:
    """What the models cost, in percent of the original."""
    return [100 * point.remaining(sweep) for point in sweep.done]
