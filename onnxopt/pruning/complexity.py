"""Complexity-driven widths: layers are drawn by their share of the cost, and lose channels.

The procedure of Zawish, Davy and Abraham, "Complexity-Driven CNN Compression for
Resource-constrained Edge AI" (arXiv 2208.12816). Its modes are the cost that it is given:
parameters (PA), FLOPs (FA) or bytes of memory (MA). It looks at no damage at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.pruning.curves import Curve, problem_of
from onnxopt.pruning.widths import OwnerCosts, WidthCost


def complexity(
    curves: Sequence[Curve],
    cost: WidthCost,
    budget: float,
    *,
    seed: int,
    owners: Sequence[frozenset[str]],
    remove: int = 1,
) -> tuple[int, ...]:
    """Draw a group, narrow it, look at all costs again, until the budget is met.

    A group is drawn with a probability in proportion to what the layers that make its channels cost
    at the present widths. These shares move with every step, also those of layers that read the
    group. Groups at their smallest width are not drawn; where only groups that cost nothing of
    their own are left, all are drawn alike.

    Args:
        curves: one for each group; only the widths are looked at.
        cost: of the model, by the widths of these groups in the same order.
        budget: in the unit of `cost`; never exceeded.
        seed: of the draws.
        owners: for each group, the owners of the terms that are its own complexity.
        remove: steps of its legal widths that a drawn group is narrowed by.

    Raises:
        UsageError: even the smallest widths exceed the budget.
    """
    assert len(owners) == len(curves) and remove >= 1
    problem = problem_of(curves, cost, budget)
    rng, own, choice = np.random.default_rng(seed), OwnerCosts(cost, owners), problem.full
    widths = problem.at(choice)
    while cost.total(widths) > problem.budget:
        weights = np.where(choice > 0, own.at(widths), 0.0)
        if not weights.sum() > 0:
            weights = (choice > 0).astype(float)
        group = int(rng.choice(len(weights), p=weights / weights.sum()))
        choice[group] = max(0, choice[group] - remove)
        widths[group] = problem.widths[group][choice[group]]
    return problem.answer(choice)
