"""A model that is right by definition: its outputs on drawn inputs, and comparison with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from onnxopt.changes import Numerics
from onnxopt.runtime import Session
from onnxopt.signature import Array
from onnxopt.verification.comparison import (
    Difference,
    distance,
    is_floating,
    judge,
    leaves,
    root_mean_square,
    size_bytes,
    structural_difference,
    wide,
)
from onnxopt.verification.element_types import ulp
from onnxopt.verification.feeds import Feed
from onnxopt.verification.noise import NoiseMeter, Spread
from onnxopt.verification.traits import Traits, traits_of

LARGEST_CACHE_BYTES = 512 * 2**20
"""Reference outputs beyond this are computed again when they are needed."""

QUICK_ABSOLUTE_ULPS = 8.0
QUICK_RELATIVE_ULPS = 16.0
"""Errors within (absolute x root mean square + relative x |element|) units in the last place pass
without measuring the model's noise: for float32, 1e-6 of the one plus 2e-6 of the other."""

QUICK_HALF_ULPS = 2.0
"""The same, for both, where float16 or bfloat16 is at work: their units are coarse."""

FLOOR_ULPS = 4.0
"""An error of so many units in the last place of the element itself is never too much."""

NOISY = 0.01
"""Outputs that rounding alone moves by more than this share of their size are named."""


class Reference:
    """Outputs of a model on some inputs, and comparison of other outputs with them.

    Args:
        proto: the model. It must not be changed meanwhile.
        feeds: inputs that it runs with.
        outputs: what it makes of them, if that is known already.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        session: Session,
        feeds: Sequence[Feed],
        outputs: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.session = session
        self.feeds = list(feeds)
        self.traits: Traits = traits_of(proto)
        self._noise = NoiseMeter(proto)
        self._spreads: dict[tuple[int, bool], dict[str, list[Spread]] | None] = {}
        self._outputs: dict[int, dict[str, Any]] = {}
        self._cached_bytes = 0
        for index, values in enumerate(outputs):
            self._remember(index, values)

    def outputs(self, index: int) -> dict[str, Any]:
        """Its outputs on one feed.

        Raises:
            RunError: it does not run on it.
        """
        if index not in self._outputs:
            values = self.session.run(self.feeds[index].arrays)
            self._remember(index, values)
            return values
        return self._outputs[index]

    def _remember(self, index: int, values: dict[str, Any]) -> None:
        size = sum(size_bytes(value) for value in values.values())
        if self._cached_bytes + size <= LARGEST_CACHE_BYTES:
            self._cached_bytes += size
            self._outputs[index] = values

    def compare(
        self, index: int, found: dict[str, Any], numerics: Numerics, notes: list[str]
    ) -> dict[str, Difference]:
        """How outputs of another model on one feed differ from its own, by name.

        Args:
            notes: takes what the comparison could not show.
        """
        return {
            name: self.difference(index, name, found[name], numerics, notes)
            for name in self.outputs(index)
        }

    def difference(
        self,
        index: int,
        name: str,
        theirs: Any,
        numerics: Numerics,
        notes: list[str],
        *,
        quick: bool = False,
    ) -> Difference:
        """How one output of another model on one feed differs from its own.

        Args:
            quick: do not measure noise; what passes passes, what fails may not.
        """
        ours = self.outputs(index)[name]
        structural = structural_difference(ours, theirs)
        if numerics == "lossy" or name in self.traits.random or structural.what == "type":
            return structural
        exact = numerics == "exact" and not self.traits.is_half
        unit = self.traits.ulps.get(name, 0.0)
        difference = structural
        if not structural.what:
            difference = within_quick(ours, theirs, 0.0 if exact else unit)
        if not (exact or quick or difference.passes):
            difference = self._within_noise(index, name, theirs, difference, notes)
        if numerics == "exact" and difference.passes and difference.what:
            notes.append(
                f"'{name}': equal within the rounding of 16-bit floats only, which ONNX Runtime "
                "computes in 32 bits where it lacks kernels for them"
            )
        return difference

    def _within_noise(
        self, index: int, name: str, theirs: Any, difference: Difference, notes: list[str]
    ) -> Difference:
        """Compare again, by what noise does to the model: first quiet noise, then loud."""
        ours = self.outputs(index)[name]
        for loud in (False, True):
            spreads = self._spread(index, loud)
            if spreads is None:
                notes.append("its rounding noise could not be measured: held to a fixed tolerance")
                return difference
            if name not in spreads:
                notes.append(f"'{name}': its shape depends on rounding; only its type was compared")
                return Difference()
            if difference.is_structural:
                continue
            difference = within_spread(ours, theirs, spreads[name], self.traits.ulps.get(name, 0))
            if difference.passes:
                share = difference.relative
                if share > NOISY:
                    notes.append(
                        f"'{name}': rounding alone moves it by {share:.0%} of its size (quantized "
                        "or discontinuous): smaller errors were not told from that"
                    )
                return difference
        return difference

    def _spread(self, index: int, loud: bool) -> dict[str, list[Spread]] | None:
        key = (index, loud)
        if key not in self._spreads:
            feed, outputs = self.feeds[index].arrays, self.outputs(index)
            self._spreads[key] = self._noise.spreads(feed, outputs, loud=loud)
        return self._spreads[key]


def within_quick(reference: Any, candidate: Any, unit: float) -> Difference:
    """Compare without measuring noise: within a few units in the last place.

    Args:
        unit: unit in the last place of the coarsest type that the output was computed in; 0 to
            compare bit for bit.
    """
    absolute, relative = QUICK_ABSOLUTE_ULPS, QUICK_RELATIVE_ULPS
    if unit > ulp(onnx.TensorProto.FLOAT):
        absolute = relative = QUICK_HALF_ULPS
    worst = Difference()
    for (_, a), (_, b) in zip(leaves(reference), leaves(candidate), strict=True):
        if a is None or b is None:
            continue
        errors = distance(a, b)
        if not errors.any():
            continue
        allowed: Array | float = 0.0
        if is_floating(a) and unit:
            allowed = absolute * unit * root_mean_square(a) + relative * unit * np.abs(wide(a))
        worst = worst.worst(judge(a, errors, allowed))
    return worst


def within_spread(
    reference: Any, candidate: Any, spreads: Sequence[Spread], unit: float
) -> Difference:
    """Compare within the measured noise."""
    worst = Difference()
    pairs = zip(leaves(reference), leaves(candidate), spreads, strict=True)
    for (_, a), (_, b), spread in pairs:
        if a is None or b is None:
            continue
        errors, allowed = distance(a, b), spread.allowed
        if is_floating(a):
            allowed = allowed + FLOOR_ULPS * unit * np.abs(wide(a))
        out = errors > allowed
        if np.count_nonzero(out) <= spread.outliers:
            allowed = np.where(out, np.maximum(allowed, spread.reach), allowed)
        worst = worst.worst(judge(a, errors, allowed))
    return worst
