"""Block OBS: in which order units of channels go, each the one whose loss costs least.

Optimal Brain Surgeon (Hassibi and Stork, NIPS 1992) for blocks of rows, as in Optimal Brain
Compression (Frantar and Alistarh, NeurIPS 2022, section 4) and ZipLM (Kurtic et al., NeurIPS 2023,
section 3.1). With G the inverse of the damped H, losing the rows j of W costs, after the best
compensation by all other rows, e_j = tr(W_j' [G_jj]^-1 W_j); it then leaves

    W - G_:j [G_jj]^-1 W_j    and    G - G_:j [G_jj]^-1 G_j:

The whole G is brought up to date only every PANEL columns, in one matrix product, as a blocked
factorisation does; its diagonal blocks and W, which give the scores, after every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.pruning.moments import Array, Floats, Indices
from onnxopt.pruning.problem import Order, Problem
from onnxopt.pruning.ridge import STRENGTH, cholesky, invert_lower, solve_lower

PANEL = 256
"""Columns that wait before the whole inverse is brought up to date."""

BATCH, BATCH_ABOVE = 8, 256
"""How many units go at a time while more than so many are left; then one at a time."""


def joint_order(
    problems: Sequence[Problem],
    *,
    strength: float = STRENGTH,
    batch: int = BATCH,
    batch_above: int = BATCH_ABOVE,
) -> Order:
    """The greedy order over the units that all the problems share; all units are in it.

    A unit's cost is the sum over the problems of weight * e_j / variance of the outputs; the
    score told is the cost when it went. Units that all problems read zeros from go first and cost
    nothing. Takes k^3 operations for each problem, mostly in matrix products.
    """
    assert problems, "an order needs a consumer"
    units = len(problems[0].rows)
    assert all(len(p.rows) == units for p in problems), "problems differ in their units"
    dead = np.all([p.dead() for p in problems], axis=0)
    order = list(np.flatnonzero(dead))
    scores = np.zeros(units)
    states = [_Elimination(p, np.flatnonzero(~dead), strength) for p in problems]
    while (left := units - len(order)) > 0:
        costs = np.full(units, np.inf)
        costs[~dead] = sum(s.costs(units)[~dead] for s in states)
        count = min(batch if left > batch_above else 1, left)
        chosen = np.argsort(costs, kind="stable")[:count]
        scores[chosen] = sum(s.remove(chosen) for s in states)
        dead[chosen] = True
        order.extend(chosen)
    return Order(np.array(order, np.int64), scores)


class _Elimination:
    """One problem's W and G on the rows of the units still there, unit by unit, b rows for each.

    Rows of no unit never go, so nothing asks for them again. Units with fewer rows than others are
    filled up with rows of their own that touch nothing: W zero, G that of the identity.
    """

    def __init__(self, problem: Problem, units: Indices, strength: float) -> None:
        D = problem.pull(strength)
        L = cholesky(problem.H + np.diag(D))
        assert L is not None, "moments are not positive semidefinite"
        M = invert_lower(L)
        G = M.T @ M
        W = problem.W + G @ (problem.C - problem.H @ problem.W)
        self.units = np.array([u for u in units if len(problem.rows[int(u)])], np.int64)
        rows = [problem.rows[int(u)] for u in self.units]
        self.b = max(map(len, rows), default=1)
        filled = np.array([np.pad(r, (0, self.b - len(r)), constant_values=-1) for r in rows])
        flat = filled.reshape(-1).astype(np.int64)
        filler = flat < 0
        self.W = W[flat] * np.sqrt(problem.weight / problem.variance)
        if self.W.shape[1] > self.W.shape[0]:  # only W W' is ever asked for
            self.W = np.asarray(np.linalg.qr(self.W.T, mode="r")).T
        self.W[filler] = 0
        self.G = G[np.ix_(flat, flat)]
        self.G[filler] = self.G[:, filler] = 0
        self.G[filler, filler] = 1
        n, each = len(self.units), np.arange(len(self.units))
        self.blocks = self.G.reshape(n, self.b, n, self.b)[each, :, each, :].copy()
        self.V = np.zeros((len(flat), PANEL))
        self.waiting = 0
        self.gone: list[int] = []

    def costs(self, units: int) -> Floats:
        """What each unit's loss would cost, [units]; 0 for units that this problem never reads."""
        W = self.W.reshape(len(self.units), self.b, -1)
        costs = np.zeros(units)
        # Both factors are positive semidefinite: negative is rounding.
        e = np.sum(np.linalg.inv(self.blocks) * (W @ W.transpose(0, 2, 1)), axis=(1, 2))
        costs[self.units] = np.maximum(e, 0)
        return costs

    def remove(self, chosen: Array) -> Floats:
        """Take out units, in this order; what each of them cost, [chosen]."""
        mine = np.flatnonzero(np.isin(chosen, self.units))
        costs = np.zeros(len(chosen))
        if not len(mine):
            return costs
        self._make_room(len(mine) * self.b)
        at = {int(u): i for i, u in enumerate(self.units)}
        local = np.array([at[int(chosen[i])] for i in mine])
        rows = (local[:, None] * self.b + np.arange(self.b)).reshape(-1)
        before = self.V[:, : self.waiting]
        columns = self.G[:, rows] - before @ before[rows].T
        L = cholesky(columns[rows])
        assert L is not None, "the inverse lost its positive definiteness"
        V = solve_lower(L, columns.T).T
        Z = solve_lower(L, self.W[rows])
        costs[mine] = np.sum(Z.reshape(len(mine), -1) ** 2, axis=1)
        self.W -= V @ Z
        self.W[rows] = 0
        self.V[:, self.waiting : self.waiting + len(rows)] = V
        self.waiting += len(rows)
        V = V.reshape(len(self.units), self.b, -1)
        self.blocks -= V @ V.transpose(0, 2, 1)
        self.blocks[local] = np.eye(self.b)
        self.gone.extend(int(i) for i in local)
        return costs

    def _make_room(self, columns: int) -> None:
        """Bring G up to date and forget the units that are gone, if V has no room for so many."""
        if self.waiting + columns <= self.V.shape[1]:
            return
        stay = np.delete(np.arange(len(self.units)), self.gone)
        rows = (stay[:, None] * self.b + np.arange(self.b)).reshape(-1)
        V = self.V[rows, : self.waiting]
        self.G = self.G[np.ix_(rows, rows)]
        self.G -= V @ V.T
        self.W, self.blocks, self.units = self.W[rows], self.blocks[stay], self.units[stay]
        self.V = np.zeros((len(rows), max(PANEL, columns)))
        self.waiting, self.gone = 0, []
