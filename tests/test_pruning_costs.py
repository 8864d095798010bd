"""What a model is said to cost at other widths is what the cut model costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import judge
import numpy as np
import onnx
import pytest
from cuts import channels_of, random_cut, weighted
from pruning_cases import CASES

from onnxopt.cost import cost_of
from onnxopt.graph import Constant, Graph
from onnxopt.model import Model
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.costs import StaticMode, measured, owners, width_cost
from onnxopt.pruning.widths import WidthCost

MODES: tuple[StaticMode, ...] = get_args(StaticMode)
TINY = [f.stem for f in judge.TINY_MODELS if f.stem not in ("optional", "sequence")]
LESS_IS_KNOWN = {
    *("gather_elements", "dynamic_targets", "lstm_with_states_that_are_made"),
    *("attention", "gru", "lstm", "residual", "loop"),
}
"""Shapes of a few small values are known in the whole model and not in the cut one, or reversed."""

BY_NAME = {case.name: case for case in CASES}


def widths_of(channels: Channels, dead: set[int]) -> list[int]:
    return [len(set(group.units) - dead) for group in channels.groups]


def cost_of_cut(channels: Channels, dead: set[int], mode: StaticMode) -> float:
    """Without integer constants: a cut may replace one of them by several."""
    proto = channels.cut(dead)
    whole = Model.from_proto(proto)
    sizes = [c.data for graph in whole.graph.walk() for c in integers(graph)]
    rest = {
        "flops": 0,
        "params": sum(a.size for a in sizes),
        "memory": sum(a.nbytes for a in sizes),
    }
    return measured(cost_of(proto), mode) - rest[mode]


def integers(graph: Graph) -> Iterator[Constant]:
    return (c for c in graph.initializers if c.dtype == np.int64)


def assert_costs_follow(
    name: str, proto: onnx.ModelProto, mode: StaticMode, seeds: int = 3
) -> None:
    """Said and measured cost differ by the same constant at all widths."""
    channels = channels_of(proto)
    cost = width_cost(channels, channels.groups, mode)
    left_out = {c.name for graph in channels.model.graph.walk() for c in integers(graph)}
    cost = WidthCost(tuple(t for t in cost.terms if t.owner not in left_out), cost.unit)
    rest = cost_of_cut(channels, set(), mode) - cost.total(widths_of(channels, set()))
    tolerance = 0.15 if mode == "memory" and name in LESS_IS_KNOWN else 1e-9
    for seed in range(seeds):
        dead = random_cut(channels, seed, channels.groups)
        said = cost.total(widths_of(channels, dead))
        assert said + rest == pytest.approx(cost_of_cut(channels, dead, mode), rel=tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BY_NAME)
def test_the_cost_at_other_widths_is_that_of_the_cut_model(name: str, mode: StaticMode) -> None:
    assert_costs_follow(name, BY_NAME[name].model(), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TINY)
def test_the_cost_of_tiny_models_at_other_widths(name: str, mode: StaticMode) -> None:
    assert_costs_follow(name, judge.tiny(name), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", TINY)
def test_the_cost_at_full_widths_is_that_of_the_model(name: str, mode: StaticMode) -> None:
    channels = channels_of(judge.tiny(name))
    cost = width_cost(channels, channels.groups, mode)
    full = widths_of(channels, set())
    expected = measured(cost_of(channels.cut(())), mode)
    tolerance = 0.15 if mode == "memory" and name in LESS_IS_KNOWN else 1e-9
    assert cost.total(full) == pytest.approx(expected, rel=tolerance)


def test_flops_are_two_for_each_multiplication_and_parameters_are_elements() -> None:
    proto = weighted(
        "float[1,3,8,8] x, float[6,3,3,3] w1, float[6] wb, float[5,6,1,1] w2",
        "a = Conv(x, w1, wb) y = Conv(a, w2)",
    )
    channels = channels_of(proto)
    groups = channels.groups
    assert [len(group.units) for group in groups] == [6]
    flops, params, memory = (width_cost(channels, groups, mode) for mode in MODES)
    assert (flops.unit, params.unit, memory.unit) == ("FLOPs", "parameters", "bytes")
    for n in (6, 4, 1):
        assert flops.total([n]) == 2 * 36 * (27 * n + 5 * n)
        assert params.total([n]) == 28 * n + 5 * n
        assert memory.total([n]) == 4 * (33 * n + 3 * 64 + 36 * n + 36 * 5)
    (own,) = owners(groups)
    assert sum(flops.by_owner([6]).get(name, 0) for name in own) == 2 * 36 * 27 * 6
    assert sum(params.by_owner([6]).get(name, 0) for name in own) == 27 * 6


def test_where_only_some_units_are_on_an_axis_as_many_of_them_are_expected_to_go() -> None:
    channels = channels_of(BY_NAME["split"].model())
    cost = width_cost(channels, channels.groups, "memory")
    total = cost.by_owner([4])
    assert total["c"] == 4 * 64 * 4  # 3 and 5 channels of 8, half of each
    assert total["a"] == total["b"] == 4 * 64 * 4
