"""Ridge regression from moments is ridge regression on the rows, and bears singular moments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.pruning.moments import Array, Floats
from onnxopt.pruning.ridge import (
    error,
    errors,
    invert_lower,
    restrict,
    solve,
    solve_cg,
    solve_depthwise,
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
    assert error(H, C, T, W) == pytest.approx(np.mean((x @ W - t) ** 2), abs=1e-8)


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
    assert error(H, C, T, W) <= 1e-4 * np.mean(T)


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


def depthwise(seed: int) -> tuple[Floats, Floats, Floats]:
    parts = [drawn(seed + i, 50, 9, 2) for i in range(5)]
    both = [moments(x, t) for x, t, _ in parts]
    H, C = (np.stack([b[i] for b in both]) for i in (0, 1))
    return H, C, np.stack([W0 for _, _, W0 in parts])


def test_depthwise_ridge_is_ridge_for_each_channel() -> None:
    H, C, W0 = depthwise(3)
    found = solve_depthwise(H, C, W0)
    for index in range(5):
        np.testing.assert_allclose(found[index], solve(H[index], C[index], W0[index]), rtol=1e-7)


def test_one_dead_channel_does_not_spoil_depthwise_ridge() -> None:
    H, C, W0 = depthwise(4)
    H[2] = C[2] = 0
    found = solve_depthwise(H, C, W0, strength=0.0)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[2], W0[2])
    np.testing.assert_allclose(found[0], solve(H[0], C[0], W0[0], strength=0.0), rtol=1e-6)
    assert solve_depthwise(H[:0], C[:0], W0[:0]).shape == (0, 10, 2)


@pytest.mark.parametrize("form", ["matrix", "blocks", "function"])
def test_conjugate_gradients_find_what_a_factorisation_finds(form: str) -> None:
    x, t, W0 = drawn(5, 400, 60, 4)
    H, C, _ = moments(x, t)
    expected = solve(H, C, W0)
    options: dict[str, Any] = {"tolerance": 1e-10, "iterations": 1000}
    if form == "function":
        found = solve_cg(
            lambda P: x.T @ (x @ P) / len(x), C, W0, diagonal=np.diagonal(H), **options
        )
    elif form == "blocks":
        blocks = [np.arange(i, i + 6) for i in range(0, 60, 6)]
        found = solve_cg(H, C, W0, blocks=blocks, **options)
    else:
        found = solve_cg(H, C, W0, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_conjugate_gradients_stopped_early_are_no_worse_than_the_old_weights() -> None:
    x, t, W0 = drawn(6, 400, 60, 4)
    H, C, T = moments(x, t)
    worse = error(H, C, T, W0)
    for iterations in (0, 1, 3, 10):
        W = solve_cg(H, C, W0, iterations=iterations)
        assert error(H, C, T, W) <= worse * (1 + 1e-9)
        worse = error(H, C, T, W)


def test_conjugate_gradients_bear_zeros() -> None:
    zeros: Array = np.zeros((3, 2))
    assert np.isfinite(solve_cg(np.zeros((3, 3)), zeros, zeros + 1, strength=0.0)).all()


def test_restricted_moments_are_those_of_the_kept_rows() -> None:
    x, t, W0 = drawn(7, 50, 6, 2)
    H, C, _ = moments(x, t)
    keep = np.array([0, 3, 6])
    expected = (*moments(x[:, keep], t)[:2], W0[keep])
    for found, wanted in zip(restrict(H, C, W0, keep), expected, strict=True):
        np.testing.assert_allclose(found, wanted)
