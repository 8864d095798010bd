from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from onnxopt.splitting.context import Box, Context, Point, latency_s
from onnxopt.splitting.estimation import LinkEstimate
from onnxopt.splitting.switching import (
    FIRST_BACK_OFF_S,
    LONGEST_BACK_OFF_S,
    PATIENCE,
    Adapter,
)

POINTS = (
    Point(0.001, 0.002, 600e3, 4000, True),
    Point(0.010, 0.0015, 150e3, 4000, True),
    Point(0.030, 0.001, 30e3, 4000, True),
    Point(0.100, 0.0, 0.0, 0.0, False),
)
RATES = (1.1e6, 5.85e6, 18.88e6, 100e6, 1e9)


def _at(bandwidth_bits: float, **rest: float) -> Context:
    return Context(bandwidth_bits, **{"rtt_s": 0.02, **rest})


class _World:
    """Requests in conditions that are known here and not to the adapter."""

    def __init__(self, adapter: Adapter, clock: list[float], noise: float, seed: int) -> None:
        self.adapter, self.clock, self.noise = adapter, clock, noise
        self.draw = random.Random(seed)
        self.cuts: list[int] = []

    def request(self, context: Context) -> float:
        """One request; what it took by the conditions, without noise."""
        cut = self.adapter.choose()
        point = self.adapter.points[cut]
        off = [self.draw.lognormvariate(0, self.noise) for _ in range(3)]
        device = context.device_load * point.device_s * off[0]
        edge = context.edge_load * point.edge_s * off[1]
        moved = (point.sent_bytes + point.back_bytes) * context.seconds_per_byte
        wire = (context.rtt_s + moved) * off[2] if point.is_remote else 0.0
        self.adapter.observe(
            bytes_sent=point.sent_bytes,
            bytes_received=point.back_bytes,
            wall_s=wire + edge,
            device_s=device,
            edge_s=edge,
            cut=cut,
        )
        self.clock[0] += device + wire + edge
        self.cuts.append(cut)
        return latency_s(point, context)


def _world(start: Context, noise: float = 0.0, seed: int = 0) -> _World:
    clock = [0.0]
    return _World(Adapter(POINTS, start, clock=lambda: clock[0]), clock, noise, seed)


def _regret(world: _World, trace: Sequence[Context]) -> float:
    """Time of all requests by that of the best cut at each, less 1."""
    taken = sum(world.request(context) for context in trace)
    return taken / sum(min(latency_s(p, context) for p in POINTS) for context in trace) - 1


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("rate", RATES)
def test_in_steady_conditions_little_is_lost(rate: float, noise: float) -> None:
    world = _world(_at(rate), noise)
    assert _regret(world, [_at(rate)] * 1000) < 0.06


@pytest.mark.parametrize("first", RATES)
@pytest.mark.parametrize("then", RATES)
def test_after_a_change_of_the_link_the_best_cut_or_almost_is_found(
    first: float, then: float
) -> None:
    world = _world(_at(first))
    _regret(world, [_at(first)] * 100)
    _regret(world, [_at(then)] * 700)
    assert _regret(world, [_at(then)] * 200) < 0.08


def test_the_times_of_an_adapter_are_those_of_its_points() -> None:
    adapter = Adapter(POINTS, _at(1e7))
    for rate in RATES:
        context = Context(rate, 0.03, 1.5, 2.5)
        expected = [latency_s(point, context) for point in POINTS]
        assert adapter.times(context) == pytest.approx(expected, rel=1e-12)
        assert adapter.best(context) == expected.index(min(expected))


def test_a_loaded_edge_and_a_loaded_device_are_noticed() -> None:
    world = _world(_at(1e9))
    assert world.adapter.cut == 0
    busy = _at(1e9, edge_load=100.0)
    _regret(world, [busy] * 200)
    assert _regret(world, [busy] * 100) < 0.05
    assert world.adapter.context.rtt_s < 0.03  # what the edge computes is not the link's
    world = _world(_at(3e6))
    busy = _at(3e6, device_load=20.0)
    _regret(world, [busy] * 500)
    assert _regret(world, [busy] * 100) < 0.05


def test_there_are_never_more_changes_than_what_was_lost_pays_for() -> None:
    """Each costs the cut before it a share of a request that was lost by estimate."""
    adapter = Adapter(POINTS, _at(20e6), trials=0.0)
    draw = random.Random(1)
    lost = 0.0
    for _ in range(3000):
        times = adapter.times()
        lost += (times[adapter.cut] - min(times)) / min(times)
        adapter.choose()
        conditions = _at(10 ** draw.uniform(6, 9))
        point = POINTS[adapter.cut]
        wire = latency_s(point, conditions) - point.device_s - point.edge_s
        adapter.observe(
            bytes_sent=point.sent_bytes,
            bytes_received=point.back_bytes,
            wall_s=wire + point.edge_s,
            device_s=point.device_s,
            edge_s=point.edge_s,
            cut=adapter.cut,
        )
    assert 0 < adapter.switches <= lost / PATIENCE


