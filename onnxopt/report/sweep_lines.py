"""The rows and lines that the renderings of a sweep share."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from onnxopt.pruning.budget import cost_text
from onnxopt.pruning.points import Point, Sweep, cost_name
from onnxopt.quantities import bytes_text, count_text

PERCENT = ("top1", "top5")
"""Metrics that are fractions of the samples."""

ABSENT = "-"


def sweep_head(sweep: Sweep) -> tuple[str, ...]:
    """The columns of `sweep_rows`."""
    worth = [] if quality(sweep) is None else [str(quality(sweep))]
    if any(point.worth and point.worth.relative_error is not None for point in sweep.done):
        worth.append("error")
    times = ("time",) if sweep.elsewhere is None else ("predicted", "time here")
    return ("asked", "FLOPs", "parameters", "memory", *worth, *times)


def sweep_rows(sweep: Sweep) -> list[tuple[str, ...]]:
    """The original, then one row for each point: what it costs and what it is worth."""
    return [_original(sweep), *(_row(sweep, point) for point in sweep.points)]


def quality(sweep: Sweep) -> str | None:
    """What tells best how good the models of a sweep are; None if it was not measured."""
    if sweep.metric is not None:
        return sweep.metric
    worths = [point.worth for point in sweep.done if point.worth is not None]
    if any(worth.same_class is not None for worth in worths):
        return "same class"
    return None


def quality_of(sweep: Sweep, point: Point) -> float | None:
    """That number of a point."""
    if point.worth is None:
        return None
    return point.worth.accuracy if sweep.metric is not None else point.worth.same_class


def quality_text(sweep: Sweep, value: float | None) -> str:
    if value is None:
        return ABSENT
    is_share = sweep.metric is None or sweep.metric in PERCENT
    return f"{value:.2%}" if is_share else f"{value:.5g}"


def _original(sweep: Sweep) -> tuple[str, ...]:
    before, head = sweep.before, sweep_head(sweep)
    cells = ["original", count_text(before.flops), count_text(before.parameters)]
    cells.append(bytes_text(before.memory_bytes))
    if quality(sweep) is not None:
        cells.append(quality_text(sweep, sweep.accuracy if sweep.metric is not None else 1.0))
    if "error" in head:
        cells.append("0")
    if sweep.elsewhere is not None:
        cells.append(f"{sweep.elsewhere.original_ms:.3g} ms")
    whole = whole_ms(sweep)
    return (*cells, ABSENT if whole is None else f"{whole:.3g} ms")


def whole_ms(sweep: Sweep) -> float | None:
    """One run of the original, here; None if nothing was timed."""
    times = [point.worth.timing.first_ms for point in sweep.done if point.worth is not None]
    return median(times) if times else None


def _row(sweep: Sweep, point: Point) -> tuple[str, ...]:
    asked = asked_text(sweep, point)
    width = len(sweep_head(sweep))
    if point.cost is None or point.worth is None:
        return (asked, point.status, *[""] * (width - 2))
    was, cost, worth = sweep.before, point.cost, point.worth
    cells = [
        asked,
        _of(count_text(cost.flops), cost.flops, was.flops),
        _of(count_text(cost.parameters), cost.parameters, was.parameters),
        _of(bytes_text(cost.memory_bytes), cost.memory_bytes, was.memory_bytes),
    ]
    if quality(sweep) is not None:
        cells.append(quality_text(sweep, quality_of(sweep, point)))
    if "error" in sweep_head(sweep):
        error = worth.relative_error
        cells.append(ABSENT if error is None else f"{error:.2g}")
    if sweep.elsewhere is not None:
        cells.append(predicted_text(point))
    return (*cells, f"{worth.timing.ratio:.2f}x")


def predicted_text(point: Point) -> str:
    """The share of the original's time that the profile predicts."""
    return ABSENT if point.latency is None else f"{point.latency.predicted:.2f}x"


def asked_text(sweep: Sweep, point: Point) -> str:
    """What remains, as it was asked for: 50%, 60 M."""
    if point.relative:
        return f"{100 * point.amount:.4g}%"
    return cost_text(point.amount, sweep.mode).removesuffix(f" {cost_name(sweep.mode)}")


def _of(text: str, after: int, before: int) -> str:
    return f"{text} {after / before:>3.0%}" if before else text


def sweep_headline(sweep: Sweep) -> str:
    """How many points there are, and what became of them."""
    counts = dict.fromkeys(("met", "missed", "refused", "failed"), 0)
    for point in sweep.points:
        counts[point.status] += 1
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    total = len(sweep.points)
    points = f"{total} point{'s' if total > 1 else ''}"
    elsewhere = sweep.elsewhere
    where = "" if elsewhere is None else f" on {elsewhere.machine}, as predicted"
    return f"sweep of {cost_name(sweep.mode)}{where}: {points}: {', '.join(parts)}"


def sweep_lines(sweep: Sweep) -> Iterator[str]:
    """What was refused and why, what was measured and how, notes."""
    for point in sweep.points:
        if point.why:
            yield f"{point.status}: {asked_text(sweep, point)}: {point.why}"
    if sweep.judged_on:
        measured = [quality(sweep), "error" if "error" in sweep_head(sweep) else None]
        yield f"{' and '.join(filter(None, measured))}: on {sweep.judged_on}"
    else:
        yield "agreement with the original: not measured, there are no samples"
    yield from _timing_lines(sweep)
    if sweep.calibration is not None:
        yield f"calibration: {sweep.calibration.used} samples of {sweep.calibration.origin}"
    yield from _notes(sweep)


def _timing_lines(sweep: Sweep) -> Iterator[str]:
    elsewhere = sweep.elsewhere
    if elsewhere is not None:
        yield (
            f"predicted: the time of one run on {elsewhere.machine}, by its profile; what was "
            "asked for is a share of that"
        )
    timings = [point.worth.timing for point in sweep.done if point.worth is not None]
    if timings:
        pairs = sorted({timing.pairs for timing in timings})
        threads, batch = timings[0].threads, timings[0].batch
        is_confirmed = sweep.mode == "latency" and elsewhere is None
        how = "the fastest tenth" if is_confirmed else "medians"
        yield (
            f"{sweep_head(sweep)[-1]}: of one run in ONNX Runtime, in turns with the original; "
            f"{how} of {' to '.join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))} pairs "
            f"({threads} thread{'s' if threads > 1 else ''}, batch {batch}, "
            f"{sweep.basis.get('the processor', 'unknown processor')})"
        )


def _notes(sweep: Sweep) -> Iterator[str]:
    """What is said of all models once, the rest with the point it is about."""
    every = [set(point.notes) for point in sweep.done]
    common = set.intersection(*every) if every else set()
    said = dict.fromkeys(note for point in sweep.done for note in point.notes if note in common)
    yield from (f"note: {note}" for note in (*said, *sweep.notes))
    for point in sweep.done:
        yield from (f"note: {point.budget}: {n}" for n in point.notes if n not in common)
