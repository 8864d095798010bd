"""Which units stay, by ADMM on moments: ridge regression against a projection, in turns.

To keep n units, W must be a good fit and equal to a Z that has only n units (Boyd et al.,
"Distributed optimization and statistical learning via ADMM", 2011, section 9.1). In turns

    W = (H + D + rho)^-1 (C + D W0 + rho (Z - U))    the fit, near Z
    Z = W + U in the n units of largest norm, zero elsewhere
    U = U + W - Z

Here each unit's inputs are scaled to mean square 1 first and each layer's outputs to variance 1,
so that norms of different units and layers compare, and rho is relative to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.pruning.moments import Array, Floats, Indices
from onnxopt.pruning.problem import Order, Problem
from onnxopt.pruning.ridge import STRENGTH, cholesky, invert_lower

RHO = 1.0
"""Weight of agreement with Z, relative to the mean square of the inputs, which is 1.

Much less and Z, much more and the old weights decide alone: on drawn problems the excess of the
error over that of OBS was 45 % of random's excess at 0.03, 3 % at 0.5 to 5, 6 % at 20.
"""

RATIO = 0.8
"""From one width to the next on the ladder from all units to none."""

TURNS, SETTLED = 20, 5
"""Turns at each width; fewer if the choice stayed the same for so many."""


def admm_order(
    problems: Sequence[Problem],
    *,
    strength: float = STRENGTH,
    widths: Sequence[int] | None = None,
    rho: float = RHO,
) -> Order:
    """All units, ordered so that order[n:] is ADMM's choice at each width on a ladder.

    widths: how many units stay, at each step; a geometric ladder if None. Each step chooses from
    what the step before left, and starts from its weights, so the choices are nested. Between
    steps the norms decide. The score is the step that a unit survived plus, within the step, its
    place in the order of norms, in [0, 1).
    """
    assert problems, "an order needs a consumer"
    units = len(problems[0].rows)
    assert all(len(p.rows) == units for p in problems), "problems differ in their units"
    states = [_Scaled(p, strength) for p in problems]
    dead = np.all([p.dead() for p in problems], axis=0)
    left = np.flatnonzero(~dead)
    order = [int(u) for u in np.flatnonzero(dead)]
    scores = np.zeros(units)
    for step, width in enumerate([*_ladder(len(left), widths), 0]):
        if width >= len(left):
            continue
        norms, stays = _choose(states, left, width, rho)
        going = left[~stays]
        going = going[np.argsort(norms[~stays], kind="stable")]
        scores[going] = step + np.arange(len(going)) / len(going)
        order.extend(int(u) for u in going)
        left = left[stays]
    return Order(np.array(order, np.int64), scores)


def _ladder(units: int, widths: Sequence[int] | None) -> list[int]:
    """The widths to choose at, falling."""
    if widths is not None:
        return sorted({int(w) for w in widths if 0 < w < units}, reverse=True)
    ladder = []
    while units > 1:
        units = min(units - 1, round(units * RATIO))
        ladder.append(units)
    return ladder


def _choose(
    states: Sequence[_Scaled], left: Indices, width: int, rho: float
) -> tuple[Floats, Array]:
    """The norms of the units left and the mask of those that stay, both [left]."""
    for state in states:
        state.start(left, rho)
    stays, same = np.zeros(len(left), np.bool_), 0
    norms = np.zeros(len(left))
    for _ in range(TURNS if width else 1):
        norms = np.sqrt(np.sum([s.fit() for s in states], axis=0))
        best = np.argsort(-norms, kind="stable")[:width]
        chosen = np.isin(np.arange(len(left)), best)
        same = same + 1 if np.array_equal(chosen, stays) else 0
        stays = chosen
        if same >= SETTLED:
            break
        for state in states:
            state.project(left[stays])
    return norms, stays


class _Scaled:
    """One problem in units of its own size, and where the turns stand."""

    def __init__(self, problem: Problem, strength: float) -> None:
        self.problem = problem
        size = np.ones(len(problem.H))
        level = np.diagonal(problem.H)
        for rows in problem.rows:
            mean = float(np.mean(level[rows])) if len(rows) else 0.0
            size[rows] = np.sqrt(mean) if mean > 1e-14 * problem.scale else np.sqrt(problem.scale)
        outputs = np.sqrt(problem.variance / problem.weight) if problem.weight > 0 else np.inf
        self.H = problem.H / np.outer(size, size)
        self.H += np.diag(problem.pull(strength) / size**2)
        self.C = (problem.C + problem.pull(strength)[:, None] * problem.W) / size[:, None] / outputs
        self.W = problem.W * size[:, None] / outputs

    def start(self, left: Indices, rho: float) -> None:
        """Begin the turns for the units left: one factorisation serves them all."""
        gone = np.setdiff1d(np.arange(len(self.problem.rows)), left)
        self.kept = self.problem.kept_rows(gone)
        self.owner = np.full(len(self.W), len(left))
        for number, unit in enumerate(left):
            self.owner[self.problem.rows[int(unit)]] = number
        self.owner = self.owner[self.kept]
        self.rho = np.where(self.owner < len(left), rho, 0.0)[:, None]
        L = cholesky(self.H[np.ix_(self.kept, self.kept)] + np.diag(self.rho[:, 0]))
        assert L is not None, "moments are not positive semidefinite"
        M = invert_lower(L)
        self.inverse = M.T @ M
        self.left = left
        self.Z = self.W[self.kept]
        self.U = np.zeros(self.Z.shape)

    def fit(self) -> Floats:
        """The step of W; the squared norm of W + U for each unit left."""
        W = self.inverse @ (self.C[self.kept] + self.rho * (self.Z - self.U))
        self.W[self.kept] = W
        self.U = self.U + W  # less Z, once that is known
        squares = np.sum(self.U**2, axis=1)
        sums = np.bincount(self.owner, squares, len(self.left) + 1)
        return np.asarray(sums[: len(self.left)], np.float64)

    def project(self, stays: Indices) -> None:
        """The steps of Z and U, with the units that stay."""
        mask = np.isin(self.left, stays)
        keeps = np.append(mask, True)[self.owner]
        self.Z = np.where(keeps[:, None], self.U, 0)
        self.U = self.U - self.Z
