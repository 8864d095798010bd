"""Least squares from moments alone: the weights that give the targets back from what is left.

W = argmin E||W'x - t||^2 + strength * scale * ||W - W0||^2, with H = E[x x'], C = E[x t'] and scale
the mean of H's diagonal: W = (H + D)^-1 (C + D W0), D diagonal and zero for rows that are not
penalised (the bias). See He, Zhang and Sun, "Channel pruning for accelerating very deep neural
networks" (ICCV 2017), section 3.1, for the reconstruction; the pull towards W0 is ours. Shapes: H
[k, k], C, W0 and W [k, m], T [m]. Nothing here warns or raises on singular moments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxopt.pruning.moments import Array, Floats, Indices

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


def solve_depthwise(
    H: Floats, C: Floats, W0: Floats, *, strength: float = STRENGTH, bias: bool = True
) -> Floats:
    """The same for each group alone: H [g, k, k], C, W0 and the result [g, k, m].

    bias: the last of the k rows is the bias and not penalised. The scale is each group's own.
    """
    k = H.shape[-1]
    penalised = np.arange(k) < k - 1 if bias else np.ones(k, np.bool_)
    W0 = np.asarray(W0, np.float64)
    pull = [damping(np.diagonal(h), strength=strength, penalised=penalised) for h in H]
    A = H + np.reshape(pull, (len(H), k, 1)) * np.eye(k)
    rest = C - H @ W0
    try:
        np.linalg.cholesky(A)  # only to know that all are positive definite
        return W0 + np.linalg.solve(A, rest)
    except np.linalg.LinAlgError:
        return W0 + np.stack([solve_positive(a, r) for a, r in zip(A, rest, strict=True)])


def solve_cg(
    H: Floats | Callable[[Floats], Floats],
    C: Floats,
    W0: Floats,
    *,
    diagonal: Floats | None = None,
    blocks: Sequence[Indices] | None = None,
    strength: float = STRENGTH,
    penalised: Array | None = None,
    tolerance: float = 1e-6,
    iterations: int = 200,
) -> Floats:
    """The same as `solve`, by conjugate gradients from W0: for k where k^3 is too much.

    H: the matrix, or a function from P [k, m] to H P (say x'(x P) / rows), and then with H's
    `diagonal` [k]. All columns go together, each with its own steps, so that the work is in matrix
    products. blocks: sets of rows (those of a tap, or of a channel) whose blocks of H precondition;
    the diagonal if None. Ends where each residual is below tolerance times the first; stopping
    earlier, at `iterations`, leaves W nearer to W0, and never worse than W0.
    """
    product = H if callable(H) else lambda P: np.asarray(H @ P)
    if diagonal is None:
        assert not callable(H), "a function for H needs its diagonal"
        diagonal = np.diagonal(H)
    D = damping(diagonal, strength=strength, penalised=penalised)[:, None]
    precondition = _preconditioner(H, diagonal[:, None] + D, D, blocks)
    W = np.array(W0, np.float64)
    R = C - product(W)
    Z = precondition(R)
    P, rz = Z, np.sum(R * Z, axis=0)
    goal = tolerance**2 * rz
    for _ in range(iterations):
        active = (rz > goal) & (rz > 0)
        if not active.any():
            break
        HP = product(P) + D * P
        curvature = np.sum(P * HP, axis=0)
        active &= curvature > 0
        step = np.where(active, rz, 0) / np.where(active, curvature, 1)
        W += step * P
        R -= step * HP
        Z = precondition(R)
        rz, before = np.sum(R * Z, axis=0), rz
        P = np.where(active, Z + P * (rz / np.where(before > 0, before, 1)), 0)
    return W


def _preconditioner(
    H: Floats | Callable[[Floats], Floats],
    diagonal: Floats,
    D: Floats,
    blocks: Sequence[Indices] | None,
) -> Callable[[Floats], Floats]:
    """Multiplies by the inverse of H + D's diagonal, or of its blocks."""
    inverse = 1 / np.where(diagonal > 0, diagonal, 1)
    if blocks is None:
        return lambda R: inverse * R
    assert not callable(H), "blocks of H need the matrix"
    solvers = []
    for rows in blocks:
        block = H[np.ix_(rows, rows)] + np.diag(D[rows, 0] + FLOOR * diagonal[rows, 0])
        solvers.append((rows, solve_positive(block, np.eye(len(rows)))))

    def apply(R: Floats) -> Floats:
        Z = inverse * R
        for rows, solver in solvers:
            Z[rows] = solver @ R[rows]
        return Z

    return apply


def errors(H: Floats, C: Floats, T: Floats, W: Floats) -> Floats:
    """E (w'x - t)^2 of each output, [m], in the square of the outputs' unit."""
    W = np.asarray(W, np.float64)
    return np.asarray(np.maximum(np.sum(W * (H @ W - 2 * C), axis=0) + T, 0))


def error(H: Floats, C: Floats, T: Floats, W: Floats) -> float:
    """The mean squared error, over all outputs."""
    return float(np.mean(errors(H, C, T, W))) if len(T) else 0.0


def restrict(H: Floats, C: Floats, W: Floats, keep: Array) -> tuple[Floats, Floats, Floats]:
    """H, C and W of the rows `keep` alone, indices into k; keep the bias by naming it."""
    return H[np.ix_(keep, keep)], C[keep], W[keep]
