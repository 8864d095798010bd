"""Moments, orders and curves of the layers of a model, from samples of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import judge
import numpy as np
import onnx
import pytest
from cuts import channels_of, weighted
from pruning_cases import CASES

from onnxopt.calibration import Calibration
from onnxopt.graph import Array
from onnxopt.pruning import readers as looking
from onnxopt.pruning import statistics
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.criteria import Criterion, order
from onnxopt.pruning.layers import find_layers, find_weights
from onnxopt.pruning.readers import readers
from onnxopt.pruning.samples import FEWEST_OF_A_SAMPLE, ROWS, batches_of, fold, positions
from onnxopt.pruning.statistics import (
    SENSITIVITY_CUTS,
    Ranking,
    chunks,
    guess,
    producer_weights,
    rank,
)
from onnxopt.pruning.stepper import set_weights, weights_of
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs

CONV = (
    "float[N,3,6,6] x, float[8,3,3,3] w1, float[8] wb1, float[4,8,3,3] w2, float[4] wb2",
    "a = Conv<pads=[1,1,1,1]>(x, w1, wb1) b = Relu(a) y = Conv(b, w2, wb2)",
)
TWO_READERS = (
    "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[8,3] w3, float[3] wb3",
    "m = MatMul(x, w1) a = Add(m, wb1) b = Tanh(a) n = MatMul(b, w2) o = MatMul(b, w3)"
    " q = Add(o, wb3) y = Concat<axis=1>(n, q)",
)


def batches(proto: onnx.ModelProto, count: int = 6, size: int = 16) -> list[dict[str, Array]]:
    return [judge.drawn(proto, seed, size) for seed in range(count)]


def ranked(
    proto: onnx.ModelProto,
    given: Sequence[dict[str, Array]],
    criterion: Criterion = "obs",
    seed: int = 0,
) -> tuple[Channels, list[Ranking]]:
    channels = channels_of(proto)
    layers = list(find_weights(channels.model.graph, channels.instance.shape))
    return channels, rank(proto, channels, channels.groups, layers, given, criterion, seed)


def variance_lost(
    proto: onnx.ModelProto, weights: dict[str, Array], given: Sequence[dict[str, Array]]
) -> float:
    """Mean squared change of the output, by its variance: each output channel about its mean."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    set_weights(changed, weights)
    first, second = Session(proto), Session(changed)
    a = np.concatenate([first.run(b)["y"] for b in given]).astype(np.float64)
    b = np.concatenate([second.run(b)["y"] for b in given]).astype(np.float64)
    axes = (0, *range(2, a.ndim))
    spread = np.square(a - a.mean(axis=axes, keepdims=True)).sum()
    return float(np.square(a - b).sum() / spread)


