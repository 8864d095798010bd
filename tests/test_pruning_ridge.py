"""Ridge regression from moments is ridge regression on the rows, and bears singular moments."""

from __future__ import annotations

import numpy as np
import pytest
from cuts import errors
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.pruning.moments import Floats
from onnxopt.pruning.ridge import (
    invert_lower,
    solve,
    solve_lower,
    solve_upper,
)


def drawn(seed: int, rows: int, k: int, m: int) -> tuple[Floats, Floats, Floats]:
    """Correlated rows with the 1 of the bias last, noisy targets, and some old weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, k)) @ rng.standard_normal((k, k)) + rng.standard_normal(k)
    x = np.hstack([x, np.ones((rows, 1))])
    W = rng.standard_normal((k + 1, m))
    return x, x @ W + 0.1 * rng.standard_normal((rows, m)), W + 0.1 * rng.standard_normal(W.shape)


def moments(x: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    return x.T @ x / len(x), x.T @ t / len(x), np.mean(t**2, axis=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1e-3, 1.0]))
def test_ridge_is_least_squares_with_rows_added_for_the_pull(seed: int, strength: float) -> None:
    x, t, W0 = drawn(seed, 60, 7, 3)
    H, C, _ = moments(x, t)
    pull = np.sqrt(strength * np.mean(np.diagonal(H)[:-1]) * len(x)) * np.eye(8)[:-1]
    expected = np.linalg.lstsq(
        np.concatenate([x, pull]), np.concatenate([t, pull @ W0]), rcond=None
    )[0]
    np.testing.assert_allclose(solve(H, C, W0, strength=strength), expected, rtol=1e-5, atol=1e-6)


def test_without_a_pull_ridge_is_least_squares() -> None:
    x, t, W0 = drawn(0, 300, 200, 5)
    H, C, T = moments(x, t)
    expected = np.linalg.lstsq(x, t, rcond=None)[0]
    W = solve(H, C, W0, strength=0.0)
    np.testing.assert_allclose(W, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(errors(H, C, T, W), np.mean((x @ W - t) ** 2, axis=0), atol=1e-8)


@pytest.mark.parametrize("strength", [0.0, 1e-12, 1e-3])
def test_singular_moments_are_solved_without_a_warning(strength: float) -> None:
    x, _, W0 = drawn(1, 40, 6, 2)
    x[:, 1] = x[:, 0]  # twice the same
    x[:, 2] = 0  # dead
    x[:, 3] = 2  # constant, like the bias
    x[:, 4] *= 1e-9  # next to nothing
    t = x @ np.random.default_rng(2).standard_normal(W0.shape)
    H, C, T = moments(x, t)
    W = solve(H, C, W0, strength=strength)
    assert np.isfinite(W).all()
    assert errors(H, C, T, W).mean() <= 1e-4 * np.mean(T)


def test_nothing_but_zeros_keeps_the_old_weights() -> None:
    W0 = np.ones((4, 2))
    found = solve(np.zeros((4, 4)), np.zeros((4, 2)), W0, penalised=np.ones(4, bool))
    np.testing.assert_allclose(found, W0)
    assert np.isfinite(solve(np.zeros((4, 4)), np.zeros((4, 2)), W0, strength=0.0)).all()


def test_the_bias_is_not_pulled() -> None:
    x, t, _ = drawn(2, 100, 3, 2)
    H, C, _ = moments(x, t + 50)
    W = solve(H, C, np.zeros((4, 2)), strength=1e9)
    np.testing.assert_allclose(W[:-1], 0, atol=1e-6)
    np.testing.assert_allclose(W[-1], np.mean(t + 50, axis=0), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 100, 128, 300])
def test_triangular_solvers_solve(k: int) -> None:
    rng = np.random.default_rng(k)
    L = np.tril(rng.standard_normal((k, k))) / k + np.eye(k)
    B = rng.standard_normal((k, 4))
    np.testing.assert_allclose(L @ solve_lower(L, B), B, atol=1e-9)
    np.testing.assert_allclose(L.T @ solve_upper(L, B), B, atol=1e-9)
    np.testing.assert_allclose(L @ invert_lower(L), np.eye(k), atol=1e-9)
