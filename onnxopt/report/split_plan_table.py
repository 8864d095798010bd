"""What `split plan` tells, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.quantities import bits_text, bytes_text, seconds_text
from onnxopt.report.split_profile_table import tensors_text
from onnxopt.report.table import plain_table
from onnxopt.splitting.context import Context
from onnxopt.splitting.plan_file import Plan, PlannedCut

COLUMNS = ("", "cut at", "codec", "device", "wire", "edge", "latency", "memory")

LONGEST = 23
"""Characters of a tensor in these tables."""


def split_plan_table(plan: Plan) -> RenderableType:
    """The best plan and those next to it, what was asked for beside, and what to know of it."""
    chosen = plan.cuts[plan.chosen]
    rows = [("best", chosen)]
    rows += [(f"{n}.", cut) for n, cut in enumerate(plan.best[1:], 2)]
    there = {(cut.operators, cut.codec) for _, cut in rows}
    ends = [cut for cut in (plan.cuts[-1], plan.cuts[0]) if _is_possible(cut)]
    rows += [("", cut) for cut in ends if (cut.operators, cut.codec) not in there]
    parts: list[RenderableType] = [Text(_conditions(plan)), _table(plan, rows)]
    if plan.variants:
        parts += [Text("The model and its pruned versions:"), _variants(plan)]
    if plan.box is not None:
        labels = [f"cut {n}" for n in range(len(plan.cuts))]
        parts += [Text(_adapting(plan)), _table(plan, list(zip(labels, plan.cuts, strict=True)))]
    if plan.pareto:
        parts += [
            Text("No other plan is better in all of latency, energy, weights and memory than:"),
            _table(plan, [(str(n), cut) for n, cut in enumerate(plan.pareto, 1)]),
        ]
    if plan.compared:
        parts += [Text(f"Other methods on the same profiles, by {plan.objective}:"), _others(plan)]
    lines = [*_said(plan, chosen), *plan.notes]
    return Group(*parts, *(Text(line, overflow="fold") for line in lines))


def _conditions(plan: Plan) -> str:
    context = plan.context
    return (
        f"{plan.source or 'model'}: least {_goal(plan)} at {bits_text(context.bandwidth_bits)} and "
        f"a round trip of {seconds_text(context.rtt_s)}"
    )


def _goal(plan: Plan) -> str:
    return "time between results" if plan.objective == "throughput" else plan.objective


def _table(plan: Plan, rows: Sequence[tuple[str, PlannedCut]]) -> RenderableType:
    last = {"energy": "energy", "throughput": "every"}.get(plan.objective, "sent")
    return plain_table((*COLUMNS, last), [_row(plan, label, cut) for label, cut in rows], left=3)


def _row(plan: Plan, label: str, cut: PlannedCut) -> tuple[str, ...]:
    point, context = cut.point, plan.context
    if not _is_possible(cut):
        return (f"{label} no", where_text(cut), *["-"] * (len(COLUMNS) - 1))
    last = bytes_text(round(point.sent_bytes)) if point.is_remote else "-"
    if plan.objective == "energy":
        last = f"{cut.energy_j:.3g} J"
    elif plan.objective == "throughput":
        last = seconds_text(cut.interval_s)
    return (
        " ".join(filter(None, (label, "~" * (not cut.measured), "no" * bool(cut.broken)))),
        where_text(cut),
        cut.codec if point.is_remote else "-",
        seconds_text(context.device_load * point.device_s),
        seconds_text(_wire_s(cut, context)) if point.is_remote else "-",
        seconds_text(context.edge_load * point.edge_s),
        seconds_text(cut.latency_s),
        bytes_text(cut.weight_bytes + cut.peak_bytes),
        last,
    )


def _is_possible(cut: PlannedCut) -> bool:
    """Something crosses, or nothing needs to: else the inputs, or what comes back, cannot."""
    return not cut.point.is_remote or cut.operators > 0 or cut.point.sent_bytes > 0


def where_text(cut: PlannedCut) -> str:
    """Where a cut is, for a person."""
    if not cut.point.is_remote:
        return "all on the device"
    return tensors_text(cut.tensors, LONGEST) if cut.operators else "all at the edge"


def _wire_s(cut: PlannedCut, context: Context) -> float:
    moved = cut.point.sent_bytes + cut.point.back_bytes
    return moved * context.seconds_per_byte + context.rtt_s * cut.point.is_remote


def _adapting(plan: Plan) -> str:
    assert plan.box is not None and plan.regret is not None
    low, high = plan.box.least, plan.box.most
    return (
        f"Cuts to adapt with from {bits_text(low.bandwidth_bits)} to "
        f"{bits_text(high.bandwidth_bits)}: the best of them "
        + (
            f"takes at most {100 * plan.regret:.2g}% longer than the best of all"
            if plan.regret > 0.0005
            else "is the best of all throughout"
        )
    )


def _variants(plan: Plan) -> RenderableType:
    rows = []
    first = plan.variants[0].device_s
    for entry in plan.variants:
        times = [entry.device_s, entry.latency_s]
        rows.append(
            (
                entry.name,
                "-" if entry.accuracy is None else f"{entry.accuracy:.4f}",
                "-" if entry.same_class is None else f"{entry.same_class:.1%}",
                *("-" if s is None else seconds_text(s) for s in times),
                f"{entry.latency_s / first - 1:+.1%}" if entry.latency_s and first else "-",
                entry.why,
            )
        )
    columns = ("", "accuracy", "same class", "all on the device", "best plan", "by it", "not used")
    return plain_table(columns, rows)


def _others(plan: Plan) -> RenderableType:
    rows = []
    for entry in plan.compared:
        if entry.cut is None or entry.by is None:
            rows.append((entry.method, "finds none", "", "", entry.remark))
            continue
        broken = " (breaks a budget)" if entry.cut.broken else ""
        rows.append(
            (
                entry.method,
                where_text(entry.cut) + broken,
                seconds_text(entry.cut.latency_s),
                f"{entry.by:.2f}",
                entry.remark,
            )
        )
    return plain_table(("method", "cut at", "latency", "by the best", "it sees"), rows, left=2)


def _said(plan: Plan, chosen: PlannedCut) -> list[str]:
    lines = []
    ends = {0: "at the edge", len(plan.cuts) - 1: "on the device"}
    if plan.chosen in ends:
        lines.append(f"the best plan does not split the model: all of it runs {ends[plan.chosen]}")
    for cut in plan.cuts:
        lines += [f"no: {where_text(cut)} has {why}" for why in cut.broken]
    if chosen.error is not None and chosen.codec != "none":
        lines.append(
            f"{chosen.codec} changes the outputs by up to {chosen.error:.2g} of their largest "
            "elements on the calibration data"
        )
    elif chosen.codec != "none":
        lines.append(
            f"{chosen.codec} changes the outputs somewhat: --calibration measures by how much, "
            "--codec none plans without"
        )
    shown = (*plan.cuts, *plan.best, *plan.pareto)
    if any(not cut.measured for cut in shown):
        lines.append("~ between cuts that were measured; the others were measured themselves")
    return lines