@pytest.mark.parametrize("wide", [False, True])
def test_the_curve_is_what_the_trials_lose(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All positions are looked at here, so that the curve is the error on these very samples."""
    if wide:
        monkeypatch.setattr(looking, "WIDEST_ROWS", 10)
    proto = weighted(*CONV)
    given = batches(proto)
    channels, (ranking,) = ranked(proto, given)
    units = len(channels.groups[0].units)
    assert ranking.measured and sorted(ranking.order.tolist()) == list(range(units))
    assert ranking.curve.shape == (units + 1,) and ranking.curve[0] < 1e-4
    assert (np.diff(ranking.curve) > -1e-9).all() and ranking.curve[-1] == pytest.approx(1, 0.05)
    assert len(ranking.trials) == len(SENSITIVITY_CUTS)
    for share, trial in zip(SENSITIVITY_CUTS, ranking.trials, strict=True):
        gone = ranking.order[: round(share * units)]
        assert set(trial) == {"w2", "wb2"}
        assert not trial["w2"][:, gone].any()
        stays = np.delete(np.arange(units), gone)
        assert np.abs(trial["w2"][:, stays]).min(axis=(0, 2, 3)).all()
        lost = variance_lost(proto, dict(trial), given)
        plain = weights_of(proto, ["w2"])["w2"].copy()
        plain[:, gone] = 0
        assert lost < 0.9 * variance_lost(proto, {"w2": plain}, given)
        if not wide:
            assert lost == pytest.approx(ranking.curve[len(gone)], rel=0.02)


def test_linear_readers_share_one_order_and_their_errors_add_up() -> None:
    proto = weighted(*TWO_READERS)
    given = batches(proto)
    _, (ranking,) = ranked(proto, given)
    for share, trial in zip(SENSITIVITY_CUTS, ranking.trials, strict=True):
        gone = ranking.order[: round(share * 8)]
        assert set(trial) == {"w2", "w3", "wb3"}
        assert not trial["w2"][gone].any() and not trial["w3"][gone].any()
        one = first_columns(proto, dict(trial), given, slice(0, 4))
        two = first_columns(proto, dict(trial), given, slice(4, 7))
        # w2 has no bias, and its moments are judged with one that is zero today.
        assert ranking.curve[len(gone)] <= (one + two) * 1.02


def first_columns(
    proto: onnx.ModelProto, weights: dict[str, Array], given: Sequence[dict[str, Array]], at: slice
) -> float:
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    set_weights(changed, weights)
    first, second = Session(proto), Session(changed)
    a = np.concatenate([first.run(b)["y"] for b in given])[:, at].astype(np.float64)
    b = np.concatenate([second.run(b)["y"] for b in given])[:, at].astype(np.float64)
    return float(np.square(a - b).sum() / np.square(a - a.mean(axis=0)).sum())


@pytest.mark.parametrize("wide", [False, True])
def test_duplicates_go_first_and_cost_nothing(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wide:
        monkeypatch.setattr(looking, "WIDEST_ROWS", 10)
    proto = weighted(*CONV)
    w1, wb1 = weights_of(proto, ["w1", "wb1"]).values()
    doubles = {"w1": np.concatenate([w1[:4]] * 2), "wb1": np.concatenate([wb1[:4]] * 2)}
    set_weights(proto, doubles)
    _, (ranking,) = ranked(proto, batches(proto))
    assert {int(u) % 4 for u in ranking.order[:4]} == {0, 1, 2, 3}
    assert ranking.curve[4] < 1e-3 < ranking.curve[5]


def test_of_a_wide_layer_the_channel_is_looked_at_in_the_middle_of_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One column of pixels alone differs from zero: corner taps see padding more often."""
    monkeypatch.setattr(looking, "WIDEST_ROWS", 10)
    proto = weighted(
        "float[N,3,3,3] x, float[8,3,1,1] w1, float[8] wb1, float[4,8,3,3] w2, float[4] wb2",
        "a = Conv(x, w1, wb1) b = Relu(a) y = Conv<pads=[1,1,1,1]>(b, w2, wb2)",
    )
    given = batches(proto)
    channels = channels_of(proto)
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    (reader,) = readers(channels.groups[0], layers, channels)
    looks = {reader.layer: reader.look}
    (found,) = statistics._moments(proto, channels, looks, given).values()
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.append(onnx.ValueInfoProto(name="b"))
    b = np.concatenate([Session(shown).run(g)["b"] for g in given]).astype(np.float64)
    expected = np.einsum("nchw,ndhw->cd", b, b) / (len(b) * 9)
    np.testing.assert_allclose(found.H[:-1, :-1], expected, rtol=1e-4, atol=1e-6)


SHARED = (
    "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2",
    "a = Gemm(x, w1, wb1) b = Relu(a) c = Tanh(a)"
    " m = MatMul(b, w2) n = MatMul(c, w2) y = Concat<axis=1>(m, n)",
)


def test_layers_that_share_a_weight_are_looked_at_together() -> None:
    proto = weighted(*SHARED)
    given = batches(proto)
    channels, (ranking,) = ranked(proto, given)
    assert ranking.measured and ranking.readers == 2
    for share, trial in zip(SENSITIVITY_CUTS, ranking.trials, strict=True):
        assert set(trial) == {"w2"}
        assert not trial["w2"][ranking.order[: round(share * 8)]].any()
    layers = list(find_weights(channels.model.graph, channels.instance.shape))
    (reader,) = readers(channels.groups[0], layers, channels)
    moments = statistics._moments(proto, channels, {reader.layer: reader.look}, given)
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.extend([onnx.ValueInfoProto(name="b"), onnx.ValueInfoProto(name="c")])
    rows = np.concatenate([Session(shown).run(g)[name] for g in given for name in "bc"])
    assert moments[reader.layer].count == len(rows)
    expected = rows.astype(np.float64).T @ rows / len(rows)
    np.testing.assert_allclose(moments[reader.layer].H[:-1, :-1], expected, rtol=1e-4, atol=1e-6)


def test_each_group_of_a_reader_has_moments_of_its_own() -> None:
    """Of the second group alone two channels are the same; the first group cannot know."""
    proto = weighted(
        "float[N,3,6,6] x, float[8,3,1,1] w1, float[8] wb1, float[8,4,1,1] w2, float[8] wb2",
        "a = Conv(x, w1, wb1) b = Relu(a) y = Conv<group=2>(b, w2, wb2)",
    )
    given = batches(proto)
    channels, (ranking,) = ranked(proto, given)
    units = len(channels.groups[0].units)
    for share, trial in zip(SENSITIVITY_CUTS, ranking.trials, strict=True):
        number = round(share * units)
        parts = [first_channels(proto, dict(trial), given, slice(4 * g, 4 * g + 4)) for g in (0, 1)]
        assert ranking.curve[number] == pytest.approx(np.mean(parts), rel=0.02)


def first_channels(
    proto: onnx.ModelProto, weights: dict[str, Array], given: Sequence[dict[str, Array]], at: slice
) -> float:
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    set_weights(changed, weights)
    first, second = Session(proto), Session(changed)
    a = np.concatenate([first.run(b)["y"] for b in given])[:, at].astype(np.float64)
    b = np.concatenate([second.run(b)["y"] for b in given])[:, at].astype(np.float64)
    spread = np.square(a - a.mean(axis=(0, 2, 3), keepdims=True)).sum()
    return float(np.square(a - b).sum() / spread)


def test_a_guessed_curve_rises_as_the_units_that_go_grow() -> None:
    plain = weighted(*CONV)
    channels = channels_of(plain)
    for criterion in ("obs", "l1"):
        (ranking,) = rank(plain, channels, channels.groups, [], batches(plain), criterion)
        scores = order("l2", producer_weights(channels, channels.groups[0])).scores
        gone = np.cumsum(np.square(scores[ranking.order]))
        left = gone[-1] - gone[:-1]
        np.testing.assert_allclose(ranking.curve[1:-1], gone[:-1] / left, rtol=0.01)
        assert ranking.curve[0] == 0 and ranking.curve[-2] < ranking.curve[-1] < np.inf


def test_guesses_rise_ever_faster_and_units_of_no_size_are_free() -> None:
    np.testing.assert_allclose(guess(np.ones(4)), [0, 1 / 3, 1, 3, 1000], rtol=0.01)
    assert guess(np.array([0.0, 0.0, 1.0]))[:3].tolist() == [0, 0, 0]
    assert guess(np.zeros(3)).tolist() == [0, 0, 0, 0]


def test_a_guess_counts_once_for_each_layer_that_reads_the_channels() -> None:
    once = "float[N,6] x, float[6,8] w1, float[8,4] w2"
    first = weighted(once, "a = MatMul(x, w1) y = MatMul(a, w2)")
    second = weighted(
        once + ", float[8,4] w3",
        "a = MatMul(x, w1) b = MatMul(a, w2) c = MatMul(a, w3) y = Add(b, c)",
    )
    curves = []
    for proto in (first, second):
        channels = channels_of(proto)
        curves.append(rank(proto, channels, channels.groups, [], batches(proto))[0].curve)
    np.testing.assert_allclose(curves[1], 2 * curves[0])


def test_a_channel_that_is_always_the_same_costs_nothing() -> None:
    """Its readers have a bias that takes its place."""
    proto = weighted(CONV[0], CONV[1].replace("y = Conv(b", "y = Conv(b"))
    w1, wb1 = (a.copy() for a in weights_of(proto, ["w1", "wb1"]).values())
    w1[5], wb1[5] = 0, 7
    set_weights(proto, {"w1": w1, "wb1": wb1})
    _, (ranking,) = ranked(proto, batches(proto))
    assert ranking.order[0] == 5
    assert ranking.curve[1] < 1e-3


def test_without_readers_the_weights_decide_and_the_curve_is_a_guess() -> None:
    plain = weighted(*CONV)
    channels = channels_of(plain)
    (ranking,) = rank(plain, channels, channels.groups, [], batches(plain))
    w1 = weights_of(plain, ["w1"])["w1"]
    assert not ranking.measured and not ranking.trials
    assert ranking.curve[0] == 0 and np.isfinite(ranking.curve).all()
    assert (np.diff(ranking.curve) >= 0).all()
    sizes = np.square(w1.astype(np.float64)).sum(axis=(1, 2, 3))
    wb = weights_of(plain, ["wb1"])["wb1"].astype(np.float64) ** 2
    assert ranking.order.tolist() in (np.argsort(sizes).tolist(), np.argsort(sizes + wb).tolist())


@pytest.mark.parametrize("criterion", ["obs", "admm", "l1", "l2", "fpgm", "random"])
def test_all_criteria_rank_and_none_is_much_better_than_obs(criterion: Criterion) -> None:
    proto = weighted(*CONV, seed=4)
    _, (ranking,) = ranked(proto, batches(proto), criterion)
    _, (best,) = ranked(proto, batches(proto))
    assert sorted(ranking.order.tolist()) == list(range(8))
    assert best.curve.sum() <= ranking.curve.sum() * 1.05


def test_obs_loses_less_than_random_orders_do() -> None:
    proto = weighted(*CONV, seed=4)
    given = batches(proto)
    (best,) = ranked(proto, given)[1]
    others = [ranked(proto, given, "random", seed)[1][0].curve[4] for seed in range(8)]
    assert best.curve[4] < 0.9 * np.mean(others)


def test_random_orders_follow_the_seed() -> None:
    proto = weighted(*CONV)
    orders = [ranked(proto, batches(proto), "random", s)[1][0].order.tolist() for s in (0, 0, 1, 2)]
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) > 1


