from __future__ import annotations

import random

import pytest
from splitting_dags import parallel_chains, random_dag

from onnxopt.mincut import INFINITE, SINK, SOURCE, Network
from onnxopt.splitting.enumeration import Block, Cuts, enumerate_cuts
from onnxopt.splitting.flow import Prices, cheapest


def _prices(cuts: Cuts, draw: random.Random) -> Prices:
    dag = cuts.dag
    return Prices(
        [draw.uniform(0, 10) for _ in dag.operators],
        [draw.uniform(0, 5) for _ in dag.operators],
        [draw.uniform(0, 12) for _ in dag.tensors],
        draw.choice((0.0, 3.0, 20.0)),
    )


def _costs(cuts: Cuts, prices: Prices) -> list[float]:
    device, edge = cuts.sums(prices.device), cuts.sums(prices.edge)
    sent = cuts.sent(prices.sent)
    remote = [0 if cut == cuts.whole else prices.remote for cut in range(len(cuts))]
    return [float(cost) for cost in device + (edge[cuts.whole] - edge) + sent + remote]


def test_the_flow_through_the_whole_model_finds_what_trying_all_cuts_finds() -> None:
    for seed in range(300):
        draw = random.Random(seed)
        cuts = enumerate_cuts(random_dag(seed, most=9, why_not=draw.choice((0.0, 0.2))))
        prices = _prices(cuts, draw)
        costs = _costs(cuts, prices)
        best = min(costs[cut] for cut in range(len(cuts)) if cuts.is_legal(cut))
        whole = Block(0, len(cuts.dag.operators), 0, is_complete=False)
        found = cuts.device.index(cheapest(cuts.dag, whole, prices))
        assert cuts.is_legal(found), seed
        assert costs[found] == pytest.approx(best, rel=1e-9), seed


def test_the_flow_through_a_block_finds_the_best_cut_of_that_block() -> None:
    for seed in range(100):
        draw = random.Random(seed)
        cuts = enumerate_cuts(random_dag(seed, most=12))
        prices = _prices(cuts, draw)
        costs = _costs(cuts, prices)
        for block in cuts.blocks:
            before, most = (1 << block.first) - 1, (1 << block.last) - 1
            inside = [
                cut
                for cut in range(len(cuts))
                if cuts.device[cut] & before == before and not cuts.device[cut] & ~most
            ]
            found = cuts.device.index(cheapest(cuts.dag, block, prices))
            assert found in inside
            assert costs[found] == pytest.approx(min(costs[cut] for cut in inside), rel=1e-9)


def test_above_the_cap_the_flow_finds_what_no_list_holds() -> None:
    dag = parallel_chains(5, 4)
    every = enumerate_cuts(dag)
    capped = enumerate_cuts(dag, most=100)
    (block,) = capped.blocks
    for seed in range(20):
        prices = _prices(every, random.Random(seed))
        found = every.device.index(cheapest(dag, block, prices))
        costs = _costs(every, prices)
        ends = (costs[0], costs[every.whole])
        assert min(costs[found], *ends) == pytest.approx(min(costs), rel=1e-9)


def test_a_minimum_cut_is_the_cheapest_of_all_and_has_the_fewest_points_that_say_yes() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        count = draw.randint(2, 7)
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        edges = [(*pair, draw.choice((0, 1, 2, 5))) for pair in draw.sample(pairs, len(pairs) // 2)]
        network = Network()
        for _ in range(count - 2):
            network.point()
        for edge in edges:
            network.edge(*edge)
        sides = [
            frozenset({SINK, *(p for p in range(2, count) if bits >> p & 1)})
            for bits in range(0, 1 << count, 4)
        ]
        costs = {
            yes: sum(cost for a, b, cost in edges if a not in yes and b in yes) for yes in sides
        }
        least = min(costs.values())
        fewest = frozenset.intersection(*(yes for yes in sides if costs[yes] == least))
        assert network.say_yes() == fewest, seed


def test_an_edge_without_end_is_never_cut() -> None:
    network = Network()
    point = network.point()
    network.edge(SOURCE, point, 3)
    network.edge(point, SINK, INFINITE)
    assert network.say_yes() == {SINK, point}
