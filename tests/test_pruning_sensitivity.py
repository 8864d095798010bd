"""What a cut of one group does to the outputs of the whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import judge
import numpy as np
import onnx
import pytest
from cuts import channels_of, weighted

from onnxopt.calibration import Calibration
from onnxopt.graph import Array
from onnxopt.pruning import sensitivity
from onnxopt.pruning.analysis import UNMEASURED, _finite
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.sensitivity import GREAT, LASTING, damages, factors, output_change
from onnxopt.pruning.statistics import SENSITIVITY_CUTS, Ranking, rank
from onnxopt.pruning.stepper import set_weights
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs

CHAIN = (
    "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,8] w2, float[8] wb2, float[8,4] w3",
    "a = Gemm(x, w1, wb1) b = Relu(a) c = Gemm(b, w2, wb2) d = Relu(c) y = MatMul(d, w3)",
)


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    return made


def rankings_of(proto: onnx.ModelProto, batches: Sequence[dict[str, Array]]) -> list[Ranking]:
    channels = channels_of(proto)
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    return rank(proto, channels, channels.groups, layers, batches)


def batches_of(proto: onnx.ModelProto, count: int = 4, size: int = 32) -> list[dict[str, Array]]:
    return [judge.drawn(proto, seed, size) for seed in range(count)]


def damages_of(
    proto: onnx.ModelProto, rankings: Sequence[Ranking], batches: Sequence[dict[str, Array]]
) -> list[Array]:
    return damages(rankings, factors(proto, rankings, batches))


def lost(
    proto: onnx.ModelProto, trial: Mapping[str, Array], batches: Sequence[dict[str, Array]]
) -> float:
    """The change of the outputs with other weights."""
    changed = copied(proto)
    set_weights(changed, trial)
    first, second = Session(proto), Session(changed)
    found = output_change([first.run(b) for b in batches], [second.run(b) for b in batches])
    assert found is not None
    return found


def test_damage_is_the_change_of_the_outputs_when_one_group_is_cut() -> None:
    proto = weighted(*CHAIN)
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    assert len(rankings) == 2
    for ranking, damage in zip(rankings, damages_of(copied(proto), rankings, batches), strict=True):
        assert damage.shape == ranking.curve.shape
        changes = [lost(proto, trial, batches) for trial in ranking.trials]
        errors = [ranking.curve[round(share * 8)] for share in SENSITIVITY_CUTS]
        # In proportion to the own error, and right for the trials together.
        factor = damage[-1] / ranking.curve[-1]
        np.testing.assert_allclose(damage, factor * ranking.curve, rtol=1e-9)
        ratios = [c / e for c, e in zip(changes, errors, strict=True)]
        assert min(ratios) * 0.999 <= factor <= max(ratios) * 1.001


def test_the_last_layer_loses_in_the_output_what_its_own_error_is() -> None:
    """Of a group that the last layer reads, the outputs change by that layer's own error."""
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,1] w2, float[1] wb2",
        "a = Gemm(x, w1, wb1) b = Relu(a) y = Gemm(b, w2, wb2)",
    )
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    (damage,) = damages_of(copied(proto), rankings, batches)
    np.testing.assert_allclose(damage, rankings[0].curve, rtol=0.01, atol=1e-6)


def test_what_hardly_reaches_the_outputs_does_little_damage() -> None:
    inputs = (
        "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[6,8] w3, float[8] wb3,"
        " float[8,4] w4"
    )
    body = (
        "a = Gemm(x, w1, wb1) b = Relu(a) c = MatMul(b, w2) e = Gemm(x, w3, wb3) f = Relu(e)"
        " g = MatMul(f, w4) h = Mul(g, k) y = Add(c, h)"
    )
    proto = weighted(inputs, body, constants="float k = {0.01}")
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    loud, quiet = damages_of(copied(proto), rankings, batches)
    assert quiet[4] < 1e-3 * loud[4]


def test_a_group_whose_error_is_a_guess_counts_as_the_worst_of_the_others() -> None:
    proto = weighted(*CHAIN)
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    guess = Ranking(np.arange(5), np.linspace(0, 1, 6), (), False)
    found = damages_of(copied(proto), [rankings[0], guess, rankings[1]], batches)
    factors = [float(found[i][-1] / r.curve[-1]) for i, r in ((0, rankings[0]), (2, rankings[1]))]
    np.testing.assert_allclose(found[1], guess.curve * max(factors), rtol=1e-9)
    (alone,) = damages_of(copied(proto), [guess], batches)
    np.testing.assert_allclose(alone, guess.curve)


