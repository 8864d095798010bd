"""One consumer of a group of channels: its moments, its weights, and the error of what is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxopt.pruning.moments import Array, Floats, Indices
from onnxopt.pruning.ridge import (
    FLOOR,
    STRENGTH,
    cholesky,
    damping,
    invert_lower,
    solve,
    solve_lower,
)


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer W [k, m] that reads rows x [k], some of which go when a unit of channels goes.

    H = E[x x'] [k, k]. C = E[x t'] [k, m] and T = diag E[t t'] [m] describe its target t; without
    them the target is what it gives today, W'x. rows: for each unit the rows of x that go with it,
    disjoint; none for a unit that this layer does not read (one of several groups, say). Rows of
    no unit always stay. bias: the last row of x is the constant 1.
    """

    H: Floats
    W: Floats
    rows: Sequence[Indices]
    C: Floats
    T: Floats
    bias: bool = True
    weight: float = 1.0
    """What this layer's relative error counts in sums over several layers."""

    @staticmethod
    def of(
        H: Floats,
        W: Array,
        rows: Sequence[Indices],
        *,
        C: Floats | None = None,
        T: Floats | None = None,
        bias: bool = True,
        weight: float = 1.0,
    ) -> Problem:
        """A problem from arrays of any float type; C and T both or neither."""
        H, W = np.asarray(H, np.float64), np.asarray(W, np.float64)
        assert H.shape == (len(W), len(W)), (H.shape, W.shape)
        assert (C is None) == (T is None), "a target is both C and T"
        C = H @ W if C is None else np.asarray(C, np.float64)
        T = np.sum(W * C, axis=0) if T is None else np.asarray(T, np.float64)
        assert C.shape == W.shape and T.shape == W.shape[1:], (C.shape, T.shape, W.shape)
        rows = [np.asarray(r, np.int64) for r in rows]
        named = np.concatenate([*rows, np.zeros(0, np.int64)])
        assert len(np.unique(named)) == len(named), "units share rows"
        assert not (bias and len(H) - 1 in named), "the bias is in a unit"
        return Problem(H, W, rows, C, T, bias, weight)

    @cached_property
    def penalised(self) -> Array:
        """The mask [k] of rows that damping is for: all but the bias."""
        return np.arange(len(self.H)) < len(self.H) - int(self.bias)

    @cached_property
    def scale(self) -> float:
        """What damping is relative to: the mean of H's diagonal, 1 if that is zero."""
        mean = float(np.mean(np.diagonal(self.H)[self.penalised])) if self.penalised.any() else 0.0
        return mean if mean > 0 else 1.0

    @cached_property
    def variance(self) -> float:
        """The variance of the target, all outputs together.

        Where the target does not vary its mean square stands in, and 1 where it is all zero.
        """
        power = float(np.sum(self.T))
        spread = float(np.sum(self.T - self.C[-1] ** 2)) if self.bias else power
        return spread if spread > 1e-9 * power else power if power > 0 else 1.0

    @cached_property
    def fixed(self) -> Indices:
        """Rows of no unit, the bias among them; they always stay."""
        free = np.ones(len(self.H), np.bool_)
        free[np.concatenate([*self.rows, np.zeros(0, np.int64)])] = False
        return np.flatnonzero(free)

    def dead(self) -> Array:
        """Which units this layer reads only zeros from, or not at all: mask [units]."""
        level = np.diagonal(self.H)
        return np.array([bool(np.all(level[r] <= 1e-14 * self.scale)) for r in self.rows], np.bool_)

    def pull(self, strength: float) -> Floats:
        """The diagonal [k] that damping adds to H."""
        return damping(
            np.diagonal(self.H),
            strength=max(strength, FLOOR),
            penalised=self.penalised,
            scale=self.scale,
        )

    def kept_rows(self, gone: Array) -> Indices:
        """The rows that stay when the units `gone` go, ascending."""
        kept = np.ones(len(self.H), np.bool_)
        for unit in gone:
            kept[self.rows[int(unit)]] = False
        return np.flatnonzero(kept)

    def weights(self, gone: Array, strength: float = STRENGTH) -> Floats:
        """The weights [k, m] that make up best for the loss of units; zero in their rows."""
        kept = self.kept_rows(gone)
        W = np.zeros(self.W.shape)
        W[kept] = solve(
            self.H[np.ix_(kept, kept)],
            self.C[kept],
            self.W[kept],
            strength=max(strength, FLOOR),
            penalised=self.penalised[kept],
            scale=self.scale,
        )
        return W

    def curve(self, order: Array, strength: float = STRENGTH) -> Floats:
        """What weights(order[:n]) lose for n = 0 ... units, [units + 1], all at once.

        That is the squared error in all outputs, as a share of their variance.

        With L the Cholesky factor of H + D whose rows are ordered so that what goes first is
        last, each leading block of L belongs to one n, and so do the leading rows of
        Z = L^-1 (C + D W0). The weights are L'^-1 Z; their pull towards W0 is taken out again.
        """
        sizes = [len(self.rows[int(u)]) for u in order]
        gone = [self.rows[int(u)] for u in order[::-1]]
        rows = np.concatenate([self.fixed, *gone]).astype(np.int64)
        D = self.pull(strength)[rows, None]
        L = cholesky(self.H[np.ix_(rows, rows)] + np.diag(D[:, 0]))
        assert L is not None, "moments are not positive semidefinite"
        Z = solve_lower(L, self.C[rows] + D * self.W[rows])
        M = invert_lower(L)
        pulls = np.tril((M * D.T) @ M.T) * (Z @ Z.T)
        W_pull = M @ (D * self.W[rows])
        diagonal = np.diagonal(pulls)
        gains = np.sum(Z * (Z - 2 * W_pull), axis=1) + 2 * np.sum(pulls, axis=1) - diagonal
        kept = len(rows) - np.cumsum([0, *sizes])
        left = np.sum(self.T) - np.concatenate([[0.0], np.cumsum(gains)])[kept]
        return np.asarray(np.maximum(left, 0) / self.variance)


@dataclass(frozen=True, eq=False)
class Order:
    """In which order units go: the first first."""

    units: Indices
    """All units, [units], the least important first."""
    scores: Floats
    """For each unit, by its number, what the criterion makes of it; small goes first."""


def curve(problems: Sequence[Problem], order: Array, strength: float = STRENGTH) -> Floats:
    """E(n) for n = 0 ... units, [units + 1]: what is lost after refits when order[:n] are gone.

    The sum over the problems of weight times the squared error relative to the output's variance.
    """
    total = np.zeros(len(order) + 1)
    for problem in problems:
        total += problem.weight * problem.curve(order, strength)
    return total
