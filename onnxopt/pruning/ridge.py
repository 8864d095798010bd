"""Least squares from moments alone: the weights that give the targets back from what is left.

W = argmin E||W'x - t||^2 + strength * scale * ||W - W0||^2, with H = E[x x'], C = E[x t'] and scale
the mean of H's diagonal: W = (H + D)^-1 (C + D W0), D diagonal and zero for rows that are not
penalised (the bias). See He, Zhang and Sun, "Channel pruning for accelerating very deep neural
networks" (ICCV 2017), section 3.1, for the reconstruction; the pull towards W0 is ours. Shapes: H
[k, k], C, W0 and W [k, m], T [m]. Nothing here warns or raises on singular moments.
"""

from __future__ import annotations

import numpy as np

from onnxopt.pruning.moments import Array, Floats

STRENGTH = 1e-3
"""Strength of the pull towards the old weights, relative to the mean of H's diagonal."""

FLOOR = 1e-10
"""The least damping, relative to the mean of H's diagonal, where a matrix must be inverted."""

PANEL = 128


def damping(
    diagonal: Array,
    *,
    strength: float = STRENGTH,
    penalised: Array | None = None,
    scale: float | None = None,
) -> Floats:
    """The diagonal D [k]: strength * scale on the rows of the mask `penalised`, 0 on the others.

    diagonal: H's, [k]. penalised: all rows but the last, the bias, if None. scale: the mean of the
    diagonal over the penalised rows if None, or 1 where that is zero.
    """
    k = len(diagonal)
    mask = np.arange(k) < k - 1 if penalised is None else np.asarray(penalised, np.bool_)
    if scale is None:
        scale = float(np.mean(diagonal[mask])) if mask.any() else 0.0
    return np.where(mask, strength * (scale if scale > 0 else 1.0), 0.0)


def solve(
    H: Floats,
    C: Floats,
    W0: Floats,
    *,
    strength: float = STRENGTH,
    penalised: Array | None = None,
    scale: float | None = None,
) -> Floats:
    """The weights W [k, m] of the module's formula; the options are those of `damping`."""
    D = damping(np.diagonal(H), strength=strength, penalised=penalised, scale=scale)
    W0 = np.asarray(W0, np.float64)
    # Solving for the change keeps small what H does not determine.
    return np.asarray(W0 + solve_positive(H + np.diag(D), C - H @ W0))


def solve_positive(A: Floats, B: Floats) -> Floats:
    """A^-1 B for a positive definite A [k, k], or about that if it is singular. B is [k, m]."""
    if not len(A):
        return np.zeros(B.shape)
    # Unit diagonal: a channel that is a million times smaller than others counts as much.
    size = np.sqrt(np.maximum(np.diagonal(A), 0))
    size = np.where(size > 0, size, 1.0)
    L = cholesky(A / np.outer(size, size))
    if L is None:
        with np.errstate(all="ignore"):
            return np.asarray(np.nan_to_num(np.linalg.lstsq(A, B, rcond=None)[0]))
    scaled = solve_lower(L, B / size[:, None])
    return np.asarray(solve_upper(L, scaled) / size[:, None])


def cholesky(A: Floats) -> Floats | None:
    """The lower factor of A, with as little added to its diagonal as it takes; None if hopeless."""
    if not np.isfinite(A).all():
        return None
    scale = float(np.mean(np.diagonal(A))) or 1.0
    for jitter in (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4):
        try:
            raised = A + jitter * scale * np.eye(len(A)) if jitter else A
            return np.asarray(np.linalg.cholesky(raised), np.float64)
        except np.linalg.LinAlgError:
            continue
    return None


def solve_lower(L: Floats, B: Floats) -> Floats:
    """L^-1 B for a lower triangular L [k, k]: numpy has no such solver, this is panels of it."""
    X = np.array(B, np.float64)
    for start in range(0, len(L), PANEL):
        stop = start + PANEL
        X[start:stop] = np.linalg.solve(L[start:stop, start:stop], X[start:stop])
        X[stop:] -= L[stop:, start:stop] @ X[start:stop]
    return X


def solve_upper(L: Floats, B: Floats) -> Floats:
    """L'^-1 B for a lower triangular L [k, k]."""
    X = np.array(B, np.float64)
    for start in reversed(range(0, len(L), PANEL)):
        stop = start + PANEL
        X[start:stop] = np.linalg.solve(L[start:stop, start:stop].T, X[start:stop])
        X[:start] -= L[start:stop, :start].T @ X[start:stop]
    return X


def invert_lower(L: Floats) -> Floats:
    """L^-1 for a lower triangular L [k, k]."""
    X = np.zeros(L.shape)
    for start in range(0, len(L), PANEL):
        stop = min(start + PANEL, len(L))
        rest = -(L[start:stop, :start] @ X[:start, :start])
        block = np.concatenate([rest, np.eye(stop - start)], axis=1)
        X[start:stop, :stop] = np.tril(np.linalg.solve(L[start:stop, start:stop], block), start)
    return X