def test_the_same_samples_give_the_same_ranking() -> None:
    proto = weighted(*CONV)
    one, two = (ranked(proto, batches(proto))[1][0] for _ in range(2))
    assert one.order.tobytes() == two.order.tobytes() and one.curve.tobytes() == two.curve.tobytes()


def test_batches_of_other_sizes_change_no_more_than_rounding() -> None:
    proto = weighted(*CONV)
    x = np.random.default_rng(0).standard_normal((60, 3, 6, 6)).astype(np.float32)
    found = [
        ranked(proto, [{"x": x[i : i + n]} for i in range(0, 60, n)])[1][0] for n in (1, 7, 60)
    ]
    for other in found[1:]:
        assert other.order.tolist() == found[0].order.tolist()
        np.testing.assert_allclose(other.curve, found[0].curve, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("limit", [1, 3000, 2**28])
def test_groups_come_in_chunks_that_hold_all_of_them_once(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "LARGEST_MOMENTS_BYTES", limit)
    channels = channels_of(judge.tiny("residual"))
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    parts = list(chunks(channels.groups, layers, channels))
    assert [number for part in parts for number in part] == list(range(len(channels.groups)))
    assert all(parts)
    assert len(parts) == len(channels.groups) if limit == 1 else True
    assert len(parts) == 1 if limit == 2**28 else True


@pytest.mark.parametrize("limit", [1, 2**28])
def test_it_does_not_matter_how_many_values_are_shown_at_once(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = judge.tiny("residual")
    _, expected = ranked(proto, batches(proto, 2, 4))
    monkeypatch.setattr(statistics, "LARGEST_SHOWN_BYTES", limit)
    _, found = ranked(proto, batches(proto, 2, 4))
    for a, b in zip(found, expected, strict=True):
        assert a.order.tolist() == b.order.tolist()
        np.testing.assert_allclose(a.curve, b.curve, rtol=1e-5, atol=1e-9)


def test_grouped_readers_take_rows_from_the_group_that_reads_a_unit() -> None:
    case = next(case for case in CASES if case.name == "equal_places_in_groups")
    proto = case.model()
    channels = channels_of(proto)
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    (reader,) = readers(channels.groups[0], layers, channels)
    assert reader.layer.groups == 2
    for rows in reader.rows:
        assert sorted(np.concatenate(rows).tolist()) == [0, 1, 2, 3]
    given = batches(proto, 4, 8)
    _, rankings = ranked(proto, given)
    for share, trial in zip(SENSITIVITY_CUTS, rankings[0].trials, strict=True):
        gone = rankings[0].order[: round(share * 4)].tolist()
        lost = np.array(
            [[set(rows[u].tolist()) for u in gone] for rows in reader.rows], dtype=object
        )
        for group, sets in enumerate(lost):
            mine = trial[reader.layer.weight][3 * group : 3 * group + 3]
            dead = sorted(set().union(*sets))
            assert not mine[:, dead].any()
            assert np.delete(mine, dead, axis=1).all()


def test_positions_are_different_ones_for_each_sample_and_the_same_in_each_run() -> None:
    proto = weighted("float[N,3,40,40] x, float[2,3,1,1] w1", "y = Conv(x, w1)")
    channels = channels_of(proto)
    (layer,) = find_layers(channels.model.graph, channels.instance.shape)
    shape = (4, 2, 40, 40)
    few = positions(layer, shape, 256, 0)
    assert few.shape == (4, ROWS // 256) and (np.diff(few, axis=1) > 0).all()
    assert few.min() >= 0 and few.max() < 1600
    assert len({tuple(row) for row in few.tolist()}) == 4
    assert np.array_equal(few, positions(layer, shape, 256, 0))
    assert not np.array_equal(few, positions(layer, shape, 256, 1))
    assert positions(layer, shape, 4, 0).tolist() == [list(range(1600))]
    assert positions(layer, (1, 2, 40, 40), 10**6, 0).shape == (1, FEWEST_OF_A_SAMPLE)


def test_a_fifth_of_the_batches_judges_and_never_learns() -> None:
    for count in (2, 3, 5, 9, 10, 23):
        given = [{"x": np.zeros(1)}] * count
        judges, others = fold(given, True), fold(given, False)
        assert sorted(judges + others) == list(range(count))
        assert judges and others
        assert len(judges) == max(count // 5, 1)
    assert fold([{}], True) == fold([{}], False) == [0]


def test_samples_come_in_whole_batches_of_the_size_that_the_model_takes() -> None:
    free = weighted("float[N,4] x, float[4,4] w1", "y = MatMul(x, w1)")
    fixed = weighted("float[3,4] x, float[4,4] w1", "y = MatMul(x, w1)")
    for proto, count, sizes in ((free, 100, {10}), (fixed, 100, {3}), (free, 1000, {32})):
        arrays = {"x": np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)}
        calibration = Calibration.from_arrays(arrays, model_inputs(proto))
        given = batches_of(calibration, model_inputs(proto))
        assert {len(batch["x"]) for batch in given} == sizes
        found = np.concatenate([batch["x"] for batch in given])
        assert count - len(found) < max(sizes)
        assert np.array_equal(found, arrays["x"][: len(found)])


FLATTENED = (
    "float[N,3,6,6] x, float[8,3,3,3] w1, float[8] wb1, float[288,4] w2, float[4] wb2",
    "a = Conv<pads=[1,1,1,1]>(x, w1, wb1) b = Relu(a) f = Flatten(b) y = Gemm(f, w2, wb2)",
)


def test_a_wide_product_after_flatten_is_looked_at_channel_by_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its 36 rows of a channel say about the same; all 288 together would take 36^2 the memory."""
    proto = weighted(*FLATTENED)
    w1, wb1 = (a.copy() for a in weights_of(proto, ["w1", "wb1"]).values())
    w1[6], wb1[6] = w1[2], wb1[2]  # one of the two is not needed
    w1[4], wb1[4] = 0, 3
    set_weights(proto, {"w1": w1, "wb1": wb1})
    monkeypatch.setattr(looking, "WIDEST_ROWS", 100)
    channels, (ranking,) = ranked(proto, batches(proto))
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    (reader,) = readers(channels.groups[0], layers, channels)
    assert (reader.look.k, reader.look.block, reader.look.seen) == (288, 36, 8)
    assert ranking.measured and ranking.order[0] == 4 and ranking.order[1] in (2, 6)
    assert ranking.curve[2] < 0.05 < ranking.curve[4]
    given = batches(proto)
    for share, trial in zip(SENSITIVITY_CUTS, ranking.trials, strict=True):
        gone = ranking.order[: round(share * 8)]
        rows = trial["w2"].reshape(8, 36, 4)
        assert not rows[gone].any() and all(rows[u].any() for u in range(8) if u not in gone)
        assert variance_lost(proto, dict(trial), given) < 1


def test_a_layer_that_is_too_wide_for_moments_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looking, "WIDEST_ROWS", 100)
    monkeypatch.setattr(looking, "WIDEST_MEASURED", 7)
    _, (ranking,) = ranked(weighted(*FLATTENED), batches(weighted(*FLATTENED)))
    assert not ranking.measured and sorted(ranking.order) == list(range(8))


@pytest.mark.parametrize("limit", [0, 2**30])
def test_batches_are_read_when_they_are_needed_and_kept_if_they_are_small(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxopt.pruning.samples.LARGEST_INPUTS_BYTES", limit)
    proto = weighted(*CONV)
    x = np.random.default_rng(0).standard_normal((103, 3, 6, 6)).astype(np.float32)
    calibration = Calibration.from_arrays({"x": x}, model_inputs(proto))
    given = batches_of(calibration, model_inputs(proto))
    assert len(given) == 10 and [len(batch["x"]) for batch in given] == [10] * 10
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in given]), x[:100])
    np.testing.assert_array_equal(given[-1]["x"], x[90:100])
    assert [batch["x"][0, 0, 0, 0] for batch in given[:2]] == [x[0, 0, 0, 0], x[10, 0, 0, 0]]
    assert (given[3] is given[3]) == (limit > 0)
    with pytest.raises(IndexError):
        given[10]


def test_of_large_samples_fewer_run_at_once() -> None:
    proto = weighted(*CONV)
    x = np.zeros((640, 3, 6, 6), np.float32) + np.arange(640, dtype=np.float32)[:, None, None, None]
    calibration = Calibration.from_arrays({"x": x}, model_inputs(proto))
    sizes = [
        len(batches_of(calibration, model_inputs(proto), each)[0]["x"])
        for each in (0, 2**20, 2**25, 2**40)
    ]
    assert sizes == [32, 32, 8, 1]
