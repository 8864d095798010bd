"""A model whose budget is time: its profile, measured here or given, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import onnx

from onnxopt.errors import UsageError
from onnxopt.profiling.document import Profile
from onnxopt.profiling.machine import machine
from onnxopt.profiling.sessions import CPU
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.confirming import Confirming
from onnxopt.pruning.meters import Predicted
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.stopwatch import THREADS, Stopwatch
from onnxopt.timing import Timing

NO_WIDTHS = (
    "only layers with stored float32 weights are timed at several widths, and this model has none "
    "(it is quantized, perhaps): channels cannot be chosen by time, only whole residual blocks can"
)


@dataclass(frozen=True)
class Timed:
    """What budgets of time need to know of the model that is pruned.

    Attributes:
        original: what shares are of: the original, rewritten without loss.
        base: the same as it is cut.
        feeds: what both run with.
        given: a profile of it; measured here if there is none.
        channels: of the base, where a given profile is checked against them.
    """

    original: onnx.ModelProto
    base: onnx.ModelProto
    feeds: Batch
    given: Profile | None
    stopwatch: Stopwatch
    channels: Callable[[], Channels]
    tell: Tell

    @cached_property
    def meter(self) -> Predicted:
        """Raises:
        UsageError: the given profile is of another model, or knows no widths.
        """
        if self.given is not None:
            feeds = self.feeds if self.is_here else None
            made = Predicted(self.given, self.base, feeds)
            made.check(self.channels())
            return made
        profile = self.stopwatch.profile(self.base, self.feeds, self.tell)
        return Predicted(profile, self.base, self.feeds)

    @property
    def is_here(self) -> bool:
        """Whether it is this machine that counts, with these inputs, so that measuring confirms."""
        if self.given is None:
            return True
        settings = self.given.settings
        return (
            self.given.machine == machine()
            and (settings.threads, settings.provider) == (THREADS, CPU)
            and settings.shapes == {name: array.shape for name, array in self.feeds.items()}
        )

    def share(self, budget: Budget) -> float:
        """The share of the time that may remain."""
        if budget.relative:
            return budget.amount
        return budget.amount / self.meter.profile.steady_ms.median

    def confirming(self, budget: Budget, first: float | None = None) -> Confirming:
        """Args:
        first: what the first try is asked for, in predicted milliseconds; by default the budget.
        """
        time = self._beside_the_original if self.is_here else None
        return Confirming(self.share(budget), self.meter, time, self.tell, first)

    def _beside_the_original(self, model: onnx.ModelProto) -> Timing:
        return self.stopwatch.against(self.original, model, self.feeds)

    def notes(self) -> Iterator[str]:
        """What the user should know of the profile."""
        profile = self.meter.profile
        if not self.meter.knows_widths:
            yield NO_WIDTHS
        if not self.is_here:
            yield (
                "the time is predicted by the profile of another machine "
                f"({profile.machine.processor}), or of other inputs or threads, and not confirmed: "
                "measuring here would prove nothing"
            )
        if not profile.noise.trusted:
            yield f"the machine was noisy while its layers were timed: {profile.noise.why}"


def require_widths(meter: Predicted, *, has_blocks: bool) -> None:
    """Raise UsageError if nothing of a model can be chosen by time."""
    if not meter.knows_widths and not has_blocks:
        raise UsageError(
            f"{NO_WIDTHS}, and none may go",
            "give a budget of --flops, or prune the model before it is quantized",
        )


def require_timeable(strategy: str) -> None:
    """Raise UsageError for a strategy that knows no time."""
    if strategy == "complexity":
        raise UsageError(
            "--strategy complexity draws layers by parameters, FLOPs or memory, and not by time",
            "use --strategy damage, uniform or slr, or another budget",
        )
