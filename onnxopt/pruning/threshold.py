"""Widths by one threshold for the channels of all groups: the first stage of strategy `slr`.

Li, Li and Meng (J. Real-Time Image Proc. 21:116, 2024) call it the Global Constraint.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.pruning.by_widths import CostByWidths
from onnxopt.pruning.curves import Curve, Problem, problem_of
from onnxopt.signature import Array


def threshold(curves: Sequence[Curve], cost: CostByWidths, budget: float) -> tuple[int, ...]:
    """The greatest widths within the budget that one threshold leads to.

    A group loses the channels that do less harm each than the threshold; the lowest one is taken
    whose widths are within the budget.

    Args and errors: as of `allocate`.
    """
    problem = problem_of(curves, cost, budget)
    levels = [_levels(curve) for curve in problem.curves]
    tried = np.unique(np.concatenate([np.zeros(1), *levels]))
    low, high = 0, len(tried) - 1
    while low < high:
        middle = (low + high) // 2
        if problem.fits(_choice(problem, levels, float(tried[middle]))):
            high = middle
        else:
            low = middle + 1
    choice = _choice(problem, levels, float(tried[low]))
    return problem.answer(choice if problem.fits(choice) else problem.cheapest)


def _levels(curve: Curve) -> Array:
    """For each width but the last the threshold at which it is reached: (widths - 1,), falling."""
    widths, damage = np.array(curve.widths, float), np.array(curve.damage)
    each = -np.diff(damage) / np.diff(widths)
    return np.asarray(np.maximum.accumulate(each[::-1])[::-1])


def _choice(problem: Problem, levels: Sequence[Array], level: float) -> Array:
    """The smallest width of each group that is reached at this threshold."""
    return np.array([int(np.sum(each > level)) for each in levels], np.int64)
