"""Choose one option of each group, where costs add up: dynamic programming on the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.signature import Array

STATES = 800
"""Partial choices that are kept at most; the result is exact as long as there are not more."""


def least_damage(
    costs: Sequence[Array], damages: Sequence[Array], budget: float, states: int = STATES
) -> Array | None:
    """The option of each group, with the least total damage whose costs sum up to the budget.

    After each group only those partial choices are kept that no other beats in both cost and
    damage; where these are more than `states`, the best in each of that many buckets of cost. True
    costs are carried along and never rounded, so the budget is kept exactly.

    Args:
        costs: for each group the cost of each option, shape (options,).
        damages: for each group the damage of each option, shape (options,).
        budget: in the unit of the costs.

    Returns:
        int64 of shape (groups,): the index of the option of each group; None if none is in budget.
    """
    least = [float(cost.min()) for cost in costs]
    to_come = np.append(np.cumsum(least[::-1])[::-1][1:], 0.0) if least else np.zeros(0)
    cost, damage = np.zeros(1), np.zeros(1)
    steps: list[tuple[Array, Array]] = []
    for group, (more_cost, more_damage) in enumerate(zip(costs, damages, strict=True)):
        sums = (cost[:, None] + more_cost).ravel()
        harm = (damage[:, None] + more_damage).ravel()
        kept = _front(sums, harm, budget - float(to_come[group]), states)
        if not len(kept):
            return None
        steps.append((kept // len(more_cost), kept % len(more_cost)))
        cost, damage = sums[kept], harm[kept]
    state, chosen = int(np.argmin(damage)), []
    for parent, option in reversed(steps):
        chosen.append(int(option[state]))
        state = int(parent[state])
    return np.array(chosen[::-1], np.int64)


def _front(cost: Array, damage: Array, budget: float, states: int) -> Array:
    """Indices of what fits and is not beaten, by ascending cost; at most about `states` of them."""
    order = np.lexsort((damage, cost))
    order = order[cost[order] <= budget]
    best = np.minimum.accumulate(damage[order])
    order = order[np.append(True, best[1:] < best[:-1])[: len(order)]]
    if len(order) <= states:
        return np.asarray(order)
    low, high = cost[order[0]], cost[order[-1]]
    bucket = ((cost[order] - low) * (states / (high - low))).astype(np.int64)
    return np.asarray(
        order[np.append(bucket[1:] != bucket[:-1], True)]
    )  # the last of each does least harm
