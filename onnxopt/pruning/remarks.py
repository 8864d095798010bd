"""What a user should know of a pruning beside its figures, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnxopt.cost import Cost
from onnxopt.optimizer import Optimized
from onnxopt.pruning.confirming import SAME_WIDTHS
from onnxopt.pruning.contest import Contest
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.results import TIME_TOLERATED, TOLERATED, Latency, Round
from onnxopt.pruning.samples import Batch
from onnxopt.signature import Port

FIRST_STAGE = (
    "widths are those of a first stage of slr that goes half of the way; how far it goes, and "
    "which residual blocks go in the second one, is measured on models that are cut"
)

ONE_STAGE = (
    "no residual block of this model can go, so that slr has one stage: channels under one "
    "threshold"
)

PREDICTED = "shares are of the time of one run; a dry run predicts it, and confirms nothing"

NO_SAMPLES = (
    "no calibration data: channels go by their weights alone and nothing is made up for; expect "
    "to lose most of the accuracy at deeper cuts; a few hundred unlabelled samples "
    "(--calibration) change that"
)


ONLY_BLOCKS = "only whole blocks can go, as no channel of this model can"

MOST_NAMED = 3
"""Groups that a remark names."""


def before_pruning(
    batches: Sequence[Batch], options: PruneOptions, lossless: Optimized, original: Cost
) -> Iterator[str]:
    """What is known before any channel goes.

    Args:
        batches: of samples; empty without any.
        original: what budgets are a share of.
    """
    if not batches:
        yield NO_SAMPLES
    elif len(batches) == 1 and options.compensation != "none":
        size = len(next(iter(batches[0].values())))
        yield (
            f"the samples fill only one batch of the {size} that the model takes at once, so "
            "refits are judged by the very samples that they are fitted to: give more samples, "
            "or a model with a free or smaller batch size"
        )
    before = lossless.report.before
    if original.macs != before.macs:
        yield (
            f"{len(before.unknown)} nodes of the model have unknown shapes: what it costs is "
            "taken from its rewritten form"
        )


def of_open_sizes(inputs: Iterable[Port], mode: Mode) -> Iterator[str]:
    """What the file cannot tell of a budget: sizes beyond the batch that it leaves open."""
    open_ones = [
        port for port in inputs if any(not isinstance(dim, int) for dim in (port.dims or ())[1:])
    ]
    if mode in ("flops", "memory") and open_ones:
        named = ", ".join(f"'{port.name}'" for port in open_ones[:MOST_NAMED])
        unit = "FLOPs" if mode == "flops" else "memory"
        yield (
            f"the model leaves sizes of {named} open beyond the batch, and its {unit} are told as "
            "if all of them were 1: layers that work at different sizes are compared wrongly; "
            f"--set-shape {open_ones[0].name}=... says how large inputs are"
        )


def after_pruning(
    rounds: Sequence[Round], options: PruneOptions, off: float, *, has_samples: bool
) -> Iterator[str]:
    """What became of the budget, and which groups samples could tell nothing of.

    Args:
        off: by how much the result costs more than asked for, as a share of that.
    """
    if options.strategy == "slr" and not any(d.depth and d.depth.blocks for d in rounds):
        yield ONE_STAGE
    gone = [choice.group for done in rounds for choice in done.groups if choice.removed]
    if not gone and not any(done.depth and done.depth.gone for done in rounds):
        yield "nothing was cut: rewriting without loss was enough for the budget"
        return
    guessed = list(dict.fromkeys(group.name for group in gone if not group.measured))
    if has_samples and guessed:
        more = f" and {len(guessed) - MOST_NAMED} more" if len(guessed) > MOST_NAMED else ""
        yield (
            f"samples tell nothing of {len(guessed)} of the groups cut, which go by their weights "
            f"alone: {', '.join(guessed[:MOST_NAMED])}{more}; layers that read them are inside of "
            "If, Loop or Scan, work on integers, or are too wide"
        )
    if abs(off) > TOLERATED and not any(done.groups for done in rounds):
        yield f"the result costs {abs(off):.1%} less than asked for: {ONLY_BLOCKS}"
    elif abs(off) > TOLERATED:
        grid = 1 if options.relaxed else rounds[-1].multiple_of
        why = "the widths that its groups can take"
        if grid > 1:
            why = f"widths that are multiples of {grid}"
        more = "more" if off > 0 else "less"
        yield f"the result costs {abs(off):.1%} {more} than asked for: {why} allow no closer"


def of_contest(contest: Contest | None) -> Iterator[str]:
    """What was tried, with the error of each as a share of the outputs' variance."""
    if contest is None or not contest.results:
        return
    told = []
    for name, result in contest.results.items():
        parts = [name]
        if result.error is not None:
            parts.append(f"{result.error:.3g}")
        elif not result.missed:
            parts.append("nothing tells")
        parts += ["misses the budget"] if result.missed else []
        parts += ["(taken)"] if name == contest.winner else []
        told.append(" ".join(parts))
    yield f"tried with some of the samples, and the error that others show: {', '.join(told)}"


def of_latency(latency: Latency) -> Iterator[str]:
    """By how much a budget of time is missed, and why."""
    off = latency.reached / latency.asked - 1
    if abs(off) <= TIME_TOLERATED:
        return
    how = "is predicted to take" if latency.measured is None else "takes"
    more = "more" if off > 0 else "less"
    yield f"the result {how} {abs(off):.1%} {more} time than asked for: {_why_missed(latency)}"


def _why_missed(latency: Latency) -> str:
    found, tries = latency.measured, len(latency.tries)
    if found is None:
        return latency.stopped or SAME_WIDTHS
    if found.low <= latency.asked <= found.high:
        return (
            f"measurements spread from {found.low:.2f} to {found.high:.2f}, so that this machine "
            "is too noisy to tell"
        )
    before = [tried.measured.ratio for tried in latency.tries if tried.measured is not None]
    if any(abs(ratio / latency.asked - 1) <= TIME_TOLERATED for ratio in before):
        return (
            "before the refits the same widths met it; times were measured "
            f"{tries + 1} times, as shares {', '.join(f'{r:.2f}' for r in before)} and then "
            f"{found.ratio:.2f}"
        )
    return latency.stopped or f"{tries} tries, each corrected by the one before, came no closer"
