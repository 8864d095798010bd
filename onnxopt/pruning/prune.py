"""Prune a model to a budget: rank, choose widths, cut, make up for what is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnxopt.calibration import Calibration
from onnxopt.cost import Cost, cost_of
from onnxopt.errors import UsageError
from onnxopt.optimizer import Options, optimize
from onnxopt.profiling.document import Profile
from onnxopt.pruning.analysis import (
    Analysis,
    Tell,
    analyse,
    ignored,
    nothing_to_cut,
    reference_cost,
)
from onnxopt.pruning.approach import Approach, halfway
from onnxopt.pruning.batches import loaded_batches, one_run
from onnxopt.pruning.biases import with_biases, without_zero_biases
from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.cache import Cache
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.choosing import Choice, choose, require_possible
from onnxopt.pruning.confirming import CONFIRMED, Confirming
from onnxopt.pruning.contest import Contest
from onnxopt.pruning.costs import UNITS, Mode, measured
from onnxopt.pruning.dropping import may_go_with_channels
from onnxopt.pruning.meters import Meter, Static
from onnxopt.pruning.options import PruneOptions, Strategy
from onnxopt.pruning.plan import Plan
from onnxopt.pruning.remarks import (
    FIRST_STAGE,
    PREDICTED,
    after_pruning,
    before_pruning,
    of_contest,
    of_latency,
    of_open_sizes,
)
from onnxopt.pruning.results import BlockChoice, GroupChoice, Preview, Pruned, Round
from onnxopt.pruning.rewritings import of_the_result, with_batchnorms
from onnxopt.pruning.rounds import Rounds
from onnxopt.pruning.scales import Scales, find_scales
from onnxopt.pruning.states import without_zero_states
from onnxopt.pruning.stopwatch import HERE, Stopwatch
from onnxopt.pruning.timed import Timed, require_timeable, require_widths
from onnxopt.pruning.two_stages import first_target
from onnxopt.pruning.workers import DEFAULT_WORKERS
from onnxopt.signature import model_inputs

__all__ = [
    "Budget",
    "GroupChoice",
    "PruneOptions",
    "Pruned",
    "Pruner",
    "Round",
    "Strategy",
    "prune",
]

WORTH_RECONSIDERING = 0.1
"""Corrections of a budget, as a share of it, beyond which blocks are chosen anew. Sets with a few
blocks more or less leave nearly the same error, and choosing takes longer than pruning."""

MOST_RECONSIDERED = 2
"""Times that blocks are chosen anew, for a budget of time as measuring has corrected it."""


def prune(
    proto: onnx.ModelProto,
    budget: Budget,
    calibration: Calibration | None = None,
    options: PruneOptions = PruneOptions(),
    *,
    workers: int = DEFAULT_WORKERS,
    cache: Path | None = None,
    profile: Profile | None = None,
    tell: Tell = lambda stage, done: None,
) -> Pruned:
    """Remove channels until the model costs what the budget says, and refit what stays.

    Args:
        proto: the model; it is not changed.
        calibration: unlabelled samples; without them channels go by their weights alone and
            nothing is refitted.
        workers: pieces of work that are under way at once, each in its thread; the result is the
            same to the byte however many they are.
        cache: a folder that keeps finished pieces, for when this is interrupted or repeated.
        profile: for a budget of time, how long the layers of the model take on its machine;
            measured here if there is none.

    Raises:
        UsageError: the budget cannot be met, the options make no sense, or the cache cannot be
            written to.
        BadModelError, UnverifiableError: the model is not valid, or does not run here.
        CheckError: a cut that should be exact is not: a bug of ours. Nothing is returned.
    """
    pruner = Pruner(
        proto, calibration, options, workers=workers, cache=cache, profile=profile, tell=tell
    )
    pruned = pruner.at(budget)
    return replace(pruned, notes=(*pruned.notes, *pruner.cache.notes()))


class Pruner:
    """A model that can be pruned to several budgets; what does not depend on them is done once.

    Args:
        rewriting: how the model is rewritten, without loss, before it is pruned.
        workers, cache, profile: as of `prune`.
        stopwatch: how models are timed, where a budget is one of time.
        replays: only plans are carried out, which need no samples to choose by.

    Raises:
        UsageError, BadModelError, UnverifiableError, CheckError: as of `prune`.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        calibration: Calibration | None = None,
        options: PruneOptions = PruneOptions(),
        *,
        rewriting: Options = Options(),
        workers: int = DEFAULT_WORKERS,
        cache: Path | None = None,
        profile: Profile | None = None,
        stopwatch: Stopwatch = HERE,
        replays: bool = False,
        tell: Tell = lambda stage, done: None,
    ) -> None:
        if workers < 1:
            raise UsageError(f"{workers} workers are too few", "give at least 1")
        self.options, self.tell, self.workers = options, tell, workers
        self.has_samples = calibration is not None
        asks_for_blocks = options.blocks == "drop" or options.strategy == "slr"
        if asks_for_blocks and not self.has_samples and not replays:
            raise UsageError(
                "which residual blocks may go is measured on samples, and there are none",
                "give --calibration, or leave the blocks alone",
            )
        self._source = proto, rewriting
        self.lossless = optimize(proto, rewriting, progress=tell)
        self.rewriting = of_the_result(rewriting)
        self.base = with_biases(without_zero_states(self.lossless.model))
        base = cost_of(self.lossless.model)
        self.batches = loaded_batches(self.base, calibration, base.peak_memory_bytes)
        samples = calibration.digest if cache and calibration else ""
        self.cache = Cache(cache, [samples, dict(self.lossless.report.versions)])
        self.original: Cost = reference_cost(self.lossless.report.before, base)
        sampled = self.batches if self.has_samples else ()
        feeds = one_run(self.base, calibration) or self.batches[0]
        self.timed = Timed(
            self.lossless.model, self.base, feeds, profile, stopwatch, self._channels, tell
        )
        self._analyses: dict[PruneOptions, Analysis] = {}
        self._approaches: dict[PruneOptions, Approach] = {}
        self._notes = list(before_pruning(sampled, options, self.lossless, self.original))

    def analysis(self, mode: Mode) -> Analysis:
        """The groups of the model as it is; none are enough where blocks might go."""
        options = self.settled(mode)
        if options not in self._analyses:
            may_be_empty = self._may_drop("latency") or options.strategy == "slr"
            self._analyses[options] = analyse(
                self.base, self.batches, options, has_samples=self.has_samples, tell=self.tell,
                scales=self._scales, workers=self.workers, cache=self.cache,
                may_be_empty=may_be_empty,
            )  # fmt: skip
        return self._analyses[options]

    def settled(self, mode: Mode) -> PruneOptions:
        """The options for a budget of this mode."""
        return self.options.settled(mode, has_samples=self.has_samples)

    def require_something(self, mode: Mode) -> None:
        """Raise UsageError if nothing can be cut for a budget of this mode: neither channels nor
        residual blocks."""
        if self.analysis(mode).groups:
            return
        if self._lets_blocks_go(mode):
            return
        may_drop = self._may_drop(mode) or self.options.strategy == "slr"
        blocks = " and no residual block can go" if may_drop else ""
        analysis = self.analysis(mode)
        could = not may_drop and self._rounds(mode, analysis).blocks()
        fix = "--blocks drop lets its residual blocks go" if could else ""
        raise nothing_to_cut(analysis.channels, blocks, fix)

    def _lets_blocks_go(self, mode: Mode) -> bool:
        may_drop = self._may_drop(mode) or self.options.strategy == "slr"
        return may_drop and bool(self.approach(mode).ways)

    def _scales(self, channels: Channels) -> Scales:
        return find_scales(channels, with_batchnorms(*self._source), self.batches[0])

    def _channels(self) -> Channels:
        return Channels(self.base, self.batches[0], ignored(self.base, self.options.ignore))

    def at(self, budget: Budget) -> Pruned:
        """The model at this budget."""
        meter = self.meter(budget.mode)
        target = self._target(budget, meter)
        start = self._cost(self.base, budget.mode)
        rounds = self._rounds(budget.mode, self.analysis(budget.mode))
        approach = self.approach(budget.mode)
        confirming = self.timed.confirming(budget) if budget.mode == "latency" else None
        gone: Sequence[Way] = ()
        contest: Contest | None = None
        if self.options.strategy == "slr":
            contest = approach.two_stages(rounds, meter, start, target)
        elif self._may_drop(budget.mode):
            found, contest = approach.blocks(meter, target)
            gone = found.ways
            approach.drop(rounds, meter, gone)
            start = meter.of(rounds.pruned)
        halfway(rounds, meter, start, target)
        chosen = rounds.choose(meter, target, confirming)
        if confirming is not None and not rounds.done and self._may_drop(budget.mode):
            for _ in range(MOST_RECONSIDERED):
                again = self._reconsidered(budget, meter, gone, confirming)
                if again is None:
                    break
                gone, contest, rounds, chosen, confirming = again
        rounds.cut(meter, *chosen)
        return self._finished(rounds, budget, confirming, contest)

    def _reconsidered(
        self, budget: Budget, meter: Meter, gone: Sequence[Way], confirming: Confirming
    ) -> tuple[Sequence[Way], Contest, Rounds, tuple[Analysis, Choice], Confirming] | None:
        """Other blocks, if others are best for the budget as it was corrected by measuring.

        None if they are the same, or lead further from the budget.
        """
        aim = confirming.corrected()
        if abs(aim / confirming.budget - 1) <= WORTH_RECONSIDERING:
            return None
        try:
            found, contest = self.approach(budget.mode).blocks(meter, aim)
            others = found.ways
            if set(others) == set(gone):
                return None
            rounds = self._rounds(budget.mode, self.analysis(budget.mode))
            self.approach(budget.mode).drop(rounds, meter, others)
            again = self.timed.confirming(budget, aim)
            chosen = rounds.choose(meter, aim, again)
        except UsageError:  # the first choice is within the budget as far as it goes
            return None
        is_no_worse = again.badness <= max((False, CONFIRMED), confirming.badness)
        return (others, contest, rounds, chosen, again) if is_no_worse else None

    def approach(self, mode: Mode) -> Approach:
        """The steps before the last round."""
        options = self.settled(mode)
        if options not in self._approaches:
            self._approaches[options] = Approach(self._rounds(mode, self.analysis(mode)))
        return self._approaches[options]

    def _may_drop(self, mode: Mode) -> bool:
        """Whether residual blocks may go together with channels."""
        return self.has_samples and may_go_with_channels(self.options, mode)

    def meter(self, mode: Mode) -> Meter:
        """What shows the cost of this mode; for time the layers are measured first.

        Raises:
            UsageError: the strategy knows no time, nothing can be cut, or the profile is of another
                model.
        """
        if mode != "latency":
            return Static(mode)
        require_timeable(self.options.strategy)
        self.require_something(mode)  # before half a minute of measuring
        return self.timed.meter

    def share(self, budget: Budget) -> float:
        """What may remain, as a share of the original's cost."""
        if budget.mode == "latency":
            return self.timed.share(budget)
        return budget.target(self.original) / measured(self.original, budget.mode)

    def replay(self, plan: Plan) -> Pruned:
        """What a plan has recorded, without looking at samples except to refit."""
        rounds = self._rounds(None, None)
        for recorded in plan.rounds:
            rounds.repeat(recorded)
        return self._finished(rounds, plan.budget)

    def preview(self, mode: Mode, budget: Budget | None = None) -> Preview:
        """What could be cut; with a budget, what one round would cut."""
        meter, analysis = self.meter(mode), self.analysis(mode)
        self.require_something(mode)
        widths: tuple[int, ...] = ()
        blocks: tuple[BlockChoice, ...] = ()
        two_stages: tuple[str, ...] = ()
        target = None if budget is None else self._target(budget, meter)
        if self._may_drop(mode):
            approach = self.approach(mode)
            found = None if target is None else approach.blocks(meter, target)[0]
            blocks = approach.choices(meter, found.ways if found else ())
            widths = found.value.widths if found else ()
        elif target is not None:
            if self.options.strategy == "slr":
                target = first_target(
                    meter.of(self.base), max(target, self.approach(mode).reach(meter)())
                )
                two_stages = (FIRST_STAGE,)
            choice = choose(analysis, meter, target, self.options, {})
            widths = tuple(
                sum(unit not in choice.dead for unit in group.units) for group in analysis.groups
            )
        notes = (*self.timed.notes(), PREDICTED) if mode == "latency" else ()
        notes += two_stages
        return Preview(
            original=self.original,
            groups=analysis.views(meter),
            declined=analysis.channels.declined,
            widths=widths,
            blocks=blocks,
            notes=(*self._of_sizes(mode), *self._notes, *analysis.notes, *notes),
        )

    def _of_sizes(self, mode: Mode) -> Iterator[str]:
        return of_open_sizes(model_inputs(self.base), mode)

    def _cost(self, proto: onnx.ModelProto, mode: Mode) -> float:
        return self.timed.meter.of(proto) if mode == "latency" else measured(cost_of(proto), mode)

    def _target(self, budget: Budget, meter: Meter) -> float:
        """What the model may cost, in the unit of the meter; for time by the profile.

        Raises:
            UsageError: nothing needs to go, or not enough can.
        """
        self.require_something(budget.mode)
        if budget.mode == "latency":
            require_widths(self.timed.meter, has_blocks=self._lets_blocks_go("latency"))
            whole = self.timed.meter.whole_ms
            target = self.share(budget) * whole
        else:
            whole, target = measured(self.original, budget.mode), budget.target(self.original)
        if not whole:
            raise UsageError(
                f"the model has no {UNITS[budget.mode]}: there is nothing to cut",
                "give a budget of another cost",
            )
        if target >= whole:
            raise UsageError("the model is within the budget already", "ask for less")
        if self.options.strategy == "slr":
            approach = self.approach(budget.mode)
            approach.reach(meter).require(target, whole, lambda: approach.ways)
        elif not self._may_drop(budget.mode):
            require_possible(self.analysis(budget.mode), meter, target, self.options, whole)
        return target

    def _rounds(self, mode: Mode | None, first: Analysis | None) -> Rounds:
        """For budgets of a mode; of a plan, whose options are settled, without one."""
        options = self.options if mode is None else self.settled(mode)
        return Rounds(
            self.base, options, self.batches, self.has_samples, self.tell, first,
            self.workers, self.cache,
        )  # fmt: skip

    def _finished(
        self,
        rounds: Rounds,
        budget: Budget,
        confirming: Confirming | None = None,
        contest: Contest | None = None,
    ) -> Pruned:
        rewritten = optimize(without_zero_biases(rounds.pruned), self.rewriting, progress=self.tell)
        cost = cost_of(rewritten.model)
        notes = [
            *self._of_sizes(budget.mode),
            *self._notes,
            *(rounds.first.notes if rounds.first else ()),
        ]
        off, latency = 0.0, None
        if budget.mode != "latency":
            off = measured(cost, budget.mode) / budget.target(self.original) - 1
        elif confirming is not None:  # what a plan says is repeated as it is
            latency = confirming.outcome(rewritten.model)
            notes += (*self.timed.notes(), *of_latency(latency))
        notes += of_contest(contest)
        notes += after_pruning(rounds.done, self.options, off, has_samples=self.has_samples)
        return Pruned(
            model=rewritten.model,
            original=self.original,
            cost=cost,
            rounds=tuple(rounds.done),
            lossless=self.lossless,
            rewriting=rewritten,
            notes=tuple(notes),
            latency=latency,
        )