def test_the_order_of_the_groups_does_not_matter_and_the_model_is_as_before() -> None:
    proto = weighted(*CHAIN)
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    working = copied(proto)
    straight = damages_of(working, rankings, batches)
    assert working.SerializeToString() == proto.SerializeToString()
    reverse = damages_of(working, rankings[::-1], batches)[::-1]
    for a, b in zip(straight, reverse, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_readers_before_others_run_again() -> None:
    """Both layers that read the group change, the first included."""
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[4,4] w5, float[8,4] w3",
        "a = Gemm(x, w1, wb1) b = Relu(a) c = MatMul(b, w2) d = MatMul(b, w3) e = Tanh(c)"
        " f = MatMul(e, w5) y = Add(f, d)",
    )
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    ranking = next(r for r in rankings if len(r.order) == 8)
    assert {name for trial in ranking.trials for name in trial} == {"w2", "w3"}
    (damage,) = damages_of(copied(proto), [ranking], batches)
    changes = [lost(proto, trial, batches) for trial in ranking.trials]
    errors = [ranking.curve[round(share * 8)] for share in SENSITIVITY_CUTS]
    ratios = [c / e for c, e in zip(changes, errors, strict=True)]
    factor = damage[-1] / ranking.curve[-1] / LASTING
    assert min(ratios) * 0.999 <= factor <= max(ratios) * 1.001


def test_only_as_many_samples_are_run_as_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = weighted(*CHAIN)
    batches = batches_of(proto, 6)
    rankings = rankings_of(proto, batches)
    monkeypatch.setattr(sensitivity, "SAMPLES", 64)
    few = damages_of(copied(proto), rankings, batches)
    expected = damages_of(copied(proto), rankings, batches[:2])
    for a, b in zip(few, expected, strict=True):
        assert a.tobytes() == b.tobytes()


def test_the_change_of_outputs_is_a_share_of_their_variance() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((50, 4)).astype(np.float32) * 3 + 5
    parts = [{"y": y[:20]}, {"y": y[20:]}]
    moved = [{"y": part["y"] + np.float32(0.3)} for part in parts]
    assert output_change(parts, parts) == 0
    expected = 0.09 * y.size / np.square(y - y.mean()).sum()
    assert output_change(parts, moved) == pytest.approx(expected, rel=1e-4)
    two = [{**a, "z": np.zeros(3, np.float32)} for a in parts]
    same = [{**a, "z": np.zeros(3, np.float32)} for a in moved]
    assert output_change(two, same) == pytest.approx(expected / 2, rel=1e-4)


def test_outputs_that_cannot_be_compared_leave_the_others_to_tell() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((40, 3)).astype(np.float32)
    parts, moved = [{"y": y}], [{"y": y + np.float32(0.3)}]
    alone = output_change(parts, moved)
    assert alone is not None and alone > 0
    infinite = np.full((2, 2), np.inf, np.float32)
    for before, after in (
        (np.zeros((3, 2), np.float32), np.zeros((1, 2), np.float32)),  # as many as were found
        (np.arange(3), np.arange(3)[::-1]),
        (infinite, infinite),
        (infinite, -infinite),
    ):
        more, found = [{**parts[0], "z": before}], [{**moved[0], "z": after}]
        assert output_change(more, found) == alone
        # What only such outputs show is not known, which is not the same as nothing.
        assert output_change(more, [{**parts[0], "z": after}]) == (
            None if before is not after else 0.0
        )
        assert output_change([{"z": before}], [{"z": after}]) is None


def test_elements_that_are_not_finite_in_the_reference_do_not_count_and_new_ones_count_much() -> (
    None
):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((40, 3)).astype(np.float32)
    z = y + np.float32(0.3)
    expected = output_change([{"y": y[1:]}], [{"y": z[1:]}])
    bad = y.copy()
    bad[0] = (np.inf, -np.inf, np.nan)
    assert output_change([{"y": bad}], [{"y": z}]) == pytest.approx(expected)
    assert output_change([{"y": bad}], [{"y": bad}]) == 0.0
    broken = y.copy()
    broken[0, 0] = np.nan
    assert output_change([{"y": y}], [{"y": broken}]) == pytest.approx(GREAT / y.size)


