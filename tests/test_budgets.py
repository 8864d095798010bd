"""Budgets: which broke and by how much, and never a false alarm."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judge import model

from onnxopt.budgets import MEASURES, CheckResult, check_budgets, left_to_do
from onnxopt.cost import Cost
from onnxopt.errors import UsageError

COST = Cost(nodes=10, size_bytes=2_000_000, parameters=500, macs=1000, peak_memory_bytes=4096)


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_can_be_limited(name: str) -> None:
    value = MEASURES[name].of(COST)
    (kept,) = check_budgets(COST, {name: str(value)})
    (broken,) = check_budgets(COST, {name: str(value - 1)})
    assert kept.ok and kept.over == 0
    assert not broken.ok and broken.over == 1
    assert not CheckResult((kept, broken)).passed
    assert CheckResult((kept, broken)).broken == (broken,)


def test_a_broken_budget_says_by_how_much() -> None:
    (budget,) = check_budgets(COST, {"size": "1MB"})
    assert str(budget) == "size 2 MB, allowed 1 MB (--max-size 1MB): over by 1 MB, 100%"


def test_a_budget_broken_by_little_is_written_out_in_full() -> None:
    (budget,) = check_budgets(replace(COST, size_bytes=1_000_001), {"size": "1MB"})
    assert "size 1,000,001, allowed 1,000,000" in str(budget)


def test_against_a_base_every_measure_counts() -> None:
    budgets = check_budgets(COST, {}, COST, base_name="base.onnx")
    assert [budget.measure for budget in budgets] == list(MEASURES)
    assert all(budget.ok and budget.limit == budget.value for budget in budgets)
    worse = check_budgets(replace(COST, nodes=11), {}, COST, base_name="base.onnx")
    assert [budget.measure for budget in worse if not budget.ok] == ["nodes"]
    assert "base.onnx" in str(worse[0])


def test_a_percentage_is_of_the_base() -> None:
    (nodes, *_) = check_budgets(COST, {"nodes": "105%"}, COST)
    assert nodes.limit == 10
    (nodes, *_) = check_budgets(COST, {"nodes": "110%"}, COST)
    assert nodes.limit == 11


def test_a_percentage_without_a_base_is_refused() -> None:
    with pytest.raises(UsageError, match="percentage of nothing"):
        check_budgets(COST, {"nodes": "105%"})


def test_a_value_that_is_a_lower_bound_is_marked() -> None:
    unsure = replace(COST, unknown=("MatMul 'm'",))
    nodes, macs = check_budgets(unsure, {"nodes": "10", "macs": "1k"})
    assert not nodes.is_lower_bound and macs.is_lower_bound


def test_a_base_of_unknown_shapes_proves_no_excess() -> None:
    unsure = replace(COST, unknown=("MatMul 'm'",))
    more = replace(COST, macs=2000, nodes=11)
    budgets = {budget.measure: budget for budget in check_budgets(more, {}, unsure)}
    assert budgets["macs"].ok and "not known" in str(budgets["macs"])
    assert not budgets["nodes"].ok
    (absolute, *_) = check_budgets(more, {"macs": "1k"})
    assert not absolute.ok


def test_what_optimize_would_do_breaks_the_check() -> None:
    proto = model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { a = Identity(x) b = Identity(a) y = Relu(b) }
    """)
    todo = left_to_do(proto)
    assert len(todo) == 2 and all("remove-identity" in line for line in todo)
    assert not CheckResult((), todo).passed


def test_an_optimized_model_has_nothing_left_to_do() -> None:
    proto = model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { y = Relu(x) }
    """)
    assert left_to_do(proto) == ()
    assert CheckResult((), ()).passed
