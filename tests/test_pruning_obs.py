"""Block OBS removes what costs least, and the errors it tells are those of least squares."""

from __future__ import annotations

import numpy as np
import pytest
from cuts import channel_rows, errors
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.pruning.moments import Array, Floats, Moments
from onnxopt.pruning.obs import joint_order
from onnxopt.pruning.problem import Problem, curve

TINY = 1e-8


def rows_of(rng: np.random.Generator, count: int, k: int) -> Floats:
    """Correlated rows, some inputs much larger than others, the 1 of the bias last."""
    x = rng.standard_normal((count, k)) @ (np.eye(k) + rng.standard_normal((k, k)) / k**0.5)
    x = (x + rng.standard_normal(k)) * np.exp(rng.standard_normal(k))
    return np.hstack([x, np.ones((count, 1))])


def problem(x: Floats, W: Floats, rows: list[Array], t: Floats | None = None) -> Problem:
    H = x.T @ x / len(x)
    if t is None:
        return Problem.of(H, W, rows)
    return Problem.of(H, W, rows, C=x.T @ t / len(x), T=np.mean(t**2, axis=0))


def drawn(seed: int, channels: int = 6, taps: int = 3, m: int = 4, off: float = 0.0) -> Problem:
    rng = np.random.default_rng(seed)
    x = rows_of(rng, 400, channels * taps)
    W = rng.standard_normal((x.shape[1], m))
    t = x @ W + off * rng.standard_normal((len(x), m)) if off else None
    return problem(x, W, channel_rows(channels, taps), t)


def least(problem: Problem, gone: Array) -> float:
    """The least relative error that any weights reach without the rows of some units."""
    kept = problem.kept_rows(gone)
    H, C = problem.H[np.ix_(kept, kept)], problem.C[kept]
    best = np.sum(C * np.linalg.lstsq(H, C, rcond=None)[0])
    return float(np.sum(problem.T) - best) / problem.variance


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3]))
def test_each_step_removes_the_channel_without_which_least_squares_does_best(
    seed: int, off: float
) -> None:
    one = drawn(seed, off=off)
    order = joint_order([one], strength=TINY)
    assert sorted(order.units) == list(range(6))
    for step in range(6):
        gone = order.units[:step]
        rest = {u: least(one, np.append(gone, u)) for u in range(6) if u not in gone}
        assert rest[int(order.units[step])] <= min(rest.values()) * (1 + 1e-4) + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3]))
def test_the_curve_is_the_least_squares_error_of_what_is_kept(seed: int, off: float) -> None:
    one = drawn(seed, off=off)
    order = joint_order([one], strength=TINY)
    expected = [least(one, order.units[:n]) for n in range(7)]
    found = curve([one], order.units, strength=TINY)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    steps = np.diff(expected)
    np.testing.assert_allclose(order.scores[order.units], steps, rtol=1e-3, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1e-1]))
def test_the_curve_is_the_error_of_the_weights_that_are_given(seed: int, strength: float) -> None:
    one = drawn(seed, off=0.2)
    units = np.random.default_rng(seed).permutation(6)
    found = curve([one], units, strength)
    for n in range(7):
        W = one.weights(units[:n], strength)
        assert not W[np.setdiff1d(np.arange(19), one.kept_rows(units[:n]))].any()
        lost = float(np.sum(errors(one.H, one.C, one.T, W))) / one.variance
        assert lost == pytest.approx(found[n], rel=1e-6, abs=1e-9)


def test_weights_are_ridge_regression_on_the_kept_rows() -> None:
    rng = np.random.default_rng(0)
    x = rows_of(rng, 300, 12)
    W0 = rng.standard_normal((13, 2))
    t = x @ W0
    one = problem(x, W0, channel_rows(4, 3), t)
    kept = np.array([0, 1, 2, 9, 10, 11, 12])
    scale = np.mean(np.diagonal(x.T @ x / 300)[:-1])
    pull = np.sqrt(1e-3 * scale * 300) * np.eye(7)[:-1]
    rows, targets = np.concatenate([x[:, kept], pull]), np.concatenate([t, pull @ W0[kept]])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0]
    np.testing.assert_allclose(one.weights(np.array([1, 2]))[kept], expected, rtol=1e-7)


def test_duplicates_and_constants_go_first_and_cost_nothing() -> None:
    rng = np.random.default_rng(1)
    x = rows_of(rng, 500, 5 * 4)
    x = x / np.sqrt(np.mean(x**2, axis=0))
    x[:, 8:12] = x[:, 0:4]  # channel 2 is channel 0
    x[:, 16:20] = 1  # channel 4 does not vary
    one = problem(x, rng.standard_normal((21, 8)), channel_rows(5, 4))
    order = joint_order([one])
    assert set(order.units[:2]) in ({0, 4}, {2, 4})
    errors = curve([one], order.units)
    assert errors[2] < 1e-4 < 1e-2 < errors[3]


def test_dead_channels_go_before_all_others() -> None:
    rng = np.random.default_rng(2)
    x = rows_of(rng, 500, 5 * 2)
    x[:, 2:4] = x[:, 8:10] = 0
    one = problem(x, 1e3 * rng.standard_normal((11, 3)), channel_rows(5, 2))
    order = joint_order([one])
    assert list(order.units[:2]) == [1, 4]
    assert not order.scores[[1, 4]].any()
    assert curve([one], order.units)[2] < 1e-9


