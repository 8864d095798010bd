"""Each criterion orders units by what it looks at, and says so if that is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuts import channel_rows

from onnxopt.pruning.admm import admm_order
from onnxopt.pruning.criteria import CRITERIA, Criterion, order
from onnxopt.pruning.moments import Floats
from onnxopt.pruning.obs import joint_order
from onnxopt.pruning.problem import Problem, curve


def planted(seed: int, taps: int = 3) -> tuple[Problem, set[int]]:
    """Twelve channels, of unlike sizes; the target depends on five, the weights on all."""
    rng = np.random.default_rng(seed)
    k = 12 * taps
    x = rng.standard_normal((800, k)) @ (np.eye(k) + 0.3 * rng.standard_normal((k, k)) / k**0.5)
    x = x * np.repeat(np.exp(rng.standard_normal(12)), taps)
    x = np.hstack([x, np.ones((800, 1))])
    support = rng.choice(12, 5, replace=False)
    W = np.zeros((k + 1, 6))
    for channel in support:
        rows = slice(channel * taps, (channel + 1) * taps)
        W[rows] = rng.standard_normal((taps, 6)) / np.std(x[:, rows])
    t = x @ W + 0.05 * rng.standard_normal((800, 6))
    guess = rng.standard_normal(W.shape)
    moments = {"C": x.T @ t / 800, "T": np.mean(t**2, axis=0)}
    return Problem.of(x.T @ x / 800, guess, channel_rows(12, taps), **moments), set(support)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("widths", [None, [5]])
def test_admm_finds_the_planted_channels(seed: int, widths: list[int] | None) -> None:
    problem, support = planted(seed)
    found = admm_order([problem], strength=1e-6, widths=widths)
    assert set(found.units[-5:]) == support
    assert sorted(found.units) == list(range(12))
    np.testing.assert_array_equal(np.argsort(found.scores, kind="stable"), found.units)


def correlated(seed: int, channels: int = 24) -> Problem:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2000, 10)) @ rng.standard_normal((10, channels))
    x = np.maximum(x + rng.standard_normal((2000, channels)), 0)
    x = np.hstack([x, np.ones((2000, 1))])
    return Problem.of(
        x.T @ x / 2000, rng.standard_normal((channels + 1, 12)), channel_rows(channels)
    )


@pytest.mark.parametrize("seed", range(4))
def test_admm_is_nearly_as_good_as_obs_and_far_from_random(seed: int) -> None:
    problem = correlated(seed)
    areas = {
        name: float(np.mean(curve([problem], order(name, problems=[problem], seed=seed).units)))
        for name in ("obs", "admm", "random")
    }
    assert areas["obs"] <= areas["random"]
    assert areas["admm"] <= areas["obs"] + 0.2 * (areas["random"] - areas["obs"])


def test_admm_serves_several_consumers_and_dead_channels() -> None:
    first, support = planted(3)
    second = Problem.of(first.H, 100 * first.W, first.rows, C=100 * first.C, T=1e4 * first.T)
    assert set(admm_order([first, second], strength=1e-6).units[-5:]) == support
    rows = [r + 1 for r in channel_rows(2)]
    H = np.diag([2.0, 0.0, 1.0, 1.0])
    found = admm_order([Problem.of(H, np.ones((4, 2)), rows), Problem.of(H, np.ones((4, 2)), rows)])
    assert list(found.units) == [0, 1] and np.isfinite(found.scores).all()


FILTERS = np.array([[3.0, 0.0], [1.0, 1.1], [0.0, -2.5], [1.0, 1.0], [4.0, 4.0]])


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("l1", [3, 1, 2, 0, 4]), ("l2", [3, 1, 2, 0, 4]), ("fpgm", [3, 1, 0, 2, 4])],
)
def test_weights_alone_give_known_orders(criterion: Criterion, expected: list[int]) -> None:
    found = order(criterion, [FILTERS.reshape(5, 2, 1, 1)])
    assert list(found.units) == expected


def test_magnitudes_and_distances_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((7, 3, 2)), rng.standard_normal((7, 4))]
    rows = np.concatenate([p.reshape(7, -1) for p in parts], axis=1)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2).sum(axis=1)
    expected: dict[Criterion, Floats] = {
        "l1": np.abs(rows).sum(axis=1),
        "l2": np.linalg.norm(rows, axis=1),
        "fpgm": distances,
    }
    for criterion, scores in expected.items():
        np.testing.assert_allclose(order(criterion, parts).scores, scores)


def test_scales_of_a_batch_normalization_count_by_their_size() -> None:
    assert list(order("bn-scale", scales=np.array([-3.0, 0.1, 2.0])).units) == [1, 2, 0]
    assert list(order("bn-scale", scales=np.array([[1, -1], [0.1, 3], [0, 1]])).units) == [2, 0, 1]
    with pytest.raises(ValueError, match="BatchNormalization"):
        order("bn-scale", [FILTERS])


def test_random_orders_depend_on_the_seed_alone() -> None:
    orders = {seed: list(order("random", [FILTERS], seed=seed).units) for seed in range(20)}
    assert all(sorted(o) == [0, 1, 2, 3, 4] for o in orders.values())
    assert len({tuple(o) for o in orders.values()}) > 5
    assert orders[3] == list(order("random", units=5, seed=3).units)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_is_deterministic_and_orders_all_units(criterion: Criterion) -> None:
    problem = correlated(5)
    weights = np.random.default_rng(1).standard_normal((24, 10))
    given: dict[str, Any] = {"scales": weights[:, 0], "seed": 4}
    first, second = (order(criterion, [weights], [problem], **given) for _ in range(2))
    np.testing.assert_array_equal(first.units, second.units)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert sorted(first.units) == list(range(24))


def test_obs_is_block_obs() -> None:
    problem = correlated(6)
    expected = joint_order([problem]).units
    np.testing.assert_array_equal(order("obs", problems=[problem]).units, expected)


@pytest.mark.parametrize("criterion", ["obs", "admm", "l1", "l2", "fpgm", "random"])
def test_a_criterion_without_what_it_looks_at_says_so(criterion: Criterion) -> None:
    with pytest.raises(ValueError, match="needs"):
        order(criterion)
