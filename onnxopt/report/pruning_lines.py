"""The rows and lines that the renderings of a pruning share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from onnxopt.cost import Cost
from onnxopt.pruning.groups import Declined
from onnxopt.pruning.outcome import Accuracy, PruneReport
from onnxopt.pruning.results import (
    TIME_TOLERATED,
    TOLERATED,
    BlockChoice,
    GroupChoice,
    GroupView,
    Latency,
    LatencyTry,
    Preview,
)
from onnxopt.quantities import bytes_text, change_text, count_text
from onnxopt.report.lines import Row, row_by_shapes

MOST_REASONS = 3
MOST_CUTS = 3
MOST_BLOCKS = 6
BECOMES = {
    "removed": "removed",
    "shifted": "replaced by a constant",
    "replaced": "replaced by a linear map",
}
QUARTERS = (0.25, 0.5, 0.75)


def cost_rows(before: Cost, after: Cost) -> list[Row]:
    """What budgets are about, and what else a model costs."""
    both = before, after
    return [
        row_by_shapes("FLOPs", *both, lambda cost: 2 * cost.macs, count_text),
        row_by_shapes("MACs", *both, lambda cost: cost.macs, count_text),
        _row("parameters", before.parameters, after.parameters),
        _row("size", before.size_bytes, after.size_bytes, is_bytes=True),
        row_by_shapes(
            "memory (weights and activations)",
            *both,
            lambda cost: cost.weight_bytes + cost.activation_bytes,
            bytes_text,
        ),
        row_by_shapes("peak activations", *both, lambda cost: cost.peak_memory_bytes, bytes_text),
        _row("nodes", before.nodes, after.nodes),
    ]


def _row(what: str, before: int, after: int, *, is_bytes: bool = False) -> Row:
    text = bytes_text if is_bytes else count_text
    return what, text(before), text(after), change_text(before, after)


def headline(report: PruneReport) -> str:
    """What was asked for, what came out, what it is worth: in one line."""
    tolerated = TIME_TOLERATED if report.mode == "latency" else TOLERATED
    parts = [f"asked for {report.budget}, {_close(report, tolerated)}"]
    if report.accuracy is not None:
        parts.append(accuracy_text(report.accuracy))
    return "pruned: " + "; ".join(parts)


def _close(report: PruneReport, tolerated: float) -> str:
    """Whether the budget is met; of another machine's time, whether it is predicted to be."""
    off = report.reached / (report.target or 1.0) - 1
    found = report.latency
    if found is None or found.measured is not None:
        met = "met"
    else:
        met = "predicted to be met"
    return met if abs(off) <= tolerated else f"{abs(off):.1%} {'above' if off > 0 else 'below'} it"


def accuracy_text(accuracy: Accuracy) -> str:
    if accuracy.metric in ("top1", "top5"):
        points = 100 * (accuracy.after - accuracy.before)
        return (
            f"{accuracy.metric} {accuracy.before:.2%} -> {accuracy.after:.2%} "
            f"({points:+.2f} points) on {accuracy.samples} labelled samples"
        )
    return (
        f"{accuracy.metric} {accuracy.before:.5g} -> {accuracy.after:.5g} "
        f"on {accuracy.samples} labelled samples"
    )


def result_lines(report: PruneReport) -> Iterator[str]:
    """Agreement, time, groups, what was left alone, notes."""
    if report.agreement is None:
        yield "agreement with the original: not measured, there are no samples"
    else:
        where = f"{report.agreement.samples} {report.agreement.origin}"
        for output in report.agreement.outputs:
            yield f"agreement on {where}: {output}"
    if report.latency is not None:
        yield from latency_lines(report.latency)
    if report.timing is not None:
        yield f"ONNX Runtime, one run: {report.timing}"
    if report.calibration is not None:
        yield f"calibration: {report.calibration.used} samples of {report.calibration.origin}"
    yield from block_lines(report)
    yield from group_lines(report)
    yield f"rewriting, without loss: {report.lossless[-1]}"
    yield from (f"note: {note}" for note in report.notes)


