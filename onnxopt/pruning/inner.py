"""What refits look at where a layer's result stays inside of its operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.layer import Kept, Layer, Values, Weights
from onnxopt.pruning.recurrent import Gates
from onnxopt.pruning.samples import fold

RECURRENT_STEPS = 2
"""Refits of a gate: one on the original's states, one on those that come of it. More do no good."""


@dataclass
class Inside:
    """An inner layer of the pruned model, and the same one of the original.

    Gates are judged by the states that the operator makes of them. They are refitted on the
    original's states first, as if no error went from step to step, then on the states that the
    refitted gates lead to.

    Attributes:
        ours, theirs: for each batch what the operator reads, in the pruned model and the original;
            the original's with what all its layers share (`completed`).
        original: weights of the original.
    """

    layer: Layer
    ours: Sequence[Values]
    theirs: Sequence[Values]
    original: Weights
    kept: Kept

    @property
    def steps(self) -> int:
        return RECURRENT_STEPS if isinstance(self.layer, Gates) else 1

    @cached_property
    def targets(self) -> list[Array]:
        """What the layer should make, for each batch."""
        return [self.layer.target(values, self.original, self.kept) for values in self.theirs]

    def inputs(self, weights: Weights, step: int) -> list[Array]:
        """What the layer gets in the pruned model, for each batch."""
        layer, ours = self.layer, self.ours
        if isinstance(layer, Gates) and step == 0:
            both = zip(ours, self._states, strict=True)
            ours = [{**values, layer.states_name: states} for values, states in both]
        return [layer.gathered(values, weights) for values in ours]

    @cached_property
    def _states(self) -> list[Array]:
        """The original's, of the units that are still there."""
        layer = self.layer
        assert isinstance(layer, Gates)
        return [layer.kept_states(values[layer.states_name], self.kept) for values in self.theirs]

    def judge(self, weights: Weights) -> Callable[[Array], float] | None:
        """The error of states that a matrix leads to, on batches that judge; None if not by states.

        Returns:
            a function of W: squared error as a share of the variance of the original's states.
        """
        layer = self.layer
        if not isinstance(layer, Gates):
            return None

        def error(W: Array) -> float:
            changed = {**weights, **layer.stored(W, weights)}
            total = squares = sums = 0.0
            count = 0
            for number in fold(self.ours, held_out=True):
                wanted = self._states[number][:, layer.direction].astype(np.float64)
                made = layer.states(self.ours[number], changed)[:, layer.direction]
                total += float(np.square(made - wanted).sum())
                squares += float(np.square(wanted).sum())
                sums += float(wanted.sum())
                count += wanted.size
            spread = squares - sums * sums / max(count, 1)
            return total / spread if spread > 0 else total

        return error
