"""Costs from tables: what the allocator makes of times that rise in steps, or fall."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.errors import UsageError
from onnxopt.graph import Array
from onnxopt.pruning.allocate import Curve, allocate, uniform
from onnxopt.pruning.by_widths import Changes, of_group
from onnxopt.pruning.curves import Problem
from onnxopt.pruning.exchange import trim
from onnxopt.pruning.tables import LayerTerm, TableCost
from onnxopt.pruning.widths import Factor, Term, WidthCost

UNITS = 32
IMAGE = (Factor(3), 1)


def axis(*groups: int, fixed: int = 0, divisor: int = 1) -> tuple[Factor, int]:
    return Factor(fixed, tuple((group, 1) for group in groups)), divisor


def table(seed: int) -> Callable[[int, int], float]:
    """Times that rise in blocks of 8 and are noisy: some widths are slower than greater ones."""

    def us(inputs: int, outputs: int) -> float:
        rng = np.random.default_rng([seed, inputs, outputs])
        blocks = -(-inputs // 8) * -(-outputs // 8)
        return float((5 + blocks * (1 + seed % 3)) * rng.uniform(0.8, 1.3))

    return us


def drawn(seed: int, groups: int = 4) -> tuple[list[Curve], TableCost, float]:
    """A chain of layers, with a layer that reads two groups side by side."""
    rng = np.random.default_rng(seed)
    widths = tuple(range(4, UNITS + 1, 4))
    curves, terms = [], []
    for group in range(groups):
        damage = (1 - np.array(widths) / UNITS) ** rng.uniform(0.5, 4) * rng.exponential()
        curves.append(Curve(f"g{group}", widths, tuple(damage.tolist())))
        reads = axis(group - 1) if group else IMAGE
        terms.append(LayerTerm(table(seed + group), (reads, axis(group)), f"conv{group}"))
    terms.append(LayerTerm(table(seed + 9), (axis(0, 1), axis(groups - 1)), "joint"))
    cost = TableCost(tuple(terms), "time", rest=7.0)
    every = [cost.total(w) for w in itertools.product(widths[::3], repeat=groups)]
    return curves, cost, float(np.quantile(every, rng.uniform(0.1, 0.7)))


def sizes(term: LayerTerm, widths: Sequence[int]) -> list[int]:
    return [
        round((f.constant + sum(n * widths[g] for g, n in f.multiplicity)) / d)
        for f, d in term.axes
    ]


def by_hand(cost: TableCost, widths: Sequence[int]) -> float:
    return cost.rest + sum(term.cost(*sizes(term, widths)) for term in cost.terms)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, UNITS), min_size=4, max_size=4))
def test_the_total_is_the_sum_of_the_tables_and_of_what_is_in_none(
    seed: int, widths: list[int]
) -> None:
    _, cost, _ = drawn(seed)
    assert cost.total(widths) == pytest.approx(by_hand(cost, widths))
    assert sum(cost.by_owner(widths).values()) + cost.rest == pytest.approx(cost.total(widths))
    assert list(cost.by_owner(widths)) == ["conv0", "conv1", "conv2", "conv3", "joint"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3))
def test_candidates_of_one_group_cost_what_the_model_costs_with_them(seed: int, group: int) -> None:
    _, cost, _ = drawn(seed)
    now = np.random.default_rng(seed).integers(1, UNITS, 4)
    tried = [1, 8, 9, 31]
    wanted = [by_hand(cost, [*now[:group], w, *now[group + 1 :]]) for w in tried]
    assert of_group(cost, group, now, tried) == pytest.approx(wanted)
    apart = cost.touched_by_group(group, now, tried)
    assert apart - apart[0] == pytest.approx(np.array(wanted) - wanted[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_what_two_changes_cost_together_is_foreseen_exactly(seed: int) -> None:
    _, cost, _ = drawn(seed)
    rng = np.random.default_rng(seed)
    now = rng.integers(10, 20, 4)
    first = Changes(np.array([0, 1, 3, 1]), np.array([-3.0, -9.0, -1.0, -2.0]))
    second = Changes(np.array([2, 0, 1]), np.array([5.0, 12.0, 1.0]))
    crossed = cost.crossed(now, first, second)

    def at(*moves: tuple[int, float]) -> float:
        made = now.copy()
        for group, by in moves:
            made[group] += int(by)
        return by_hand(cost, made)

    for (i, one), (j, other) in itertools.product(
        enumerate(zip(*first, strict=True)), enumerate(zip(*second, strict=True))
    ):
        if one[0] != other[0]:
            wanted = at(one, other) - at(one) - at(other) + at()
            assert crossed[i, j] == pytest.approx(wanted, abs=1e-9)


def test_a_size_is_divided_and_rounded_before_it_is_looked_up() -> None:
    asked: list[tuple[int, int]] = []

    def us(inputs: int, outputs: int) -> float:
        asked.append((inputs, outputs))
        return float(inputs + 100 * outputs)

    term = LayerTerm(us, (axis(0, fixed=4, divisor=2), axis(1)), "y")
    cost = TableCost((term, term), "time")
    assert cost.total([7, 3]) == 2 * (6 + 300)  # 11 / 2, rounded to even
    assert asked == [(6, 3)]  # of equal layers one is asked


def least_possible(curves: Sequence[Curve], cost: TableCost, budget: float) -> float:
    best = np.inf
    for options in itertools.product(*(range(len(c.widths)) for c in curves)):
        pairs = list(zip(curves, options, strict=True))
        damage = sum(curve.damage[option] for curve, option in pairs)
        if damage < best and cost.total([c.widths[o] for c, o in pairs]) <= budget:
            best = damage
    return float(best)


def damage_of(curves: Sequence[Curve], widths: Sequence[int]) -> float:
    return sum(c.damage[c.widths.index(w)] for c, w in zip(curves, widths, strict=True))


def test_the_damage_is_near_the_optimum_that_trying_everything_finds() -> None:
    gaps = []
    for seed in range(30):
        curves, cost, budget = drawn(seed, groups=3)
        found = allocate(curves, cost, budget)
        assert cost.total(found) <= budget
        best = least_possible(curves, cost, budget)
        gaps.append(damage_of(curves, found) / best - 1 if best else damage_of(curves, found))
    assert min(gaps) >= -1e-9
    assert np.mean(gaps) < 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_every_strategy_keeps_the_budget(seed: int) -> None:
    curves, cost, budget = drawn(seed)
    try:
        found = [make(curves, cost, budget) for make in (allocate, uniform)]
    except UsageError:
        problem = Problem(tuple(curves), cost, budget)
        assert not problem.fits(problem.cheapest)
        return
    assert all(cost.total(widths) <= budget for widths in found)


def falling() -> tuple[list[Curve], TableCost]:
    """A width of 6 takes twice as long as one of 8, as odd widths of convolutions do."""
    curves = [Curve("g", (6, 8, 16), (3.0, 2.0, 0.0))]
    us = {6: 20.0, 8: 10.0, 16: 16.0}
    term = LayerTerm(lambda i, o: us[o], (IMAGE, axis(0)), "conv")
    return curves, TableCost((term,), "time")


def test_a_budget_that_only_a_wider_width_meets_is_met() -> None:
    curves, cost = falling()
    problem = Problem(tuple(curves), cost, 12.0)
    assert problem.at(problem.cheapest).tolist() == [8]
    assert allocate(curves, cost, 12.0) == uniform(curves, cost, 12.0) == (8,)
    assert trim(problem, problem.least).tolist() == [1]
    with pytest.raises(UsageError, match=r"the smallest leave 62.6%"):
        allocate(curves, cost, 9.0)


def test_where_costs_rise_with_every_width_the_cheapest_widths_are_the_smallest() -> None:
    curves = [Curve(f"g{g}", (2, 4, 8), (2.0, 1.0, 0.0)) for g in range(3)]
    terms = (Term(1.0, (axis(0)[0], axis(1)[0]), "a"), Term(2.0, (axis(2)[0],), "b"))
    problem = Problem(tuple(curves), WidthCost(terms, "MACs"), 1.0)
    assert (problem.cheapest == problem.least).all()


def test_groups_that_no_layer_holds_together_are_solved_exactly() -> None:
    for seed in range(20):
        curves, _, _ = drawn(seed, groups=3)
        terms = tuple(LayerTerm(table(seed + g), (IMAGE, axis(g)), f"c{g}") for g in range(3))
        cost = TableCost(terms, "time", rest=5.0)
        assert cost.separable
        budget = 0.6 * cost.total([UNITS] * 3) + 0.4 * cost.total([4] * 3)
        found = allocate(curves, cost, budget)
        best = least_possible(curves, cost, budget)
        assert damage_of(curves, found) == pytest.approx(best, abs=1e-12)
    assert not drawn(0)[1].separable


def test_an_exchange_counts_what_the_two_layers_take_together() -> None:
    """Both groups of a layer: what the present widths say of a change is wrong by a block."""
    curves = [
        Curve("a", (8, 16), (1.0, 0.0)),
        Curve("b", (8, 16), (2.0, 0.0)),
    ]
    us = {(8, 8): 1.0, (8, 16): 4.0, (16, 8): 4.0, (16, 16): 5.0}
    term = LayerTerm(lambda i, o: us[i, o], (axis(0), axis(1)), "conv")
    cost = TableCost((term,), "time")
    assert allocate(curves, cost, 4.0) == (8, 16)
    both: Array = cost.crossed(
        [16, 8], Changes(np.array([0]), np.array([-8.0])), Changes(np.array([1]), np.array([8.0]))
    )
    assert both.tolist() == [[4.0 - 1.0 - 5.0 + 4.0]]


def test_a_trim_takes_a_wider_width_where_that_is_faster_and_leaves_other_groups_alone() -> None:
    curves, cost = falling()
    other = Curve("h", (8, 16), (5.0, 0.0))
    second = LayerTerm(lambda i, o: float(o), (IMAGE, axis(1)), "other")
    problem = Problem((*curves, other), TableCost((*cost.terms, second), "time"), 28.0)
    assert trim(problem, np.array([0, 1])).tolist() == [1, 1]


def test_even_widths_keep_a_budget_that_one_width_in_the_middle_meets() -> None:
    curve = Curve("g", (5, 6, 7, 8, 16), (4.0, 3.0, 2.0, 1.0, 0.0))
    term = LayerTerm(lambda i, o: 10.0 if o == 7 else 20.0, (IMAGE, axis(0)), "conv")
    assert uniform([curve], TableCost((term,), "time"), 12.0) == (7,)
