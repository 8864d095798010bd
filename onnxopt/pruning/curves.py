"""What each group may become and what harm that does; and the problem of choosing among these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.pruning.by_widths import CostByWidths
from onnxopt.signature import Array

STEPS_DOWN = 8
"""Rounds over the groups in search of the cheapest widths at most; two are usual."""


@dataclass(frozen=True)
class Curve:
    """What one group may become.

    Attributes:
        name: of the group, for people.
        widths: legal widths in units, ascending; the last is the present one.
        damage: expected harm at each, 0 at the last. Made non-increasing: a width that seems
            to do less harm than a greater one is given the harm of the greater.
    """

    name: str
    widths: tuple[int, ...]
    damage: tuple[float, ...]

    def __post_init__(self) -> None:
        assert self.widths and len(self.widths) == len(self.damage), self.name
        assert self.widths[0] >= 0 and self.widths[-1] > 0, self.name
        assert all(a < b for a, b in zip(self.widths, self.widths[1:], strict=False)), self.name
        damage: Array = np.array(self.damage, float)
        assert np.isfinite(damage).all() and damage[-1] == 0, self.name
        monotone = np.maximum.accumulate(damage[::-1])[::-1]
        object.__setattr__(self, "damage", tuple(monotone.tolist()))


@dataclass(frozen=True)
class Problem:
    """Curves whose widths are to be chosen so that the cost is within the budget.

    A choice is an int64 array of shape (groups,): for each group the index of one of its widths.
    """

    curves: tuple[Curve, ...]
    cost: CostByWidths
    budget: float

    @cached_property
    def widths(self) -> tuple[Array, ...]:
        return tuple(np.array(curve.widths, float) for curve in self.curves)

    @cached_property
    def damages(self) -> tuple[Array, ...]:
        return tuple(np.array(curve.damage, float) for curve in self.curves)

    @property
    def full(self) -> Array:
        """The choice of the present width everywhere."""
        return np.array([len(curve.widths) - 1 for curve in self.curves], np.int64)

    @property
    def least(self) -> Array:
        """The choice of the smallest width everywhere."""
        return np.zeros(len(self.curves), np.int64)

    @cached_property
    def cheapest(self) -> Array:
        """The choice that costs least, as far as changes of one group after another lead there.

        From the smallest widths, which it is wherever no cost falls as a width grows.
        """
        choice, now = self.least, self.at(self.least)
        for _ in range(STEPS_DOWN):
            changed = False
            for group, widths in enumerate(self.widths):
                costs = self.cost.touched_by_group(group, now, widths)
                best = int(costs.argmin())
                if costs[best] < costs[choice[group]]:
                    choice[group], now[group], changed = best, widths[best], True
            if not changed:
                break
        return choice

    def at(self, choice: Array) -> Array:
        """The widths of a choice: float64 of shape (groups,)."""
        pairs = zip(self.widths, choice.tolist(), strict=True)
        return np.array([widths[index] for widths, index in pairs], float)

    def damage(self, choice: Array) -> float:
        pairs = zip(self.curves, choice.tolist(), strict=True)
        return float(sum(curve.damage[index] for curve, index in pairs))

    def total(self, choice: Array) -> float:
        return self.cost.total(self.at(choice))

    def fits(self, choice: Array) -> bool:
        return self.total(choice) <= self.budget

    def answer(self, choice: Array) -> tuple[int, ...]:
        """The widths of a choice, for the caller."""
        pairs = zip(self.curves, choice.tolist(), strict=True)
        return tuple(curve.widths[index] for curve, index in pairs)


def require_possible(problem: Problem) -> None:
    """Check that the cheapest widths are within the budget.

    Raises:
        UsageError: they are not; says how far it can go, and what holds most of the rest.
    """
    if problem.fits(problem.cheapest):
        return
    cost, least = problem.cost, problem.at(problem.cheapest)
    full, remaining = problem.total(problem.full), cost.total(least)
    holders = sorted(cost.by_owner(least).items(), key=lambda item: -item[1])[:3]
    most = ", ".join(f"{owner} ({part / remaining:.0%})" for owner, part in holders)
    asked = math.floor(1000 * problem.budget / full) / 10
    possible = math.ceil(1000 * remaining / full + 1e-9) / 10  # asked for, this can be reached
    raise UsageError(
        f"no legal widths reach {asked:g}% of the {cost.unit}: "
        f"the smallest leave {possible:g}%, most of it in {most}",
        f"raise --max-per-group, lower --min-channels, or ask for at least {possible:g}%",
    )


def problem_of(curves: Sequence[Curve], cost: CostByWidths, budget: float) -> Problem:
    """The problem, found to have a solution.

    Raises:
        UsageError: it has none.
    """
    assert budget >= 0
    problem = Problem(tuple(curves), cost, float(budget))
    require_possible(problem)
    return problem
