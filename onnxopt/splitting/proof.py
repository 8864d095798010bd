"""What comparing segments with the whole model showed, and whether that is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import Literal

from onnxopt.verification.verdict import Verdict

OPTIMIZED_TOLERANCE = 1e-5
"""Largest error, relative to the largest element of an output, with ONNX Runtime's optimizations,
where a user accepts no more. They fuse operators within a half, not across the cut, and so round at
other places."""

Explanation = Literal["", "whole", "rounding"]


@dataclass(frozen=True)
class Proof:
    """How segments compare with the whole model.

    Errors are relative to the largest element of an output.

    Attributes:
        exact: with ONNX Runtime's optimizations off, without codecs.
        is_half: the model computes in 16-bit floats, so that `exact` grants their rounding.
        plain: largest error with optimizations off; 0 where the outputs are equal bit for bit.
        optimized: largest error with them on; None where the whole model does not run with them.
        itself: by how much the optimizations change the whole model; None if nobody had to ask.
        explained: what makes as much of the whole model as `optimized`: the optimizations, or
            rounding alone; empty if neither does, or if nobody had to ask.
        unrun: why the segments do not run with optimizations though the whole model does.
        tolerance: error that the user accepts, None for the default: bit for bit without
            optimizations and `OPTIMIZED_TOLERANCE` with them.
        errors: for each cut with a codec the largest error that it causes; where that is no number,
            as an output has another shape, a note says so instead.
        first: the first tensor that differs, and how; empty if none does.
        notes: what was and what was not shown, in sentences.
    """

    exact: Verdict
    is_half: bool = False
    plain: float = 0.0
    optimized: float | None = None
    itself: float | None = None
    explained: Explanation = ""
    unrun: str = ""
    tolerance: float | None = None
    errors: Mapping[int, float] | None = None
    first: str = ""
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reason

    @property
    def needed(self) -> float | None:
        """The tolerance that would be enough here, with some room; None if none would."""
        worst = max(self.plain, self.optimized or 0.0)
        if self._wrong or self.unrun or not isfinite(worst):
            return None
        return _rounded_up(worst)

    @property
    def reason(self) -> str:
        """Why the segments are refused, in one line; empty if they are not."""
        if self._wrong:
            why = self.first or self.exact.reason or "an output has another size, or is no number"
            return f"the parts do not equal the whole: {why}"
        if self.unrun:
            return (
                "with ONNX Runtime's optimizations on the parts do not run, though the whole model "
                f"does: {self.unrun}"
            )
        allowed = self.tolerance
        beyond = [
            f"by {error:.2g} with {how} (allowed: {limit if allowed is None else allowed:.2g})"
            for error, how, limit in (
                (self.optimized or 0.0, "ONNX Runtime's optimizations on", OPTIMIZED_TOLERANCE),
                (self.plain, "all optimizations off", 0.0),
            )
            if error > (limit if allowed is None else allowed)
        ]
        if not beyond:
            return ""
        return (
            "the parts differ from the whole, relative to the largest element of an output, "
            f"{' and '.join(beyond)}: {self.diagnosis}"
        )

    @property
    def fix(self) -> str:
        """What to do about `reason`."""
        if self.needed is None:
            return "please report it"
        return f"cut elsewhere, or accept it: {self.acceptance}"

    @property
    def acceptance(self) -> str:
        """The option that would be enough."""
        return f"--tolerance {100 * (self.needed or 0.0):.1g}%"

    @property
    def is_accepted(self) -> bool:
        """Passed, but only because of the tolerance that was asked for."""
        beyond = self.plain > 0 or (self.optimized or 0.0) > OPTIMIZED_TOLERANCE
        return self.passed and beyond

    @property
    def diagnosis(self) -> str:
        """Where an error beyond the default comes from."""
        found = []
        if self.plain:
            found.append(
                "neighbours of 16-bit floats are computed in float32 without rounding between "
                "them, and across the cut they are rounded"
            )
        if self.itself:
            found.append(
                f"the optimizations change the whole model by {self.itself:.2g} by themselves, and "
                "do not fuse across the cut"
            )
        if self.explained == "rounding":
            found.append("rounding alone moves the whole model as much")
        elif not self.explained and not self.plain:
            found.append("neither the optimizations nor rounding explain it: please report it")
        return "; ".join(found)

    @property
    def _wrong(self) -> bool:
        """Without optimizations the segments compute something else."""
        return not isfinite(self.plain) or (not self.exact.passed and not self.is_half)


def _rounded_up(error: float) -> float:
    """A number of one digit that is at least a tenth more."""
    if error <= 0:
        return 0.0
    wanted = 1.1 * error
    unit = 10.0 ** floor(log10(wanted))
    return float(f"{ceil(wanted / unit) * unit:.0e}")