@pytest.mark.parametrize("strength", [0.0, 1e-3])
def test_nothing_is_ever_infinite(strength: float) -> None:
    rng = np.random.default_rng(3)
    x = rows_of(rng, 8, 30)  # fewer rows than inputs
    x[:, 5] *= 1e8
    x[:, 6] *= 1e-12
    one = problem(x, rng.standard_normal((31, 4)), channel_rows(10, 3))
    zero = Problem.of(np.zeros((31, 31)), np.zeros((31, 4)), channel_rows(10, 3))
    for problems in ([one], [zero], [one, zero]):
        order = joint_order(problems, strength=strength)
        assert sorted(order.units) == list(range(10))
        assert np.isfinite(order.scores).all()
        errors = curve(problems, order.units, strength)
        assert np.isfinite(errors).all()
        for n in range(11):
            assert np.isfinite(one.weights(order.units[:n], strength)).all()


def test_without_inputs_only_the_mean_is_left() -> None:
    one = drawn(4)
    assert curve([one], np.arange(6))[-1] == pytest.approx(1)
    np.testing.assert_allclose(one.weights(np.arange(6))[-1], one.C[-1], rtol=1e-9)


def test_units_may_be_sets_of_channels_and_of_different_sizes() -> None:
    rng = np.random.default_rng(5)
    x = rows_of(rng, 500, 9 * 2)
    W = rng.standard_normal((19, 30))  # more outputs than inputs
    rows = channel_rows([np.array([0, 5]), np.array([2]), np.array([8, 1, 3])], taps=2)
    one = problem(x, W, rows)
    assert list(one.fixed) == [8, 9, 12, 13, 14, 15, 18]  # channels 4, 6 and 7, and the bias
    order = joint_order([one], strength=TINY)
    expected = [least(one, order.units[:n]) for n in range(4)]
    np.testing.assert_allclose(curve([one], order.units, TINY), expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.cumsum(order.scores[order.units]), expected[1:], rtol=1e-3)


def test_several_consumers_count_together_each_by_its_own_variance() -> None:
    first, second = drawn(6, taps=3), drawn(7, taps=1, m=9)
    loud = Problem.of(first.H, 1e4 * first.W, first.rows)
    order = joint_order([loud, second], strength=TINY)
    assert list(order.units) == list(joint_order([first, second], strength=TINY).units)
    for step in range(6):
        gone = order.units[:step]
        rest = {
            u: sum(least(p, np.append(gone, u)) for p in (first, second))
            for u in range(6)
            if u not in gone
        }
        assert rest[int(order.units[step])] <= min(rest.values()) * (1 + 1e-4) + 1e-6
    total = [sum(least(p, order.units[:n]) for p in (first, second)) for n in range(7)]
    np.testing.assert_allclose(
        curve([loud, second], order.units, TINY), total, rtol=1e-3, atol=1e-6
    )


def test_groups_that_read_some_of_the_units_are_consumers_like_others() -> None:
    rng = np.random.default_rng(8)
    x = rows_of(rng, 400, 6)
    W = rng.standard_normal((7, 5))
    whole = problem(x, W, channel_rows(6))
    none: list[Array] = [np.zeros(0, np.int64)] * 3
    halves = [
        problem(x[:, [0, 1, 2, 6]], W[[0, 1, 2, 6]], channel_rows(3) + none),
        problem(x[:, [3, 4, 5, 6]], W[[3, 4, 5, 6]], none + channel_rows(3)),
    ]
    order = joint_order(halves)
    assert sorted(order.units) == sorted(joint_order([whole]).units)
    errors = curve(halves, order.units)
    assert errors[0] == pytest.approx(0, abs=1e-9) and errors[-1] == pytest.approx(2)


@pytest.mark.parametrize("batch", [1, 8])
def test_orders_of_many_units_cost_what_the_curve_says(batch: int) -> None:
    rng = np.random.default_rng(9)
    x = rows_of(rng, 2000, 300 * 2)
    one = problem(x, rng.standard_normal((601, 8)), channel_rows(300, 2))
    order = joint_order([one], strength=TINY, batch=batch, batch_above=100)
    assert sorted(order.units) == list(range(300))
    errors = curve([one], order.units, TINY)
    np.testing.assert_allclose(
        np.cumsum(order.scores[order.units]), errors[1:], rtol=1e-3, atol=1e-6
    )
    arbitrary = curve([one], np.arange(300), TINY)
    assert errors[150] < 0.5 * arbitrary[150]


def test_float32_moments_are_good_enough() -> None:
    rng = np.random.default_rng(10)
    x = np.maximum(rows_of(rng, 6000, 40)[:, :-1], 0)
    x[:, 7] = x[:, 3]
    W = rng.standard_normal((41, 5))
    t = x @ W[:-1] + W[-1]
    moments = Moments(40, 5)
    moments.add(x.astype(np.float32), t.astype(np.float32))
    measured = Problem.of(moments.H, W, channel_rows(40), C=moments.C, T=moments.T)
    exact = problem(np.hstack([x, np.ones((6000, 1))]), W, channel_rows(40))
    order = joint_order([measured]).units
    assert order[0] in (3, 7)
    np.testing.assert_allclose(curve([measured], order), curve([exact], order), atol=1e-5)
    assert sum(curve([exact], order)) == pytest.approx(
        sum(curve([exact], joint_order([exact]).units)), rel=1e-2
    )


def test_units_that_share_rows_or_hold_the_bias_are_refused() -> None:
    H, W = np.eye(4), np.ones((4, 2))
    with pytest.raises(AssertionError, match="share rows"):
        Problem.of(H, W, [np.array([0, 1]), np.array([1])])
    with pytest.raises(AssertionError, match="bias"):
        Problem.of(H, W, [np.array([3])])
