"""Local moves keep the budget and end where no move of one or two groups does less harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pruning_allocate import axis, drawn

from onnxopt.graph import Array
from onnxopt.pruning import exchange
from onnxopt.pruning.curves import Curve, Problem, problem_of
from onnxopt.pruning.exchange import improve, trim
from onnxopt.pruning.widths import Term, WidthCost

Kind = Literal["linear", "chain", "dense"]


def started(seed: int, kind: Kind) -> tuple[Problem, Array]:
    """A problem and a choice drawn at random."""
    problem = problem_of(*drawn(seed, kind))
    rng = np.random.default_rng(seed)
    return problem, np.array([rng.integers(len(widths)) for widths in problem.widths], np.int64)


def moved(problem: Problem, choice: Array) -> Iterator[Array]:
    """The choices that one widening, or one narrowing with one widening, leads to."""
    sizes = [len(widths) for widths in problem.widths]
    for group, size in enumerate(sizes):
        for option in range(int(choice[group]) + 1, size):
            widened = choice.copy()
            widened[group] = option
            yield widened
            for other in set(range(len(sizes))) - {group}:
                for narrower in range(int(choice[other])):
                    both = widened.copy()
                    both[other] = narrower
                    yield both


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["linear", "chain", "dense"]))
def test_no_widening_and_no_exchange_of_two_groups_does_less_harm(seed: int, kind: Kind) -> None:
    problem, start = started(seed, kind)
    found = improve(problem, trim(problem, start))
    assert problem.fits(found)
    least = problem.damage(found) * (1 - 1e-9)
    assert not [m for m in moved(problem, found) if problem.fits(m) and problem.damage(m) < least]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["linear", "chain", "dense"]))
def test_trimming_only_narrows_and_leaves_alone_what_fits(seed: int, kind: Kind) -> None:
    problem, start = started(seed, kind)
    found = trim(problem, start)
    assert problem.fits(found) and (found <= start).all()
    assert not problem.fits(start) or (found == start).all()
    assert (improve(problem, found) == improve(problem, found)).all()
    assert problem.damage(improve(problem, found)) <= problem.damage(found)


def alone(budget: float, *curves: tuple[tuple[int, ...], tuple[float, ...]]) -> Problem:
    """Groups whose costs are their widths."""
    named = [Curve(f"g{g}", widths, damage) for g, (widths, damage) in enumerate(curves)]
    terms = tuple(Term(1.0, (axis(g),), f"conv{g}") for g in range(len(named)))
    return problem_of(named, WidthCost(terms, "MACs"), budget)


@pytest.mark.parametrize("seed", range(30))
def test_the_budget_is_kept_where_two_moves_cost_more_than_is_foreseen(seed: int) -> None:
    """A layer that makes what it reads costs the square of a width; an exchange is then a guess."""
    curves, _, _ = drawn(seed, "chain")
    terms = tuple(
        Term(1.0, (axis(g), axis(g), axis((g + 1) % len(curves))), f"conv{g}")
        for g in range(len(curves))
    )
    cost = WidthCost(terms, "MACs")
    problem = problem_of(curves, cost, 0.3 * cost.total([curve.widths[-1] for curve in curves]))
    assert problem.fits(improve(problem, trim(problem, problem.full)))
    assert problem.fits(improve(problem, problem.least))


def test_no_more_is_trimmed_than_saves_something() -> None:
    """By harm for what is saved the first group is best, but nearly all of that is not needed."""
    problem = alone(198, ((1, 100), (1.0, 0.0)), ((98, 100), (0.1, 0.0)))
    assert problem.answer(trim(problem, problem.full)) == (100, 98)


def test_the_exchange_that_gains_most_is_made_first() -> None:
    """Once either of the last two is wide nothing is left for the other."""
    gives = ((10, 20), (0.1, 0.0))
    problem = alone(40, gives, ((10, 20), (1.0, 0.0)), ((10, 20), (3.0, 0.0)))
    start: Array = np.array([1, 0, 0], np.int64)
    moves = exchange.Moves.of(problem, start)
    choice = start.copy()
    assert exchange._swap(problem, choice, moves, problem.budget - problem.total(start))
    assert problem.answer(choice) == (10, 10, 20)


def test_long_lists_of_moves_are_cut_to_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LISTED", 1)
    problem = alone(
        80,
        ((10, 20), (9.0, 0.0)), ((10, 20), (0.1, 0.0)),
        ((10, 20), (1.0, 0.0)), ((10, 20), (3.0, 0.0)),
        ((10, 20), (0.2, 0.0)),
    )  # fmt: skip
    found = improve(problem, np.array([1, 1, 0, 0, 1], np.int64))
    assert problem.answer(found) == (20, 10, 20, 20, 10)
