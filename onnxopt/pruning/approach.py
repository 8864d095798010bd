"""The steps before the last round: which residual blocks go, how far channels go first.

What is not known beforehand is tried with some of the samples (`contest.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property

from onnxopt.pruning.analysis import Analysis, Tell
from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.blocks import Block
from onnxopt.pruning.cache import NO_CACHE
from onnxopt.pruning.contest import Contest, Entry, least_error
from onnxopt.pruning.depth import Chosen
from onnxopt.pruning.dropping import both_stages, chosen, tried
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.reach import Reach
from onnxopt.pruning.results import BlockChoice
from onnxopt.pruning.rounds import Rounds
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.savings import Savings, block_choices
from onnxopt.pruning.two_stages import SHARES, first_target

ONE_ROUND = 0.2
"""Share of the cost below which two rounds are taken. Above, one is better: on ResNet-56 at 0.3 it
leaves 3 % less error in the logits than two, on ResNet-20 at 0.5 10 % less (samples that took no
part), since refits of a second round start from weights that were fitted to the first."""


def halfway(rounds: Rounds, meter: Meter, start: float, target: float) -> None:
    """A first round half of the way, where the budget is far."""
    is_far = target < ONE_ROUND * start
    if is_far and rounds.has_samples and rounds.options.strategy == "damage":
        rounds.choose_and_cut(meter, (start * target) ** 0.5)


class Approach:
    """The steps of one model, for whatever budget.

    Args:
        start: rounds of the model as it is, which nothing is done with.
    """

    def __init__(self, start: Rounds) -> None:
        self.start = start

    @cached_property
    def ways(self) -> dict[Block, tuple[Way, ...]]:
        """How to do without each residual block of the model as it is, and what is lost by it."""
        return tried(replace(self.start))

    def blocks(self, meter: Meter, target: float) -> tuple[Chosen, Contest]:
        """The blocks to do without: of the likeliest sets the one that leaves the least error.

        Of sets that cannot be told apart the one without most blocks: their time is saved on any
        machine, while that of narrower layers depends on its kernels.
        """
        options, tell = self.start.options, self.start.tell
        found = chosen(self._analysis, self.ways, meter, target, options, tell)
        ordered = sorted(found, key=lambda each: len(each.ways))

        def entry(each: Chosen) -> Entry:
            def carry_out(rounds: Rounds) -> bool:
                self.drop(rounds, meter, each.ways)
                halfway(rounds, meter, meter.of(rounds.pruned), target)
                rounds.choose_and_cut(meter, target)
                return _is_met(rounds, meter, target)

            return carry_out

        named = {_name(len(each.ways)): each for each in ordered}
        entries = {name: entry(each) for name, each in named.items()}
        first = list(entries)[ordered.index(found[0])]
        key = [each.key for each in found]
        contest = self._best(entries, first, meter, target, key, simplest_last=True)
        return named[contest.winner], contest

    def drop(self, rounds: Rounds, meter: Meter, gone: Sequence[Way]) -> None:
        """Take these blocks out."""
        if self.ways:
            rounds.drop(self.choices(meter, gone))

    def choices(self, meter: Meter, gone: Sequence[Way]) -> tuple[BlockChoice, ...]:
        """All blocks that could go, and which of them do."""
        return block_choices(Savings(self._analysis.channels, meter), self.ways, gone)

    def two_stages(
        self, rounds: Rounds, meter: Meter, start: float, target: float
    ) -> Contest | None:
        """Both stages of `slr`; where no block can go a round for channels is all there is."""
        if start <= target or not rounds.blocks():
            return None
        aim = max(target, self.reach(meter)())
        firsts = {
            f"{share:.0%} of the way by channels": first_target(start, aim, share)
            for share in SHARES
        }

        def entry(first: float) -> Entry:
            def carry_out(rounds: Rounds) -> bool:
                both_stages(rounds, meter, first, target)
                rounds.choose_and_cut(meter, target)
                return _is_met(rounds, meter, target)

            return carry_out

        entries = {name: entry(first) for name, first in firsts.items()}
        best = self._best(entries, next(iter(entries)), meter, target, [*firsts.values()])
        both_stages(rounds, meter, firsts[best.winner], target)
        return best

    def reach(self, meter: Meter) -> Reach:
        """How far channels go."""
        return Reach(self._analysis.channels, meter, self.start.options)

    @property
    def _analysis(self) -> Analysis:
        return self.start.analysis()

    def _best(
        self,
        entries: Mapping[str, Entry],
        first: str,
        meter: Meter,
        target: float,
        key: object,
        *,
        simplest_last: bool = False,
    ) -> Contest:
        start = self.start

        def begin(batches: Sequence[Batch], tell: Tell) -> Rounds:
            return replace(start, batches=batches, tell=tell, cache=NO_CACHE, done=[])

        known = asdict(start.options), meter.unit, target, key
        saved = start.cache.pieces("contest", start.base, *known)
        given = entries, first, begin, start.batches, saved, start.tell
        return least_error(*given, simplest_last=simplest_last)


def _name(count: int) -> str:
    return f"without {count} residual block{'' if count == 1 else 's'}"


def _is_met(rounds: Rounds, meter: Meter, target: float) -> bool:
    return abs(meter.of(rounds.pruned) / target - 1) <= meter.tolerated
