"""The outcome of a verification: Verdict, one OutputError for each output."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxopt.changes import Numerics
from onnxopt.verification.comparison import Difference


@dataclass(frozen=True)
class OutputError:
    """How one output fared over all draws.

    Attributes:
        worst_absolute: largest absolute error, on whichever inputs.
        worst_relative: largest absolute error divided by the root mean square of the output.
        tolerance: absolute error that was allowed where the error came closest to it, or beyond.
        excess: that error divided by that tolerance; above 1 is too much.
        ok: the output passed.
        feed: the inputs on which an error came closest to its tolerance; empty if none differed.
        differs: "" or what differs: "type", "structure", "shape" or "value", and where.
    """

    name: str
    worst_absolute: float = 0.0
    worst_relative: float = 0.0
    tolerance: float = 0.0
    excess: float = 0.0
    ok: bool = True
    feed: str = ""
    differs: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate computes what the reference computes.

    Attributes:
        passed: it does, within `numerics`, as far as was tried.
        numerics: the promise it was held to.
        outputs: one entry for each output of the reference; empty if the candidate did not run.
        draws: descriptions of the inputs that were drawn.
        unverified: what was not shown, each with its reason.
        reason: why it did not pass, in one line; empty if it did.
    """

    passed: bool
    numerics: Numerics
    outputs: tuple[OutputError, ...] = ()
    draws: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    reason: str = ""

    @property
    def worst_absolute(self) -> float:
        return max((output.worst_absolute for output in self.outputs), default=0.0)

    @property
    def worst_relative(self) -> float:
        return max((output.worst_relative for output in self.outputs), default=0.0)

    def summary(self) -> str:
        """One line for a table."""
        if not self.passed:
            return f"failed: {self.reason}"
        count = f"{len(self.draws)} draw{'s' if len(self.draws) != 1 else ''}"
        if self.numerics == "lossy":
            return f"same names, types and shapes on {count}"
        if self.worst_absolute == 0.0:
            return f"equal bit for bit on {count}"
        worst = max(self.outputs, key=lambda output: output.excess)
        return (
            f"equal within rounding on {count}: errors up to {worst.worst_absolute:.2g} "
            f"({worst.worst_relative:.1g} of its size) in '{worst.name}', closest to what is "
            f"allowed ({worst.excess:.0%} of it) on {worst.feed}"
        )


@dataclass
class Tally:
    """A verdict in the making.

    Attributes:
        notes: what the comparison could not show.
    """

    numerics: Numerics
    names: list[str]
    notes: list[str] = field(default_factory=list)
    _worst: dict[str, tuple[Difference, str]] = field(default_factory=dict)

    def add(self, name: str, difference: Difference, feed: str) -> None:
        """Enter what one output showed on one draw."""
        kept, kept_feed = self._worst.get(name, (Difference(), ""))
        merged = kept.worst(difference)
        is_new = merged.excess != kept.excess or merged.what != kept.what
        self._worst[name] = (merged, feed if is_new else kept_feed)

    def differed(self, name: str) -> bool:
        """Whether an output ever differed, be it within what is allowed."""
        return bool(self._worst.get(name, (Difference(), ""))[0].what)

    def verdict(self, draws: tuple[str, ...], unverified: tuple[str, ...]) -> Verdict:
        outputs = tuple(self._output(name) for name in self.names)
        bad = next((output for output in outputs if not output.ok), None)
        notes = tuple(dict.fromkeys((*unverified, *self.notes)))
        return Verdict(bad is None, self.numerics, outputs, draws, notes, _reason(bad))

    def _output(self, name: str) -> OutputError:
        difference, feed = self._worst.get(name, (Difference(), ""))
        return OutputError(
            name,
            worst_absolute=difference.absolute,
            worst_relative=difference.relative,
            tolerance=difference.tolerance,
            excess=difference.excess,
            ok=difference.passes,
            feed=feed,
            differs=f"{difference.what} {difference.detail}".strip(),
        )


def _reason(bad: OutputError | None) -> str:
    if bad is None:
        return ""
    if not bad.differs.startswith("value"):
        return f"output '{bad.name}' differs in {bad.differs} on {bad.feed}"
    allowed = f"where {bad.tolerance:.2g} is allowed" if bad.tolerance else "and must be equal"
    return (
        f"output '{bad.name}' is off by {bad.worst_absolute:.3g} "
        f"({bad.worst_relative:.1g} of its size) {allowed}, on {bad.feed}"
    )