def latency_lines(found: Latency) -> Iterator[str]:
    """What of the original's time was asked for, predicted and measured; and the tries."""
    line = f"time of one run: asked for {found.asked:.3f} of the original's, predicted "
    line += f"{found.predicted:.3f}, "
    if found.measured is None:
        ms = found.original_ms
        yield (
            f"{line}not measured ({ms:.4g} ms -> {found.predicted * ms:.4g} ms on {found.machine})"
        )
        return
    time = found.measured
    yield f"{line}measured {time.ratio:.3f} (quartiles {time.low:.3f} to {time.high:.3f})"
    tries = "; ".join(map(_try_text, found.tries))
    yield f"widths were chosen in {_rounds(len(found.tries))}, timed before the refits: {tries}"


def _rounds(count: int) -> str:
    return "one round" if count == 1 else f"{count} rounds"


def _try_text(tried: LatencyTry) -> str:
    measured = "" if tried.measured is None else f", measured {tried.measured.ratio:.3f}"
    return f"predicted {tried.predicted:.3f}{measured}"


def final_choices(report: PruneReport) -> list[tuple[GroupChoice, int]]:
    """Each group of the first round, with the units that are left at the end."""
    left: dict[str, int] = {}
    for done in report.rounds:
        left.update({choice.name: choice.width for choice in done.groups})
    return [(choice, left[choice.name]) for choice in report.rounds[0].groups]


def group_lines(report: PruneReport) -> Iterator[str]:
    choices = final_choices(report)
    cut = [(choice, left) for choice, left in choices if left < choice.units]
    made = [(choice, left) for choice, left in cut if not choice.group.is_read]
    units = sum(choice.units for choice, _ in choices if not choice.group.is_read)
    count = sum(not choice.group.is_read for choice, _ in choices)
    gone = sum(choice.units - left for choice, left in made)
    line = f"groups: {len(made)} of {count} cut, {gone:,} of {units:,} channels removed"
    largest = sorted(made, key=lambda pair: pair[1] - pair[0].units)[:MOST_CUTS]
    most = ", ".join(f"{choice.name} ({choice.units} to {left})" for choice, left in largest)
    yield f"{line}; most from {most}" if most else line
    if len(choices) > count:
        yield read_line(report)
    if (grid := report.rounds[-1].multiple_of) > 1:
        yield f"widths: multiples of {grid}, finer in narrow groups; --multiple-of 1 frees them"
    yield proof_line(report)
    changed = [choice.group for choice, _ in cut if not choice.group.exact]
    if changed:
        first = changed[0]
        yield (
            f"approximate: {len(changed)} of the groups cut; {first.name}: {first.changed}"
            + (f"; and {len(changed) - 1} more" if len(changed) > 1 else "")
        )
    if declined := report.rounds[0].declined:
        yield declined_line(declined)


def read_line(report: PruneReport) -> str:
    """How many layers read less than they are given, and which leave most."""
    unread: dict[str, int] = {}
    for choice in (choice for done in report.rounds for choice in done.groups):
        if choice.group.is_read:
            own = len(choice.removed) - choice.followed
            (layer,) = choice.group.members
            unread[layer] = unread.get(layer, 0) + own
    some = {name: count for name, count in unread.items() if count}
    line = (
        f"reads: {len(some)} of {len(unread)} layers that may choose read a part of their channels"
    )
    largest = sorted(some, key=lambda name: -some[name])[:MOST_CUTS]
    most = ", ".join(f"{name} ({some[name]} left unread)" for name in largest)
    return f"{line}; {most}" if most else line


