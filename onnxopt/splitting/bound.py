"""How much codecs may change the outputs: candidates that change more are taken out as found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TypeAlias

import numpy as np

from onnxopt.splitting.candidates import Bools, Candidates
from onnxopt.splitting.manifest import Codec

ErrorOf: TypeAlias = Callable[[frozenset[int], Codec], float]
"""The largest relative error in the outputs with these operators on the device."""

MOST_MEASURED = 60
"""So many pairs of cut and codec; what was not measured by then is not used with a codec."""


@dataclass
class Bound:
    """Candidates within a bound on the error of their codec, measured only where that matters.

    Args:
        errors: measures one; None: nothing is known of any.
        most: largest error that is allowed; None: any.
    """

    errors: ErrorOf | None
    most: float | None
    _known: dict[tuple[int, int], float] = field(default_factory=dict)
    _is_full: bool = False

    def kept(self, found: Candidates, shown: Sequence[int]) -> Bools | None:
        """Which candidates stay; None if all do.

        Args:
            shown: numbers of those that a plan would rest on, what matters most first.
        """
        if self.errors is None:
            return None
        for number in shown:
            self._measure(found, number)
        if self.most is None:
            return None
        gone = np.array([self._is_beyond(found, number) for number in range(len(found))])
        return ~gone if gone.any() else None

    def error(self, found: Candidates, number: int) -> float | None:
        """What the codec of a candidate changes; None if that was not measured, or is no number."""
        if self.errors is None:
            return None
        error = self._known.get(_key(found, number)) if found.coding[number] else 0.0
        return error if error is not None and isfinite(error) else None

    def notes(self) -> tuple[str, ...]:
        """What was left out, in sentences."""
        notes = []
        endless = sum(not isfinite(error) for error in self._known.values())
        if endless:
            notes.append(
                f"with {endless} of the codecs that were measured an output has another shape, is "
                "no number, or is not computed at all"
            )
        if self.most is None:
            return tuple(notes)
        beyond = sum(not error <= self.most for error in self._known.values())
        if beyond:
            notes.append(
                f"{beyond} of {len(self._known)} codecs of cuts that were measured change the "
                f"outputs by more than {self.most:.3g} of their size, and were left out"
            )
        if self._is_full:
            notes.append(
                f"after {MOST_MEASURED} of these the other cuts were taken without codecs: the "
                "plan is the best of what is left"
            )
        return tuple(notes)

    def _measure(self, found: Candidates, number: int) -> None:
        key = _key(found, number)
        if not found.coding[number] or key in self._known:
            return
        if len(self._known) >= MOST_MEASURED:
            self._is_full = True
            return
        assert self.errors is not None
        device = frozenset(found.cuts.operators(key[0]))
        self._known[key] = self.errors(device, found.codec(number))

    def _is_beyond(self, found: Candidates, number: int) -> bool:
        if not found.coding[number]:
            return False
        error = self._known.get(_key(found, number))
        if error is None:
            return self._is_full
        assert self.most is not None
        return not error <= self.most


def _key(found: Candidates, number: int) -> tuple[int, int]:
    return int(found.cut[number]), int(found.coding[number])
