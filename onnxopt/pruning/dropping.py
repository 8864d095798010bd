"""Which residual blocks a pruning does without: tried one at a time, then chosen for a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnxopt.pruning.analysis import Analysis, Tell, finite
from onnxopt.pruning.block_trials import Way, ways_without
from onnxopt.pruning.blocks import Block
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.choosing import require_possible, unforeseen
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.depth import Chosen, choose_blocks
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.reach import Reach
from onnxopt.pruning.rounds import Rounds
from onnxopt.pruning.savings import Savings, block_choices
from onnxopt.pruning.two_stages import blocks_in_order


def may_go_with_channels(options: PruneOptions, mode: Mode) -> bool:
    """Whether blocks are chosen together with the widths, if there are samples to judge by."""
    if options.strategy != "damage":
        return False
    return options.blocks == "drop" or (options.blocks == "auto" and mode == "latency")


def tried(rounds: Rounds) -> dict[Block, tuple[Way, ...]]:
    """How to do without each residual block of the model as it is, and what is lost by it."""
    rounds.tell("trying to do without blocks", 0.0)
    is_repaired = rounds.options.compensation != "none"
    with finite():
        return ways_without(
            rounds.pruned,
            Channels(rounds.pruned, rounds.batches[0]),
            rounds.blocks(),
            rounds.batches,
            is_repaired=is_repaired,
            workers=rounds.workers,
            saved=rounds.cache.pieces("blocks", rounds.pruned, rounds.options.ignore, is_repaired),
            tell=lambda done: rounds.tell("trying to do without blocks", done),
        )


def chosen(
    analysis: Analysis,
    ways: Mapping[Block, Sequence[Way]],
    meter: Meter,
    target: float,
    options: PruneOptions,
    tell: Tell,
) -> tuple[Chosen, ...]:
    """Sets of blocks without which a model costs no more than a target, the likeliest first.

    Raises:
        UsageError: without blocks and with all groups at their smallest widths it costs more.
    """

    def on(grid: int, target: float) -> tuple[Chosen, ...]:
        tell("choosing blocks", 0.0)
        return choose_blocks(
            analysis, ways, meter, target, replace(options, multiple_of=grid),
            lambda done: tell("choosing blocks", done),
        )  # fmt: skip

    finest = 1 if options.relaxed else options.multiple_of
    for grid in dict.fromkeys((options.multiple_of, finest)):
        found = on(grid, target)
        if not found[0].value.excess:
            return found
    if more := unforeseen(analysis, meter, options):
        relaxed = on(finest, target + more)
        if not relaxed[0].value.excess:
            return relaxed
    ways_out = found[0].ways
    savings = Savings(analysis.channels, meter)
    gone = f" and without {len(ways_out)} of {len(ways)} residual blocks" if ways else ""
    require_possible(
        analysis, meter, target, options, savings.whole,
        cost=savings.left(ways_out), fixed=savings.constant(ways_out), gone=gone, less=more,
    )  # fmt: skip
    return found


def both_stages(rounds: Rounds, meter: Meter, first: float, target: float) -> None:
    """Channels until the model costs `first`, then blocks; what is missing is for a last round."""
    if rounds.analysis().groups:
        rounds.choose_and_cut(meter, first)
    _second_stage(rounds, meter, target)


def _second_stage(rounds: Rounds, meter: Meter, target: float) -> None:
    """Take out blocks of a model whose channels are cut already, as the strategy `slr` does."""
    ways, channels = tried(rounds), rounds.channels()
    reach = Reach(channels, meter, rounds.options, rounds.least)
    gone = blocks_in_order(rounds.pruned, ways, meter, target, reach)
    rounds.drop(block_choices(Savings(channels, meter), ways, gone))
