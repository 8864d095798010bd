"""What `split run` tells, as a terminal shows it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.quantities import bytes_text
from onnxopt.report.table import plain_table
from onnxopt.splitting.running import RunSummary

COLUMNS = ("ms for a request", "mean", "median", "p90", "p95", "p99", "max")
NAMES = {
    "total": "total",
    "device": "  device: computing here",
    "wire": "  wire: there and back",
    "edge": "  edge: computing there",
}


def split_run_table(run: RunSummary) -> RenderableType:
    """Percentiles of the latency and of its parts; cuts, bytes, and what went wrong."""
    rows = []
    for part, name in NAMES.items():
        p = run.latency[part]
        values = (p.mean_ms, p.median_ms, p.p90_ms, p.p95_ms, p.p99_ms, p.max_ms)
        rows.append((name, *(f"{value:.2f}" for value in values)))
    lines = [Text(line, overflow="fold") for line in _lines(run)]
    failures = [Text(line, style="bold yellow", overflow="fold") for line in _failures(run)]
    return Group(plain_table(COLUMNS, rows), *lines, *failures)


def _lines(run: RunSummary) -> list[str]:
    cuts = ", ".join(f"{name} {count} times" for name, count in run.cuts.items())
    switches = f"; {run.switches} changes of the cut" if run.switches else ""
    where = f"with {run.edge}" if run.edge else "all on this machine"
    sent, received = run.sent_bytes / run.requests, run.received_bytes / run.requests
    lines = [
        f"{run.model}: {run.requests} requests in {run.seconds:.2f} s, {where}",
        f"cuts: {cuts}{switches}",
    ]
    if run.sent_bytes:
        sizes = f"{bytes_text(round(sent))} there, {bytes_text(round(received))} back"
        lines.append(f"over the wire for a request, on average: {sizes}")
    elif run.edge:
        lines.append("nothing was sent: all of it ran on this machine")
    return lines


def _failures(run: RunSummary) -> list[str]:
    total = sum(run.failures.values())
    if not total:
        return []
    listed = [f"  {count} times: {reason}" for reason, count in run.failures.items()]
    return [f"{total} requests were finished on this machine, as the edge did not:", *listed]
