"""Pruning to a budget, from the library: budgets are met, plans replay, options count."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from cuts import weighted
from digits import MODELS, digits, digits_samples

from onnxopt.calibration import Calibration, load_calibration
from onnxopt.cost import cost_of
from onnxopt.errors import CheckError, UsageError
from onnxopt.evaluation import evaluate, load_metric
from onnxopt.optimizer import Options
from onnxopt.profiling.machine import channel_block
from onnxopt.pruning.agreement import agreement, check_signature
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.choosing import curves_of
from onnxopt.pruning.costs import StaticMode, measured
from onnxopt.pruning.job import preview
from onnxopt.pruning.options import PruneOptions, Strategy
from onnxopt.pruning.plan import model_digest
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.results import Pruned
from onnxopt.pruning.search import largest_cut
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs, model_outputs
from onnxopt.timing import side_by_side

QUICK = PruneOptions(compensation="none", strategy="uniform")


@cache
def by_weights() -> Pruner:
    """The digits model, to be pruned by its weights alone."""
    return Pruner(digits(), None, QUICK)


@cache
def half() -> Pruned:
    """At half the FLOPs, with all that calibration gives."""
    return Pruner(digits(), digits_samples(100)).at(Budget("flops", 0.5))


def top1(model: onnx.ModelProto) -> float:
    path = MODELS / "digits_resnet_test.npz"
    labelled = load_calibration(path, model_inputs(digits()))
    return evaluate(Session(model).run, labelled, load_metric("top1"), 64)


@pytest.mark.parametrize(
    ("text", "amount", "relative"),
    [
        ("0.5", 0.5, True),
        ("50%", 0.5, True),
        ("-30%", 0.7, True),
        (" .25 ", 0.25, True),
        ("8MB", 8e6, False),
        ("60M", 6e7, False),
        ("500", 500, False),
        ("0.5M", 5e5, False),
    ],
)
def test_a_budget_is_read_as_people_write_it(text: str, amount: float, relative: bool) -> None:
    found = Budget.parse("memory", text)
    assert (found.mode, found.relative) == ("memory", relative)
    assert found.amount == pytest.approx(amount)


def test_bytes_are_no_number_of_flops_or_parameters() -> None:
    for mode in ("flops", "params"):
        with pytest.raises(UsageError, match="is a number of bytes"):
            Budget.parse(mode, "8MB")


@pytest.mark.parametrize(
    "text", ["1", "100%", "-0%", "0", "-100%", "-0.3", "1.5", "x", "", "-130%"]
)
def test_a_budget_that_leaves_nothing_or_everything_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Budget.parse("flops", text)


@pytest.mark.parametrize("mode", ["flops", "params", "memory"])
@pytest.mark.parametrize("share", [0.7, 0.5])
def test_budgets_are_met_within_one_percent(mode: StaticMode, share: float) -> None:
    made = by_weights().at(Budget(mode, share))
    target = share * measured(made.original, mode)
    assert measured(cost_of(made.model), mode) == pytest.approx(target, rel=0.01)


def test_an_absolute_budget_is_met_too() -> None:
    made = by_weights().at(Budget("params", 90_000, relative=False))
    assert cost_of(made.model).parameters == pytest.approx(90_000, rel=0.01)


@pytest.mark.parametrize("strategy", ["uniform", "complexity"])
def test_every_strategy_meets_its_budget(strategy: Strategy) -> None:
    options = PruneOptions(compensation="none", strategy=strategy, seed=3)
    made = Pruner(digits(), None, options).at(Budget("flops", 0.6))
    assert made.cost.macs == pytest.approx(0.6 * made.original.macs, rel=0.01)


def test_half_of_the_digits_model_loses_at_most_one_point() -> None:
    assert half().cost.macs == pytest.approx(half().original.macs / 2, rel=0.01)
    assert top1(half().model) >= top1(digits()) - 0.01


def test_the_pruned_model_has_the_signature_of_the_original_and_finite_outputs() -> None:
    assert model_inputs(half().model) == model_inputs(digits())
    assert model_outputs(half().model) == model_outputs(digits())
    onnx.checker.check_model(half().model, full_check=True)
    found = agreement(digits(), half().model, digits_samples(100).batches(20), "samples")
    (output,) = found.outputs
    assert found.samples == 100 and output.top1 is not None and output.top1 > 0.95
    assert output.cosine is not None and output.cosine > 0.9 and output.relative < 0.4


def test_samples_make_up_for_what_is_gone() -> None:
    by_size = PruneOptions(compensation="none", criterion="l1", strategy="uniform")
    bare = Pruner(digits(), digits_samples(100), by_size).at(Budget("flops", 0.5))
    assert top1(half().model) > top1(bare.model) + 0.05


def test_without_samples_the_notes_say_what_that_costs() -> None:
    (note,) = by_weights().at(Budget("flops", 0.5)).notes
    assert "no calibration data" in note and "lose most of the accuracy" in note
    assert not [n for n in half().notes if "no calibration data" in n]


def test_deep_cuts_take_two_rounds_and_keep_what_each_group_must_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxopt.pruning.approach.ONE_ROUND", 0.45)
    options = PruneOptions(compensation="scale", max_per_group=0.8)
    made = Pruner(digits(), digits_samples(100), options).at(Budget("flops", 0.3))
    first, second = made.rounds
    assert made.cost.macs == pytest.approx(0.3 * made.original.macs, rel=0.01)
    original = {choice.name: choice.units for choice in first.groups}
    assert {c.name for c in second.groups} <= set(original)
    assert all(c.width >= 0.2 * original[c.name] - 1e-9 for c in second.groups)


def test_widths_are_multiples_of_what_is_asked_for() -> None:
    options = PruneOptions(compensation="none", multiple_of=8)
    made = Pruner(digits(), None, options).at(Budget("params", 0.5))
    assert all(choice.width % 8 == 0 for choice in made.rounds[0].groups)


def test_on_a_relaxed_grid_narrow_groups_are_not_all_or_half() -> None:
    options = replace(QUICK, multiple_of=64, relaxed=True)
    preview = Pruner(digits(), None, options)
    for relaxed, fewest in ((True, 4), (False, 2)):
        curves = curves_of(preview.analysis("flops"), replace(options, relaxed=relaxed), {})
        assert min(len(curve.widths) for curve in curves) == fewest


def test_a_relaxed_grid_is_halved_until_the_budget_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxopt.pruning.choosing.FEWEST_WIDTHS", 1)
    options = replace(QUICK, multiple_of=64, relaxed=True)
    made = Pruner(digits(), None, options).at(Budget("flops", 0.9))
    assert made.rounds[0].multiple_of < 64
    assert made.cost.macs == pytest.approx(0.9 * made.original.macs, rel=0.01)


def test_groups_of_which_samples_tell_nothing_are_named() -> None:
    proto = weighted(
        "bool c, float[N,6] x, float[6,32] w1, float[32,3] w2",
        """y = If(c) <
            then_branch = t () => (float[N,3] u)
                { a = MatMul(x, w1) r = Relu(a) u = MatMul(r, w2) },
            else_branch = e () => (float[N,3] v)
                { b = Neg(x) d = MatMul(b, w1) s = Relu(d) v = MatMul(s, w2) }
        >""",
    )
    x = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    given = Calibration.from_arrays({"c": np.array(True), "x": x}, model_inputs(proto))
    made = Pruner(proto, given).at(Budget("params", 0.5))
    assert [note for note in made.notes if "samples tell nothing of 1 of the groups cut" in note]


def test_a_budget_that_the_grid_misses_is_noted() -> None:
    options = replace(QUICK, multiple_of=64)
    made = Pruner(digits(), None, options).at(Budget("flops", 0.9))
    assert made.cost.macs < 0.99 * 0.9 * made.original.macs
    assert [note for note in made.notes if "multiples of 64 allow no closer" in note]


@pytest.mark.parametrize("mode", ["flops", "params"])
def test_a_model_without_layers_is_refused_for_that(mode: StaticMode) -> None:
    proto = weighted("float[N,4] x", "y = Relu(x)")
    with pytest.raises(UsageError, match="can be removed: it has no layers with weights"):
        Pruner(proto, None, QUICK).at(Budget(mode, 0.5))


def test_a_budget_that_narrow_groups_miss_is_not_blamed_on_the_grid() -> None:
    proto = weighted(
        "float[N,4] x, float[4,3] w1, float[3,4] w2",
        "a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2)",
    )
    options = replace(QUICK, multiple_of=16, relaxed=True)
    (note,) = Pruner(proto, None, options).at(Budget("params", 0.8)).notes[1:]
    assert "the widths that its groups can take allow no closer" in note


def test_an_impossible_budget_says_how_far_it_can_go_and_what_stops_it() -> None:
    pruner = Pruner(digits(), None, replace(QUICK, max_per_group=0.9))
    with pytest.raises(UsageError) as caught:
        pruner.at(Budget("flops", 0.001))
    assert "0.1% of the FLOPs cannot be reached" in caught.value.what
    assert "/stem/stem.0/Conv (2 of 16 channels stay" in caught.value.what
    possible = float(caught.value.fix.split("at least ")[1].rstrip("%")) / 100
    made = pruner.at(Budget("flops", possible))
    assert made.cost.macs <= possible * made.original.macs * 1.003


@pytest.mark.parametrize("share", [0.05, 0.1, 0.99, 0.999])
def test_extreme_budgets_are_met_or_refused(share: float) -> None:
    made = by_weights().at(Budget("flops", share))
    assert made.cost.macs <= share * made.original.macs * 1.01


def test_ignored_nodes_keep_their_channels() -> None:
    options = PruneOptions(compensation="none", ignore=("/stages/stages.[34]/*",))
    made = Pruner(digits(), None, options).at(Budget("flops", 0.9))
    names = [choice.name for choice in made.rounds[0].groups]
    assert names and not [
        n for n in names if n.startswith(("/stages/stages.3", "/stages/stages.4"))
    ]


def test_every_exact_group_proves_alone_if_that_is_asked_for() -> None:
    options = PruneOptions(compensation="none", prove=True)
    made = Pruner(digits(), None, options).at(Budget("flops", 0.8))
    proofs = [choice.proof for choice in made.rounds[0].groups]
    assert all(proof is not None and proof.exact and proof.holds for proof in proofs)


def test_a_preview_shows_all_groups_and_what_one_round_would_keep() -> None:
    job = Job(Budget("flops", 0.5), options=QUICK)
    found = preview(digits(), job, lambda stage, done: None)
    assert len(found.groups) == len(found.widths) == 9
    assert sum(group.share for group in found.groups) == pytest.approx(1, abs=0.02)
    assert all(w <= group.units for w, group in zip(found.widths, found.groups, strict=True))
    assert all(len(group.lost) == group.units + 1 for group in found.groups)
    assert [item.channels for item in found.declined] == [10]


def test_the_digest_of_a_model_is_that_of_its_weights_too() -> None:
    other = onnx.ModelProto()
    other.CopyFrom(digits())
    assert model_digest(other) == model_digest(digits())
    tensor = other.graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor) + 1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    assert model_digest(other) != model_digest(digits())


def test_the_largest_cut_within_a_drop_is_found_by_bisection() -> None:
    asked: list[float] = []

    def at(budget: Budget) -> Pruned:
        if budget.amount < 0.2:
            raise UsageError("too small")
        asked.append(budget.amount)
        return half()

    best = largest_cut(at, lambda made: asked[-1], 0.6, "flops", None, lambda stage, done: None)
    assert best is half()
    assert min(a for a in asked if a >= 0.6) == pytest.approx(0.6, abs=0.02)


def test_where_no_cut_keeps_the_score_that_is_an_error() -> None:
    with pytest.raises(CheckError, match="no cut stays within the drop"):
        largest_cut(
            lambda budget: half(), lambda made: 0.0, 0.5, "flops", 0.5, lambda stage, done: None
        )


def test_a_changed_signature_is_refused() -> None:
    other = onnx.ModelProto()
    other.CopyFrom(half().model)
    other.graph.output[0].name = "other"
    with pytest.raises(CheckError, match="outputs of the pruned model"):
        check_signature(half().lossless.model, other)


def test_outputs_that_become_nan_are_refused() -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(digits())
    for tensor in broken.graph.initializer:
        if tensor.name == "classifier.bias":
            array = np.full(tuple(tensor.dims), np.nan, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with pytest.raises(CheckError, match="NaN or infinity in 'logits'"):
        agreement(digits(), broken, digits_samples(100).batches(50), "samples")


def test_runs_side_by_side_take_turns() -> None:
    order: list[str] = []
    found = side_by_side(
        lambda feeds: order.append("a"),
        lambda feeds: order.append("b"),
        {},
        threads=1,
        batch=1,
        seconds=0.0,
    )
    assert found.pairs == 5 and found.low <= found.ratio <= found.high
    switches = sum(x != y for x, y in pairwise(order))
    assert switches >= found.pairs


@pytest.mark.parametrize(("flags", "block"), [("fpu avx2", 8), ("fpu avx2 avx512f", 16)])
def test_the_block_of_channels_is_that_of_the_machine(
    flags: str, block: int, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert channel_block(tmp_path / "cpuinfo") == block
    assert channel_block(tmp_path / "nothing") == 8


def test_a_model_that_declares_any_batch_but_takes_one_size_says_so() -> None:
    """Its own Reshape fixes the size: any other fails inside, long after the samples are read."""
    proto = weighted(
        "float[N,4] x, float[4,8] w0, float[8,8] w1, float[4,4] w2",
        "h = MatMul(x, w0) g = Relu(h) a = MatMul(g, w1) b = Reshape(a, two) c = Tanh(b)"
        " y = MatMul(c, w2)",
        constants="int64[3] two = {2, 2, 4}",
    )
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    given = Calibration.from_arrays({"x": x}, model_inputs(proto))
    with pytest.raises(UsageError, match="does not run with 6 samples") as caught:
        Pruner(proto, given, QUICK)
    assert "--set-shape" in caught.value.fix
    fixed = Options(set_shapes={"x": (2, 4)})
    assert Pruner(proto, given, QUICK, rewriting=fixed).at(Budget("flops", 0.5)).cost.macs


def test_branches_that_share_all_weights_are_ranked_by_samples_and_stay_alike() -> None:
    branch = "a{0} = MatMul(x{0}, w1) b{0} = Relu(a{0}) c{0} = MatMul(b{0}, w2) "
    proto = weighted(
        "float[N,6] x1, float[N,6] x2, float[6,32] w1, float[32,4] w2",
        branch.format(1) + branch.format(2) + "d = Sub(c1, c2) y = Abs(d)",
    )
    rng = np.random.default_rng(0)
    pairs = {name: rng.standard_normal((200, 6)).astype(np.float32) for name in ("x1", "x2")}
    given = Calibration.from_arrays(pairs, model_inputs(proto))
    made = Pruner(proto, given).at(Budget("params", 0.5))
    assert all(choice.group.measured for done in made.rounds for choice in done.groups)
    assert cost_of(made.model).parameters == pytest.approx(160, rel=0.05)
    feeds = {"x1": pairs["x1"], "x2": pairs["x1"]}
    assert not Session(made.model).run(feeds)["y"].any()


def test_sizes_that_a_model_leaves_open_are_told_where_they_count() -> None:
    layers = "y0 = Conv(x, w1) r = Relu(y0) y = Conv(r, w2)"
    weights = "float[8,3,1,1] w1, float[5,8,1,1] w2"
    for shape, is_open in (("N,3,H,W", True), ("N,3,8,8", False)):
        made = Pruner(weighted(f"float[{shape}] x, {weights}", layers), None, QUICK)
        for mode in ("flops", "params", "memory"):
            told = [note for note in made.at(Budget(mode, 0.6)).notes if "open beyond" in note]
            assert bool(told) == (is_open and mode != "params")
            assert all("--set-shape x=" in note for note in told)