def block_lines(report: PruneReport) -> Iterator[str]:
    """Residual blocks that went, and how their going was proved."""
    for depth in (done.depth for done in report.rounds if done.depth is not None):
        parts = []
        for becomes, how in BECOMES.items():
            names = [c.block.name for c in depth.gone if c.becomes == becomes]
            if names:
                parts.append(f"{len(names)} {how} ({_some(names)})")
        if not parts:
            yield f"residual blocks: all {len(depth.blocks)} stay"
            continue
        yield f"residual blocks: {len(depth.gone)} of {len(depth.blocks)} go: {'; '.join(parts)}"
        off = error_text(depth.proof.error)
        yield (
            f"proof: without them the model is off by {off} from the whole one whose sums are set "
            "to what stands for the blocks"
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_BLOCKS
    return ", ".join(names[:MOST_BLOCKS]) + (f" and {more} more" if more > 0 else "")


def proof_line(report: PruneReport) -> str:
    proofs = [done.proof for done in report.rounds]
    worst = max(proof.error for proof in proofs)
    exact = all(proof.exact for proof in proofs)
    line = f"proof: the cut model is off the zeroed one by {error_text(worst)}"
    line += "" if exact else " (approximate groups are among those cut)"
    each = [choice.proof for choice in report.rounds[0].groups if choice.proof is not None]
    if each:
        kept = [proof for proof in each if proof.exact]
        largest = max((proof.error for proof in kept), default=0.0)
        line += f"; random cuts of {len(kept)} exact groups, each alone, by "
        line += f"{error_text(largest)} at most"
    return line


def error_text(error: float) -> str:
    return f"{error:.1e}" if error else "0"


def declined_line(declined: Sequence[Declined]) -> str:
    """How many channels stay, with the commonest reasons."""
    kinds: Counter[str] = Counter()
    for item in declined:
        kinds[re.sub(r"'[^']*'", "...", item.reason)] += item.channels
    total = sum(kinds.values())
    reasons = "; ".join(f"{why} ({count:,})" for why, count in kinds.most_common(MOST_REASONS))
    more = len(kinds) - MOST_REASONS
    return f"declined: {total:,} channels: {reasons}" + (
        f"; {more} more reasons" if more > 0 else ""
    )


BLOCK_HEAD = ("residual block", "kind", "share", "removed", "shifted", "replaced", "becomes")


def block_row(choice: BlockChoice) -> tuple[str, ...]:
    """One block before it goes; the columns before the last are expected damages."""
    block = choice.block
    each = (block.removed, block.shifted, block.replaced)
    damages = ("-" if damage is None else f"{damage:.2g}" for damage in each)
    return block.name, block.kind, f"{block.share:.1%}", *damages, choice.becomes or "stays"


GROUP_HEAD = ("group", "cut is", "width", "members", "share", "at 3/4", "at 1/2", "at 1/4")


def group_row(group: GroupView) -> tuple[str, ...]:
    """One group before it is cut; the last columns: damage with that share of its channels left."""
    lost = [group.lost[round(share * group.units)] - group.lost[0] for share in QUARTERS]
    return (
        group.name,
        "exact" if group.exact else "approximate",
        str(group.units),
        str(len(group.members)),
        "" if group.is_read else f"{group.share:.1%}",
        *(f"{max(value, 0.0):.2g}" for value in lost),
    )


def preview_notes(found: Preview) -> Iterator[str]:
    """What the columns mean, what is approximate and why, and notes."""
    guessed = sum(not group.measured for group in found.groups)
    if guessed < len(found.groups):
        yield (
            "at 3/4, 1/2, 1/4: expected loss of the outputs' variance if so much of the group stays"
        )
    if guessed:
        whose = (
            "one group is judged by its"
            if guessed == 1
            else f"{guessed} groups are judged by their"
        )
        yield f"{whose} weights alone: what is gone by what is left"
    if found.blocks:
        yield (
            "removed, shifted, replaced: expected loss if nothing, a constant or a linear map "
            "takes the place of this block alone; -: not possible, or hardly better than a cheaper"
        )
    for group in found.groups:
        if not group.exact:
            yield f"approximate: {group.name}: {group.changed}"
    yield from (f"note: {note}" for note in found.notes)
