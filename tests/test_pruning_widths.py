"""The cost of a model as a polynomial of the widths of its groups, and which are legal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.errors import UsageError
from onnxopt.pruning.by_widths import of_group
from onnxopt.pruning.grid import legal_widths
from onnxopt.pruning.widths import Factor, OwnerCosts, Term, WidthCost

GROUPS = 4
LAYER = Term(9.0, (Factor(3), Factor(2, ((0, 1), (1, 2)))), "conv")

factors = st.builds(
    Factor,
    st.integers(0, 5),
    st.lists(st.tuples(st.integers(0, GROUPS - 1), st.integers(0, 3)), max_size=3).map(tuple),
)
costs = st.builds(
    WidthCost,
    st.lists(
        st.builds(
            Term,
            st.integers(0, 9).map(float),
            st.lists(factors, max_size=3).map(tuple),
            st.sampled_from(["a", "b", "c"]),
        ),
        max_size=6,
    ).map(tuple),
    st.just("MACs"),
)
all_widths = st.lists(st.integers(0, 20), min_size=GROUPS, max_size=GROUPS)


def plain(term: Term, widths: list[int]) -> float:
    """The definition."""
    sizes = [f.constant + sum(n * widths[g] for g, n in f.multiplicity) for f in term.factors]
    return term.scale * math.prod(sizes)


@settings(deadline=None)
@given(costs, all_widths)
def test_the_total_is_the_sum_of_the_products(cost: WidthCost, widths: list[int]) -> None:
    assert cost.total(widths) == sum(plain(term, widths) for term in cost.terms)


@settings(deadline=None)
@given(costs, all_widths, st.integers(0, GROUPS - 1), st.lists(st.integers(0, 20), max_size=4))
def test_the_costs_of_one_group_are_the_totals_at_its_candidates(
    cost: WidthCost, widths: list[int], group: int, candidates: list[int]
) -> None:
    found = of_group(cost, group, widths, candidates)
    assert found.dtype == np.float64
    tried = [[*widths[:group], candidate, *widths[group + 1 :]] for candidate in candidates]
    assert found.tolist() == [cost.total(each) for each in tried]


@settings(deadline=None)
@given(costs, all_widths)
def test_owners_share_the_total(cost: WidthCost, widths: list[int]) -> None:
    shares = cost.by_owner(widths)
    for owner, share in shares.items():
        assert share == sum(plain(term, widths) for term in cost.terms if term.owner == owner)
    assert list(shares) == list(dict.fromkeys(term.owner for term in cost.terms))
    sets = [frozenset("ab"), frozenset("b"), frozenset(("none",))]
    expected = [sum(shares.get(name, 0.0) for name in names) for names in sets]
    assert OwnerCosts(cost, sets).at(widths).tolist() == expected


@settings(deadline=None)
@given(costs, all_widths)
def test_the_interaction_is_the_mixed_second_difference(cost: WidthCost, widths: list[int]) -> None:
    found = cost.interaction(widths)
    assert found.shape == (GROUPS, GROUPS) and not found.diagonal().any()
    for a in range(GROUPS):
        for b in range(a):
            assert found[a, b] == found[b, a]
            if all(_degree(term, a) <= 1 and _degree(term, b) <= 1 for term in cost.terms):
                steps = np.eye(GROUPS, dtype=int)
                at = [
                    cost.total(widths + steps[a] * i + steps[b] * j) for i in (0, 1) for j in (0, 1)
                ]
                assert found[a, b] == at[3] - at[2] - at[1] + at[0]


def _degree(term: Term, group: int) -> int:
    return sum(any(g == group and n for g, n in f.multiplicity) for f in term.factors)


@settings(deadline=None)
@given(costs, all_widths, all_widths)
def test_separable_costs_are_sums_over_groups(
    cost: WidthCost, widths: list[int], others: list[int]
) -> None:
    if cost.separable:
        for group in range(GROUPS):
            at_widths = of_group(cost, group, widths, [3, 8])
            at_others = of_group(cost, group, others, [3, 8])
            assert at_widths[1] - at_widths[0] == at_others[1] - at_others[0]


def test_layers_that_share_a_group_on_one_axis_each_do_not_interact() -> None:
    assert WidthCost((LAYER,), "MACs").separable
    square = Term(1.0, (Factor(0, ((0, 1),)), Factor(0, ((0, 1),))), "conv")
    assert WidthCost((LAYER, square), "MACs").separable
    product = Term(1.0, (Factor(0, ((0, 1),)), Factor(0, ((1, 1),))), "conv")
    assert not WidthCost((LAYER, product), "MACs").separable


@pytest.mark.parametrize(
    ("units", "multiple_of", "fixed", "expected"),
    [
        (64, 16, 0, (16, 32, 48, 64)),
        (60, 16, 0, (16, 32, 48, 60)),
        (64, 16, 8, (24, 40, 56, 64)),
        (16, 8, 0, (8, 16)),
        (8, 8, 0, (4, 8)),
        (8, 32, 0, (4, 8)),
        (12, 12, 0, (8, 12)),
        (3, 8, 0, (2, 3)),
        (2, 8, 0, (1, 2)),
        (1, 8, 0, (1,)),
        (10, 1, 0, (2, 3, 4, 5, 6, 7, 8, 9, 10)),
    ],
)
def test_legal_widths_are_multiples_where_the_group_is_wide_enough(
    units: int, multiple_of: int, fixed: int, expected: tuple[int, ...]
) -> None:
    found = legal_widths(
        units, multiple_of=multiple_of, min_channels=1, max_per_group=0.8, fixed=fixed
    )
    assert found == expected


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (128, (16, 32, 48, 64, 80, 96, 112, 128)),
        (64, (16, 32, 48, 64)),
        (32, (8, 16, 24, 32)),
        (16, (4, 8, 12, 16)),
        (8, (2, 4, 6, 8)),
        (3, (1, 2, 3)),
    ],
)
def test_a_narrow_group_gets_a_finer_grid_where_it_shall_have_a_choice(
    units: int, expected: tuple[int, ...]
) -> None:
    found = legal_widths(units, multiple_of=16, min_channels=1, max_per_group=1.0, fewest=3)
    assert found == expected


def test_limits_and_quanta_are_kept() -> None:
    options = {"multiple_of": 1, "max_per_group": 1.0}
    assert legal_widths(6, min_channels=4, **options) == (4, 5, 6)  # type: ignore[arg-type]
    assert legal_widths(6, min_channels=9, **options) == (6,)  # type: ignore[arg-type]
    assert legal_widths(12, min_channels=1, quantum=4, **options) == (4, 8, 12)  # type: ignore[arg-type]
    assert legal_widths(10, multiple_of=1, min_channels=1, max_per_group=0.7)[0] == 3
    assert legal_widths(10, multiple_of=4, min_channels=1, max_per_group=0.0) == (10,)


@given(
    st.integers(1, 200),
    st.integers(1, 64),
    st.integers(1, 8),
    st.floats(0, 1),
    st.integers(1, 8),
    st.integers(0, 40),
)
def test_legal_widths_ascend_to_the_present_one_within_the_limits(
    units: int, multiple_of: int, least: int, most_leaving: float, quantum: int, fixed: int
) -> None:
    found = legal_widths(
        units,
        multiple_of=multiple_of,
        min_channels=least,
        max_per_group=most_leaving,
        quantum=quantum,
        fixed=fixed,
    )
    assert found[-1] == units and list(found) == sorted(set(found))
    for width in found[:-1]:
        assert least <= width and (units - width) % quantum == 0
        assert units - width <= units * most_leaving + 1e-9
    reachable = units - quantum >= max(1, least) and quantum <= units * most_leaving
    assert len(found) >= 2 or not reachable


@pytest.mark.parametrize(("multiple_of", "leaving"), [(0, 0.5), (8, 1.5), (8, -0.1)])
def test_limits_that_make_no_sense_are_refused(multiple_of: int, leaving: float) -> None:
    with pytest.raises(UsageError):
        legal_widths(8, multiple_of=multiple_of, min_channels=1, max_per_group=leaving)