def test_two_cuts_that_are_as_good_as_each_other_do_not_take_turns() -> None:
    points = (Point(0.01, 0.01, 1000, 0, True), Point(0.0101, 0.0099, 1000, 0, True))
    clock = [0.0]
    world = _World(Adapter(points, _at(1e7), clock=lambda: clock[0]), clock, 0.3, 1)
    for _ in range(2000):
        world.request(_at(1e7))
    assert world.adapter.switches <= 2000 * 0.3 * 0.02 / PATIENCE


def test_after_a_change_the_sum_starts_from_zero() -> None:
    points = (Point(1.0, 0.0, 0.0, 0.0, True), Point(0.0, 1.0, 0.0, 0.0, True))
    adapter = Adapter(points, _at(1e9, rtt_s=0.0), start=0, trials=0.0)

    def chosen(edge_load: float) -> int:
        adapter._context = _at(1e9, rtt_s=0.0, edge_load=edge_load)
        return adapter.choose()

    assert [chosen(0.89) for _ in range(3)] == [0, 0, 1]
    assert [chosen(1.1) for _ in range(4)] == [1, 1, 0, 0]


def test_a_small_gain_is_taken_once_it_adds_up_and_a_large_one_at_once() -> None:
    start = _at(1e6)
    for gain, most in ((0.5, 1), (0.05, 7)):
        points = (Point(0.1, 0.0, 0, 0, False), Point(0.1 * (1 - gain), 0.0, 0, 0, False))
        adapter = Adapter(points, start, start=0)
        count = next(n for n in range(1, 100) if adapter.choose() == 1)
        assert count <= most


def test_a_dead_edge_is_left_alone_twice_as_long_each_time_and_then_tried() -> None:
    now = [0.0]
    adapter = Adapter(POINTS, _at(1e9), clock=lambda: now[0])
    wait = FIRST_BACK_OFF_S
    for _ in range(10):
        assert adapter.choose() == 0
        adapter.failed()
        now[0] += wait * 0.99
        assert adapter.choose() == 3
        now[0] += wait * 0.02
        wait = min(2 * wait, LONGEST_BACK_OFF_S)
    assert adapter.choose() == 0
    adapter.observe(
        bytes_sent=6e5, bytes_received=4e3, wall_s=0.027, device_s=1e-3, edge_s=2e-3, cut=0
    )
    adapter.failed()
    now[0] += FIRST_BACK_OFF_S * 1.01
    assert adapter.choose() == 0


def test_a_cut_that_breaks_a_budget_is_used_only_when_the_edge_is_dead() -> None:
    adapter = Adapter(POINTS, _at(1.1e6), allowed=(0, 1, 2))
    assert adapter.best() == 2
    assert {adapter.choose() for _ in range(200)} <= {0, 1, 2}
    adapter.failed()
    assert adapter.choose() == 3


def test_the_estimate_stays_in_the_box() -> None:
    box = Box(_at(1e6), _at(1e8))
    adapter = Adapter(POINTS, _at(1e7), box=box)
    for _ in range(50):
        adapter.observe(
            bytes_sent=6e5, bytes_received=0, wall_s=1e-3, device_s=1e-3, edge_s=0, cut=0
        )
    assert adapter.context.bandwidth_bits == 1e8


@pytest.mark.parametrize("rate", [1e5, 1e6, 1e8])
@pytest.mark.parametrize("rtt_s", [0.005, 0.02, 0.08])
def test_requests_of_several_sizes_tell_round_trip_and_rate_apart(
    rate: float, rtt_s: float
) -> None:
    link = LinkEstimate(0.02, 8 / 5e6)
    draw = random.Random(0)
    for _ in range(400):
        size = draw.choice((1e2, 1e4, 1e6))
        link.observe(size, (rtt_s + size * 8 / rate) * draw.lognormvariate(0, 0.1))
    assert 8 / link.seconds_per_byte == pytest.approx(rate, rel=0.3)
    assert link.rtt_s == pytest.approx(rtt_s, rel=0.3)


def test_requests_of_one_size_explain_their_time_and_do_not_wander_off() -> None:
    link = LinkEstimate(0.02, 8 / 1e9)
    draw = random.Random(0)
    for _ in range(3000):
        link.observe(34e3, 0.0203 * draw.lognormvariate(0, 0.3))
    assert link.rtt_s + 34e3 * link.seconds_per_byte == pytest.approx(0.0203, rel=0.4)
    assert 0.005 < link.rtt_s < 0.04
