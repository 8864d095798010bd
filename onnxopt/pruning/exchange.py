"""Improve a choice of widths by local moves: trim to the budget, spend what is left, exchange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxopt.pruning.by_widths import Changes
from onnxopt.pruning.curves import Problem
from onnxopt.signature import Array

ROUNDING = 1e-12
"""An exchange that gains less than this part of the damage may gain nothing."""

MOVES = 2000
"""Moves of one run at most: a bound that is not met in practice."""

LISTED = 1500
"""Narrowings and widenings of which all pairs are looked at: those that cost least harm."""

CHECKED = 20
"""Exchanges that are tried in full, the most promising first."""


@dataclass(frozen=True)
class Moves:
    """Every change of one width, each an entry of arrays of shape (moves,).

    Attributes:
        group, option: which group takes which of its widths.
        by: change of the width.
        cost, harm: change of the total cost and of the total damage.
    """

    group: Array
    option: Array
    by: Array
    cost: Array
    harm: Array

    @classmethod
    def of(cls, problem: Problem, choice: Array) -> Moves:
        columns: list[tuple[Array, ...]] = []
        now = problem.at(choice)
        for group, (widths, damages) in enumerate(
            zip(problem.widths, problem.damages, strict=True)
        ):
            present, options = int(choice[group]), np.arange(len(widths))
            costs = problem.cost.touched_by_group(group, now, widths)
            by, harm = widths - widths[present], damages - damages[present]
            columns.append((options * 0 + group, options, by, costs - costs[present], harm))
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True)))

    def where(self, chosen: Array) -> Moves:
        return Moves(
            self.group[chosen], self.option[chosen], self.by[chosen], self.cost[chosen],
            self.harm[chosen],
        )  # fmt: skip


def trim(problem: Problem, choice: Array) -> Array:
    """Take cheaper widths until the budget is met, where that does least harm for what it saves.

    Those are narrower ones, but where narrower is slower.
    """
    choice = choice.copy()
    while (excess := problem.total(choice) - problem.budget) > 0:
        moves = Moves.of(problem, choice)
        cheaper = moves.where(moves.cost < 0)
        if not len(cheaper.by):
            return np.array(problem.cheapest)  # rounding hides what the last steps save
        rate = _rate(cheaper.harm, np.minimum(-cheaper.cost, excess))
        best = int(np.lexsort((cheaper.cost, rate))[0])
        choice[cheaper.group[best]] = cheaper.option[best]
    return choice


def improve(problem: Problem, choice: Array) -> Array:
    """Widen and exchange as long as that lowers the damage; the budget stays kept."""
    choice = choice.copy()
    for _ in range(MOVES):
        moves = Moves.of(problem, choice)
        slack = problem.budget - problem.total(choice)
        if not (_widen(problem, choice, moves, slack) or _swap(problem, choice, moves, slack)):
            break
    return choice


def _widen(problem: Problem, choice: Array, moves: Moves, slack: float) -> bool:
    """Widen the group that gains most for what it costs. False if none fits."""
    fitting = moves.where((moves.harm < 0) & (moves.cost <= slack))
    order = np.argsort(_rate(fitting.harm, fitting.cost), kind="stable")
    return any(_accept(problem, choice, fitting, (int(move),)) for move in order[:CHECKED])


def _swap(problem: Problem, choice: Array, moves: Moves, slack: float) -> bool:
    """Make one group cheaper and another wider, for the greatest gain. False if none gains."""
    down = _cheapest(moves.where(moves.cost < 0))
    up = _cheapest(moves.where(moves.harm < 0))
    if not len(down.by) or not len(up.by):
        return False
    one, other = Changes(down.group, down.by), Changes(up.group, up.by)
    cost = down.cost[:, None] + up.cost + problem.cost.crossed(problem.at(choice), one, other)
    gain = -(down.harm[:, None] + up.harm)
    noise = ROUNDING * problem.damage(choice)
    fits = (cost <= slack) & (gain > noise) & (down.group[:, None] != up.group)
    found = np.flatnonzero(fits)
    order = found[np.argsort(-gain.ravel()[found], kind="stable")][:CHECKED]
    both = Moves(*(np.concatenate(pair) for pair in zip(_columns(down), _columns(up), strict=True)))
    return any(
        _accept(
            problem, choice, both, (int(pair) // len(up.by), len(down.by) + int(pair) % len(up.by))
        )
        for pair in order
    )


def _rate(harm: Array, cost: Array) -> Array:
    """Harm for each unit of cost; very much where it costs nothing."""
    return np.asarray(harm / np.maximum(np.abs(cost), 1e-200))


def _columns(moves: Moves) -> tuple[Array, ...]:
    return moves.group, moves.option, moves.by, moves.cost, moves.harm


def _cheapest(moves: Moves) -> Moves:
    """At most LISTED of these moves: those with least harm, or most gain, for their cost."""
    if len(moves.by) <= LISTED:
        return moves
    rate = _rate(moves.harm, moves.cost)
    return moves.where(np.sort(np.argsort(rate, kind="stable")[:LISTED]))


def _accept(problem: Problem, choice: Array, moves: Moves, chosen: tuple[int, ...]) -> bool:
    """Make these moves at once, if the budget is kept."""
    changed = choice.copy()
    for move in chosen:
        changed[moves.group[move]] = moves.option[move]
    if not problem.fits(changed):
        return False
    choice[:] = changed
    return True
