"""End to end: trained models of digits, pruned from unlabelled samples."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import judge
import numpy as np
import onnx
import pytest

from onnxopt.calibration import Calibration
from onnxopt.cost import cost_of
from onnxopt.graph import Array
from onnxopt.model import load
from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.biases import with_biases
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import Compensation
from onnxopt.pruning.costs import StaticMode, measured
from onnxopt.pruning.criteria import CRITERIA, Criterion
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.prune import Budget, Pruned, PruneOptions, Strategy, prune
from onnxopt.pruning.statistics import rank
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs

FOLDER = judge.REPOSITORY / "models"


@cache
def original(name: str) -> onnx.ModelProto:
    return load(FOLDER / f"{name}.onnx")


@cache
def arrays(file: str) -> dict[str, Array]:
    with np.load(FOLDER / f"{file}.npz") as found:
        return dict(found)


@cache
def pruned(
    name: str,
    mode: StaticMode = "flops",
    amount: float = 0.5,
    samples: int | None = None,
    **options: Any,
) -> Pruned:
    proto = original(name)
    given = arrays(f"{name}_calibration")
    calibration = Calibration.from_arrays(given, model_inputs(proto), samples=samples)
    return prune(proto, Budget(mode, amount), calibration, PruneOptions(**options))


def outputs(proto: onnx.ModelProto, name: str) -> Array:
    given = {k: v for k, v in arrays(f"{name}_test").items() if k != "labels"}
    return np.asarray(next(iter(Session(proto).run(given).values())))


def accuracy(proto: onnx.ModelProto, name: str) -> float:
    labels = arrays(f"{name}_test")["labels"]
    return float(np.mean(outputs(proto, name).argmax(axis=-1) == labels))


def agreement(proto: onnx.ModelProto, name: str) -> float:
    same = outputs(proto, name).argmax(axis=-1) == outputs(original(name), name).argmax(axis=-1)
    return float(np.mean(same))


def assert_within_budget(found: Pruned, mode: StaticMode, amount: float) -> None:
    share = measured(cost_of(found.model), mode) / measured(found.original, mode)
    assert 0.99 * amount <= share <= 1.01 * amount


def test_half_the_flops_of_the_resnet_cost_less_than_a_point() -> None:
    found = pruned("digits_resnet")
    assert_within_budget(found, "flops", 0.5)
    before = accuracy(original("digits_resnet"), "digits_resnet")
    assert before > 0.99
    assert accuracy(found.model, "digits_resnet") >= before - 0.01
    assert agreement(found.model, "digits_resnet") >= 0.985


def test_the_transformer_without_30_percent_of_its_parameters_agrees_with_the_whole() -> None:
    found = pruned("digits_transformer", "params", 0.7)
    assert_within_budget(found, "params", 0.7)
    assert agreement(found.model, "digits_transformer") >= 0.95
    assert accuracy(found.model, "digits_transformer") >= 0.94
    short = {"strip": arrays("digits_transformer_test")["strip"][:5, :16]}
    assert Session(found.model).run(short)["logits"].shape == (5, 2, 10)


def test_compensation_is_what_matters_most() -> None:
    """As in the design: the form of compensation first, then the rest."""
    ridge = change(pruned("digits_resnet"))
    scale, none = (change(pruned("digits_resnet", compensation=form)) for form in ("scale", "none"))
    assert ridge < 0.5 * scale < 0.25 * none


def change(found: Pruned, name: str = "digits_resnet") -> float:
    """Of the logits, as a share of their variance."""
    expected = outputs(original(name), name).astype(np.float64)
    return float(np.square(outputs(found.model, name) - expected).mean() / expected.var())


def test_the_order_by_obs_loses_less_than_random_orders() -> None:
    proto = with_biases(optimize(original("digits_resnet"), Options(verify=False)).model)
    batches = [{"image": arrays("digits_resnet_calibration")["image"][:64]}]
    channels = Channels(proto, batches[0])
    layers = list(find_layers(channels.model.graph, channels.instance.shape))

    def lost(criterion: Criterion) -> list[float]:
        found = rank(proto, channels, channels.groups, layers, batches, criterion)
        return [ranking.curve[len(ranking.order) // 2] for ranking in found if ranking.measured]

    obs, random = np.array(lost("obs")), np.array(lost("random"))
    assert len(obs) >= 6
    assert obs.sum() < 0.85 * random.sum() and np.mean(obs <= random * 1.01) >= 0.9


def test_without_samples_no_group_bears_the_whole_cut_and_even_widths_do_more_harm() -> None:
    proto, budget = original("digits_transformer"), Budget("flops", 0.8)
    by_guess = prune(proto, budget)
    evenly = prune(proto, budget, options=PruneOptions(strategy="uniform"))
    assert change(by_guess, "digits_transformer") < 0.5 * change(evenly, "digits_transformer")
    (done,) = prune(original("digits_resnet"), budget).rounds
    kept = [group.width / group.units for group in done.groups]
    assert min(kept) > 0.6 and sum(share < 1 for share in kept) >= 6


# The rest looks at the ways there are, on a small model with drawn weights.

FLOPS = Budget("flops", 0.6)


def small(budget: Budget = FLOPS, **options: Any) -> Pruned:
    proto = judge.tiny("residual")
    drawn = [judge.drawn(proto, seed, 8) for seed in range(8)]
    given = {name: np.concatenate([d[name] for d in drawn]) for name in drawn[0]}
    calibration = Calibration.from_arrays(given, model_inputs(proto))
    return prune(proto, budget, calibration, PruneOptions(**options))


def assert_not_above(found: Pruned, budget: Budget) -> None:
    assert budget.mode != "latency"
    share = measured(cost_of(found.model), budget.mode) / measured(found.original, budget.mode)
    assert 0.5 * budget.amount < share <= 1.01 * budget.amount
    assert all(r.after < r.before for done in found.rounds for r in done.refits if r.kept)


@pytest.mark.parametrize("mode", get_args(StaticMode))
def test_budgets_of_every_kind_are_met(mode: StaticMode) -> None:
    budget = Budget(mode, 0.6)
    assert_not_above(small(budget), budget)


def test_deep_cuts_take_two_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt.pruning.approach.ONE_ROUND", 0.45)
    budget = Budget("flops", 0.3)
    found = small(budget)
    assert len(found.rounds) == 2
    assert_not_above(found, budget)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_prunes_to_the_budget(criterion: Criterion) -> None:
    assert_not_above(small(criterion=criterion), FLOPS)


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_every_strategy_prunes_to_the_budget(strategy: Strategy) -> None:
    assert_not_above(small(strategy=strategy), FLOPS)


@pytest.mark.parametrize("compensation", get_args(Compensation))
def test_every_compensation_prunes_to_the_budget(compensation: Compensation) -> None:
    assert_not_above(small(compensation=compensation), FLOPS)


def test_the_same_samples_give_the_same_bytes() -> None:
    one, two = (small(Budget("flops", 0.3), seed=3).model.SerializeToString() for _ in range(2))
    assert one == two
