"""How far a model can be cut: all groups at their cheapest widths, and without some blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from onnxopt.pruning.analysis import Analysis
from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.blocks import Block
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.choosing import curves_of, require_possible
from onnxopt.pruning.curves import Problem
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.savings import Savings
from onnxopt.pruning.two_stages import blocks_in_order

Ways = Mapping[Block, Sequence[Way]]


class Reach:
    """How far a model can be cut.

    Args:
        least: units that must stay, by name of group.
    """

    def __init__(
        self,
        channels: Channels,
        meter: Meter,
        options: PruneOptions,
        least: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.savings, self.meter, self.options = Savings(channels, meter), meter, options
        self.unranked = Analysis(
            channels.proto,
            channels,
            rankings=(),
            lost=tuple(np.zeros(len(group.units) + 1) for group in channels.groups),
        )
        finest = 1 if options.relaxed else options.multiple_of
        self.curves = curves_of(self.unranked, replace(options, multiple_of=finest), least)

    def __call__(self, gone: Sequence[Way] = ()) -> float:
        """What is left at the cheapest widths that are legal, without these blocks."""
        problem = Problem(self.curves, self.savings.left(gone), 0.0)
        return self.savings.constant(gone) + problem.total(problem.cheapest)

    def require(self, target: float, whole: float, ways: Callable[[], Ways]) -> None:
        """Check that channels, and then blocks, can go so far.

        Args:
            whole: what the original costs.
            ways: asked for where channels alone are not enough.

        Raises:
            UsageError: they cannot; says how far it goes, and what stands in the way.
        """
        if self() <= target:
            return
        found = ways()
        gone = blocks_in_order(self.savings.channels.proto, found, self.meter, 0.0, self)
        if self(gone) <= target:
            return
        text = f" and without {len(gone)} of {len(found)} residual blocks" if found else ""
        require_possible(
            self.unranked, self.meter, target, self.options, whole,
            cost=self.savings.left(gone), fixed=self.savings.constant(gone), gone=text,
        )  # fmt: skip
