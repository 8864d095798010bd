"""Widths closer to a budget: one group wider, another narrower, where the allocator falls short."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.by_widths import CostByWidths, of_group
from onnxopt.pruning.curves import Curve


def closer(
    curves: Sequence[Curve], cost: CostByWidths, widths: Sequence[int], aim: float, tolerated: float
) -> tuple[int, ...] | None:
    """Widths whose cost is at most `aim` and no further below it than tolerated, if an exchange
    between two groups leads there; the one with the least damage.

    The allocator looks for the least damage within a budget, and may fall short of it where the
    steps of the groups are coarse.

    Args:
        widths: what the allocator found.
        tolerated: as a share of `aim`.
    """
    now = np.asarray(widths, float)
    found: list[tuple[float, tuple[int, ...]]] = []
    for group, curve in enumerate(curves):
        place = curve.widths.index(int(now[group]))
        if place + 1 == len(curve.widths):
            continue
        wider = now.copy()
        wider[group] = curve.widths[place + 1]
        for other, narrowed in enumerate(curves):
            if other == group:
                continue
            tried = _narrowed(cost, wider, other, narrowed, aim)
            if tried is not None and cost.total(tried) >= (1 - tolerated) * aim:
                chosen = tuple(int(w) for w in tried)
                found.append((_damage(curves, chosen), chosen))
    return min(found)[1] if found else None


def _narrowed(
    cost: CostByWidths, widths: Array, group: int, curve: Curve, aim: float
) -> Array | None:
    """The same with this group as wide as the budget lets it be; None if no width is small enough.

    No wider than it is.
    """
    legal = [w for w in curve.widths if w <= widths[group]]
    costs = of_group(cost, group, widths, legal)
    fitting = np.flatnonzero(costs <= aim)
    if not len(fitting):
        return None
    made: Array = widths.copy()
    made[group] = legal[int(fitting[-1])]
    return made


def _damage(curves: Sequence[Curve], widths: Sequence[int]) -> float:
    return sum(
        curve.damage[curve.widths.index(width)] for curve, width in zip(curves, widths, strict=True)
    )