WITH_MORE_OUTPUTS = (
    CHAIN[0],
    CHAIN[1] + " e = Relu(y) n = Log(e) k = NonZero(e) v = Cast<to = 1>(k)",
    "float[...] y, float[...] n, float[...] v",
)


def test_a_model_whose_outputs_are_infinite_or_of_no_fixed_shape_has_no_free_cuts() -> None:
    """`n` is minus infinity where `y` is not above 0, and `v` as long as there are others."""
    proto = weighted(*WITH_MORE_OUTPUTS)
    batches = batches_of(proto)
    first = Session(proto).run(batches[0])
    assert np.isneginf(first["n"]).any()
    assert first["v"].shape != Session(proto).run(batches[1])["v"].shape
    calibration = Calibration.from_arrays(
        {"x": np.concatenate([batch["x"] for batch in batches])}, model_inputs(proto)
    )
    pruner = Pruner(proto, calibration)
    assert len(pruner.analysis("latency").groups) == 2 and not pruner.analysis("latency").notes
    for lost in pruner.analysis("latency").lost:
        assert lost[0] < 1e-3 and np.isfinite(lost).all()
        assert (lost[4:] > 0.01).all() and lost[-1] > lost[4]
    kept = [choice.width for choice in pruner.at(Budget("flops", 0.5)).rounds[0].groups]
    assert min(kept) > 1


def test_where_no_output_tells_what_a_cut_does_the_own_error_counts_and_a_note_says_so() -> None:
    proto = weighted(CHAIN[0], CHAIN[1] + " z = ArgMax<axis = 1>(y)", "int64[...] z")
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    assert factors(copied(proto), rankings, batches) == [None, None]
    calibration = Calibration.from_arrays(
        {"x": np.concatenate([batch["x"] for batch in batches])}, model_inputs(proto)
    )
    pruner = Pruner(proto, calibration)
    assert pruner.analysis("latency").notes == (UNMEASURED,)
    for lost, ranking in zip(
        pruner.analysis("latency").lost, pruner.analysis("latency").rankings, strict=True
    ):
        np.testing.assert_array_equal(lost, ranking.curve)
        assert ranking.curve[4] > 0
    assert UNMEASURED in pruner.preview("flops").notes
    assert UNMEASURED in pruner.at(Budget("flops", 0.6)).notes


def test_damage_that_is_no_number_is_great_and_none_where_nothing_is_gone() -> None:
    np.testing.assert_array_equal(_finite(np.array([np.nan, np.inf, 2.0, np.nan])), [0, 20, 2, 20])
    np.testing.assert_array_equal(_finite(np.array([0.1, 0.5, np.inf])), [0.1, 0.5, 10])
    np.testing.assert_array_equal(_finite(np.full(3, np.nan)), [0, 10, 10])


def test_outputs_too_large_to_be_squared_tell_nothing() -> None:
    body = CHAIN[1] + " e = Cast<to = 11>(y) z = Mul(e, k)"
    proto = weighted(CHAIN[0], body, "double[...] z", constants="double k = {1e200}")
    batches = batches_of(proto)
    with np.errstate(over="ignore", invalid="ignore"):
        assert factors(copied(proto), rankings_of(proto, batches), batches) == [None, None]


def test_what_later_refits_repair_counts_less() -> None:
    """The same cuts, measured in the same way: the earlier, the more of it is made up for."""
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,8] w2, float[8] wb2, float[8,3] w3",
        "a = Gemm(x, w1, wb1) b = Relu(a) c = Gemm(b, w2, wb2) d = Relu(c) y = Gemm(d, w3)",
    )
    batches = batches_of(proto)
    rankings = rankings_of(proto, batches)
    alone = factors(proto, rankings, batches)
    repaired = factors(proto, rankings, batches, is_repaired=True)
    shares = [after / before for after, before in zip(repaired, alone, strict=True)]  # type: ignore[operator]
    assert 0.3 < shares[0] < shares[1] < 1
