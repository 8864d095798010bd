"""Refits: what can be made up for is made up for, and nothing is made worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import judge
import numpy as np
import onnx
import pytest
from cuts import channels_of, random_cut, weighted

from onnxopt.graph import Array
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import Form, compensate, following
from onnxopt.pruning.layers import Layer, find_layers
from onnxopt.pruning.pairs import find_pairs
from onnxopt.pruning.refit import Refit
from onnxopt.pruning.sensitivity import output_change
from onnxopt.pruning.stepper import set_weights, weights_of
from onnxopt.runtime import Session

BATCHES = 10
CONV = (
    "float[N,3,6,6] x, float[8,3,3,3] w1, float[8] wb1, float[4,8,3,3] w2, float[4] wb2",
    "a = Conv<pads=[1,1,1,1]>(x, w1, wb1) b = Relu(a) y = Conv(b, w2, wb2)",
)
BLOCKS = (
    "float[N,3,6,6] x, float[6,3,3,3] w1, float[6] wb1,"
    " float[8,6,3,3] wa, float[8] wab, float[6,8,3,3] wc, float[6] wcb,"
    " float[8,6,3,3] wd, float[8] wdb, float[6,8,3,3] we, float[6] web",
    "s = Conv<pads=[1,1,1,1]>(x, w1, wb1) s0 = Relu(s)"
    " a = Conv<pads=[1,1,1,1]>(s0, wa, wab) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, wc, wcb)"
    " t = Add(c, s0) t0 = Relu(t)"
    " d = Conv<pads=[1,1,1,1]>(t0, wd, wdb) e = Relu(d) f = Conv<pads=[1,1,1,1]>(e, we, web)"
    " u = Add(t0, f) y = Relu(u)",
)


def batches_of(
    proto: onnx.ModelProto, count: int = BATCHES, size: int = 8
) -> list[dict[str, Array]]:
    return [judge.drawn(proto, seed, size) for seed in range(count)]


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    return made


def layers_of(proto: onnx.ModelProto) -> tuple[Channels, list[Layer]]:
    channels = channels_of(proto)
    return channels, list(find_layers(channels.model.graph, channels.instance.shape))


def refitted(
    original: onnx.ModelProto,
    batches: Sequence[dict[str, Array]],
    dead: Iterable[int] = (),
    form: Form = "ridge",
    changed: onnx.ModelProto | None = None,
) -> tuple[onnx.ModelProto, onnx.ModelProto, list[Refit]]:
    """The cut model before and after its refit, and what was done."""
    channels = channels_of(changed or original)
    dead = set(dead)
    cut = channels.cut(dead)
    after, layers = layers_of(cut)
    made = copied(cut)
    done = compensate(
        original,
        made,
        layers,
        following(after.model.graph, layers, after.instance.shape),
        channels.kept(dead),
        batches,
        form,
    )
    return cut, made, done


def change(
    original: onnx.ModelProto, found: onnx.ModelProto, batches: Sequence[dict[str, Array]]
) -> float:
    first, second = Session(original), Session(found)
    made = output_change([first.run(b) for b in batches], [second.run(b) for b in batches])
    assert made is not None
    return made


def with_weights(proto: onnx.ModelProto, **arrays: Array) -> onnx.ModelProto:
    made = copied(proto)
    set_weights(made, arrays)
    return made


def scaled(proto: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    return with_weights(proto, **{name: weights_of(proto, [name])[name] * np.float32(factor)})


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        CONV,
        (
            "float[N,5,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[4] wb2",
            "m = MatMul(x, w1) a = Add(m, wb1) b = Tanh(a) n = MatMul(b, w2) y = Add(n, wb2)",
        ),
        (
            "float[N,3,5,5] x, float[8,3,1,1] w1, float[8] wb1, float[8,4,3,3] w2",
            "a = Conv(x, w1, wb1) b = Relu(a) y = ConvTranspose<strides=[2,2]>(b, w2)",
        ),
        (
            "float[N,3,5,5] x, float[8,3,1,1] w1, float[8] wb1, float[72,4] w2, float[4] wb2",
            "a = Conv(x, w1, wb1) b = Relu(a) p = AveragePool<kernel_shape=[3,3]>(b)"
            " f = Flatten(p) y = Gemm(f, w2, wb2)",
        ),
    ],
)
def test_duplicated_channels_are_removed_without_loss(inputs: str, body: str) -> None:
    proto = weighted(inputs, body)
    axis = weights_of(proto, ["w1"])["w1"].shape.index(8)
    w1, wb1 = weights_of(proto, ["w1", "wb1"]).values()
    w1 = np.moveaxis(w1, axis, 0)
    proto = with_weights(
        proto,
        w1=np.ascontiguousarray(np.moveaxis(np.concatenate([w1[:4], w1[:4]]), 0, axis)),
        wb1=np.concatenate([wb1[:4], wb1[:4]]),
    )
    batches = batches_of(proto)
    units = channels_of(proto).groups[0].units
    pairs = [(units[i], units[i + 4]) for i in range(4)]
    gone = [pair[i % 2] for i, pair in enumerate(pairs)]
    cut, made, done = refitted(proto, batches, gone)
    assert change(proto, made, batches) < 1e-3 * change(proto, cut, batches)
    first, second = Session(proto), Session(made)
    fresh = judge.drawn(proto, 99, 8)
    y = first.run(fresh)["y"]
    assert np.abs(second.run(fresh)["y"] - y).max() < 0.02 * np.abs(y).max()
    assert any(refit.kept for refit in done)


@pytest.mark.parametrize("form", ["ridge", "scale"])
@pytest.mark.parametrize("model", [CONV, BLOCKS])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_refit_raises_the_error_on_samples_that_took_no_part(
    form: Form, model: tuple[str, str], seed: int
) -> None:
    proto = weighted(*model, seed=seed)
    batches = batches_of(proto, 5, 2 + seed)
    channels = channels_of(proto)
    cut, made, done = refitted(proto, batches, random_cut(channels, seed, channels.groups), form)
    for refit in done:
        assert refit.form == form
        assert refit.after < refit.before if refit.kept else refit.after >= refit.before
    names = [t.name for t in cut.graph.initializer]
    before, after = weights_of(cut, names), weights_of(made, names)
    layers = {layer.name: layer for layer in layers_of(cut)[1]}
    for refit in done:
        layer = layers[refit.layer]
        same = np.array_equal(before[layer.weight], after[layer.weight])
        assert same or refit.kept


def test_a_refit_that_hurts_samples_that_took_no_part_is_not_kept() -> None:
    """The samples that judge are of another kind: what fits the others is wrong for them."""
    proto = weighted("float[N,4] x, float[4,3] w, float[3] wb", "y = Gemm(x, w, wb)")
    rng = np.random.default_rng(0)
    batches = [{"x": rng.standard_normal((8, 4)).astype(np.float32)} for _ in range(10)]
    low = np.array([1, 1, 0, 0], np.float32)
    for number, batch in enumerate(batches):
        batch["x"] *= (1 - low) if number % 5 == 4 else low
    half = weights_of(proto, ["w"])["w"].copy()
    half[:2] *= 0.5
    other = with_weights(proto, w=half)
    cut, made, (refit,) = refitted(proto, batches, changed=other)
    assert not refit.kept and refit.before == refit.after
    assert made.SerializeToString() == cut.SerializeToString()
    assert change(proto, made, batches) == change(proto, other, batches)


def test_what_one_layer_lost_is_learnt_back_and_layers_after_it_have_little_to_do() -> None:
    proto = weighted(*CONV)
    batches = batches_of(proto)
    _, _, done = refitted(proto, batches, changed=scaled(proto, "w1", 0.5))
    assert done[0].kept and done[0].after < 1e-5 < 0.1 < done[0].before
    assert done[1].before < 1e-5


def test_a_later_block_repairs_what_an_earlier_one_lost() -> None:
    """The last layer before a sum can undo an error of the shortcut, if that is its target."""
    proto = weighted(
        "float[N,6] x, float[6,6] w1, float[6] wb1, float[6,6] w2, float[6] wb2",
        "m = MatMul(x, w1) a = Add(m, wb1) s = Sigmoid(a) n = MatMul(x, w2) b = Add(n, wb2)"
        " y = Add(b, r)".replace("r)", "z)").replace("n = ", "z = Mul(s, k) n = "),
        constants="float k = {3.0}",
    )
    # The constant goes wrong, which no layer can undo but the one beside it.
    changed = copied(proto)
    set_weights(changed, {"k": np.float32(2.0).reshape(())})
    batches = batches_of(proto, size=32)
    before = change(proto, changed, batches)
    _, made, done = refitted(proto, batches, changed=changed)
    assert change(proto, made, batches) < 0.05 * before
    assert {refit.layer: refit.kept for refit in done}["n"]


def test_a_shortcut_that_drifted_is_made_up_for_in_residual_blocks() -> None:
    proto = weighted(*BLOCKS)
    channels, layers = layers_of(proto)
    after = following(channels.model.graph, layers, channels.instance.shape)
    targets = {layer.node: after[layer.output][0] for layer in layers}
    assert (targets["c"].output, targets["c"].shortcut, targets["c"].rectified) == ("t", "s0", True)
    assert (targets["f"].output, targets["f"].shortcut) == ("u", "t0")
    assert (targets["a"].output, targets["a"].shortcut, targets["a"].rectified) == ("a", "", True)
    assert after["c"][1].output == "c" and not after["c"][1].rectified
    batches = batches_of(proto, size=16)
    channels = channels_of(proto)
    sizes = [len(group.units) for group in channels.groups]
    assert sorted(sizes) == [8, 8] or sorted(sizes) == [6, 8, 8]
    dead = [u for group in channels.groups if len(group.units) == 8 for u in group.units[::2]]
    cut, made, done = refitted(proto, batches, dead)
    assert change(proto, made, batches) < 0.6 * change(proto, cut, batches)
    assert [refit.layer for refit in done] == ["s", "a", "c", "d", "f"]


def sum_of(left: str, right: str) -> onnx.ModelProto:
    return weighted(
        "float[N,4] x, float[4,4] w1, float[4,4] w2",
        f"a = MatMul(x, w1) b = MatMul(x, w2) y = Add({left}, {right})",
    )


def test_what_follows_a_layer_is_the_sum_only_where_that_is_all_that_reads_it() -> None:
    def first(proto: onnx.ModelProto) -> dict[str, tuple[str, str, bool]]:
        channels, layers = layers_of(proto)
        after = following(channels.model.graph, layers, channels.instance.shape)
        return {n: (t[0].output, t[0].shortcut, t[0].rectified) for n, t in after.items()}

    assert first(sum_of("a", "b")) == {"a": ("y", "b", False), "b": ("y", "a", False)}
    assert first(sum_of("b", "a")) == {"a": ("y", "b", False), "b": ("y", "a", False)}
    assert first(sum_of("b", "b"))["b"] == ("b", "", False)
    assert first(sum_of("b", "x"))["b"] == ("b", "", False)
    proto = weighted(
        "float[N,4] x, float[4,4] w1, float[4,4] w2",
        "a = MatMul(x, w1) r = Relu(a) t = Tanh(a) b = MatMul(r, w2) q = Relu(b) y = Add(q, t)",
    )
    assert first(proto) == {"a": ("a", "", False), "b": ("b", "", True)}


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_only_the_last_layer_before_a_sum_has_the_sum_as_its_target(order: tuple[str, str]) -> None:
    """Of two layers that are added, the first gets its own output back, the second the rest."""
    proto = sum_of(*order)
    half = with_weights(proto, w1=weights_of(proto, ["w1"])["w1"] * np.float32(0.9))
    batches = batches_of(proto, size=32)
    _, made, done = refitted(proto, batches, changed=half)
    assert change(proto, made, batches) < 1e-6
    assert done[0].kept
    w1 = weights_of(made, ["w1"])["w1"]
    np.testing.assert_allclose(w1, weights_of(proto, ["w1"])["w1"], atol=2e-2)


BENT = (
    "float[N,1] x, float[2,1] w, float[1] wb",
    "m = Sub(x, k) r = Relu(m) q = Concat<axis=1>(x, r) a = Gemm(q, w, wb) y = {0}(a)",
)


@pytest.mark.parametrize("reader", ["Relu", "LeakyRelu"])
def test_only_what_a_relu_hides_is_left_free(reader: str) -> None:
    """The target is bent where it is below zero; what is left is straight, and need not bend."""
    proto = weighted(BENT[0], BENT[1].format(reader), constants="float k = {1.0}")
    w, wb = np.array([[-1.0], [0.9]], np.float32), np.array([0.5], np.float32)
    original = with_weights(proto, w=w, wb=wb)  # 0.5 - x, from 1 on about -0.5
    changed = with_weights(
        original, w=w * np.float32(0.2), wb=wb + np.float32(1), k=np.float32(100).reshape(())
    )
    rng = np.random.default_rng(0)
    batches = [{"x": rng.uniform(-1, 6, (64, 1)).astype(np.float32)} for _ in range(10)]
    x = np.concatenate([b["x"] for i, b in enumerate(batches) if i % 5 != 4]).astype(np.float64)
    target = 0.5 - x + 0.9 * np.maximum(x - 1, 0)
    rows = np.concatenate([x, np.ones_like(x)], axis=1)
    line = np.linalg.lstsq(rows, target, rcond=None)[0]
    _, made, (refit,) = refitted(original, batches, changed=changed)
    assert refit.kept
    found = weights_of(made, ["w", "wb"])
    if reader == "LeakyRelu":
        np.testing.assert_allclose(found["w"][0], line[0], atol=0.02)
        np.testing.assert_allclose(found["wb"], line[1], atol=0.02)
        return
    shown = np.maximum(target, 0)
    plain = np.mean((np.maximum(rows @ line, 0) - shown) ** 2)
    fitted = x * found["w"][0] + found["wb"]
    assert np.mean((np.maximum(fitted, 0) - shown) ** 2) < 0.65 * plain


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_gain_and_an_offset_for_each_output_are_found_exactly(groups: int) -> None:
    """What leads to them is off, so that nothing in the layer itself is wrong."""
    proto = weighted(
        f"float[N,4,6,6] x, float[8,{4 // groups},3,3] w, float[8] wb",
        f"c = Conv<group={groups}>(x, w, wb) y = Mul(c, k)",
        constants="float k = {1.0}",
    )
    rng = np.random.default_rng(1)
    gain, offset = rng.uniform(0.5, 2, 8), rng.standard_normal(8)
    w, wb = weights_of(proto, ["w", "wb"]).values()
    changed = with_weights(
        proto,
        w=(w / gain[:, None, None, None]).astype(np.float32),
        wb=((wb - offset) / gain).astype(np.float32),
    )
    batches = batches_of(proto)
    _, made, (refit,) = refitted(proto, batches, (), "scale", changed)
    assert refit.kept and refit.form == "scale"
    # The pull is towards a gain of 1: what is left of it is small.
    found = weights_of(made, ["w", "wb"])
    np.testing.assert_allclose(found["w"], w, rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(found["wb"], wb, rtol=2e-2, atol=2e-2)
    assert refit.after < 1e-4 * refit.before


def test_ridge_of_a_grouped_convolution_is_done_for_each_group() -> None:
    proto = weighted(
        "float[N,4,6,6] x, float[8,2,3,3] w, float[8] wb", "y = Conv<group=2>(x, w, wb)"
    )
    batches = batches_of(proto)
    rng = np.random.default_rng(5)
    other = with_weights(proto, w=rng.standard_normal((8, 2, 3, 3)).astype(np.float32))
    _, made, (refit,) = refitted(proto, batches, changed=other)
    assert refit.kept and refit.after < 1e-4 * refit.before
    w = weights_of(proto, ["w"])["w"]
    np.testing.assert_allclose(weights_of(made, ["w"])["w"], w, rtol=2e-2, atol=2e-2)


def test_a_layer_without_a_bias_keeps_none_and_does_its_best() -> None:
    proto = weighted("float[N,4] x, float[4,3] w", "y = MatMul(x, w)")
    rng = np.random.default_rng(0)
    batches = [{"x": (rng.standard_normal((16, 4)) + 3).astype(np.float32)} for _ in range(10)]
    forms: tuple[Form, ...] = ("ridge", "scale")
    for form in forms:
        factors = np.array([1, 2, -3], np.float32)
        changed = with_weights(proto, w=weights_of(proto, ["w"])["w"] * factors)
        _, made, (refit,) = refitted(proto, batches, (), form, changed)
        assert refit.kept
        np.testing.assert_allclose(
            weights_of(made, ["w"])["w"], weights_of(proto, ["w"])["w"], atol=0.05
        )


@pytest.mark.parametrize("size", [1, 3, 5, 30])
def test_results_do_not_depend_on_how_samples_are_cut_into_batches(size: int) -> None:
    """The samples that judge stay the same ones: blocks of 30 of 150."""
    proto = weighted(*BLOCKS)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 3, 6, 6)).astype(np.float32)
    channels = channels_of(proto)
    dead = random_cut(channels, 0, channels.groups)
    whole = [{"x": x[i : i + 30]} for i in range(0, 150, 30)]
    # fold() takes the last of each five batches: the same samples must end up there.
    blocks = [x[i : i + 30] for i in range(0, 150, 30)]
    parts = [[{"x": b[i : i + size]} for i in range(0, 30, size)] for b in blocks]
    mixed = [part[i] for i in range(30 // size) for part in parts]
    _, first, _ = refitted(proto, whole, dead)
    _, second, _ = refitted(proto, mixed, dead)
    reference = Session(first).run({"x": x})["y"]
    other = Session(second).run({"x": x})["y"]
    assert np.abs(other - reference).max() < 1e-3 * np.abs(reference).max()


def test_the_same_samples_give_the_same_bytes() -> None:
    proto = weighted(*BLOCKS)
    channels = channels_of(proto)
    dead = random_cut(channels, 3, channels.groups)
    made = [refitted(proto, batches_of(proto), dead)[1].SerializeToString() for _ in range(2)]
    assert made[0] == made[1]


def test_progress_is_told_from_zero_upwards_and_never_beyond_one() -> None:
    proto = weighted(*BLOCKS)
    channels, layers = layers_of(proto)
    told: list[float] = []
    compensate(
        proto,
        copied(proto),
        layers,
        following(channels.model.graph, layers, channels.instance.shape),
        {},
        batches_of(proto, 2, 2),
        tell=told.append,
    )
    assert told == sorted(told) and told[0] == 0 and told[-1] <= 1 and len(told) >= len(layers)


def test_what_was_not_cut_is_left_as_it_is() -> None:
    proto = weighted(*BLOCKS)
    _, made, done = refitted(proto, batches_of(proto))
    assert change(proto, made, batches_of(proto)) < 1e-9
    assert all(refit.after < 1e-9 for refit in done)


SHORTCUTS = {
    "a vector for each sample": "p = GlobalAveragePool(x) g = Conv(p, w3) c = Conv(x, w2)"
    " y = Add(c, g)",
    "one value for all samples": "g = Exp(wv) c = Conv(x, w2) y = Add(c, g)",
    "one map for all channels": "g = ReduceMean<keepdims=1>(x, one) c = Conv(x, w2) y = Add(c, g)",
    "a small one on a large one": "p = GlobalAveragePool(x) g = Tanh(x) c = Conv(p, w2)"
    " y = Add(c, g)",
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_sums_that_broadcast_are_refitted_too(name: str) -> None:
    """A shortcut need not have the shape of the sum."""
    proto = weighted(
        "float[N,4,5,5] x, float[4,4,1,1] w2, float[4,4,1,1] w3, float[1,4,1,1] wv",
        SHORTCUTS[name],
        constants="int64[1] one = {1}",
    )
    batches = batches_of(proto)
    changed = scaled(proto, "w2", 0.5)
    before = change(proto, changed, batches)
    _, made, _ = refitted(proto, batches, changed=changed)
    assert change(proto, made, batches) < 1e-3 * before


def test_sequences_with_a_shortcut_for_all_samples_are_refitted() -> None:
    proto = weighted(
        "float[N,5,6] x, float[6,8] w1, float[8,3] w2, float[1,5,8] wp",
        "e = Tanh(wp) a = MatMul(x, w1) b = Add(a, e) c = Relu(b) y = MatMul(c, w2)",
    )
    batches = batches_of(proto)
    changed = scaled(proto, "w1", 0.5)
    _, made, _ = refitted(proto, batches, changed=changed)
    assert change(proto, made, batches) < 1e-3 * change(proto, changed, batches)


@pytest.mark.parametrize(
    "body",
    [
        "a = MatMul(x, w1) t = Tanh(x) y = Add(a, t) z = MatMul(y, w2)",
        "s = Tanh(x) a = MatMul(x, w1) c = MatMul(s, w2) d = Relu(c) y = Add(a, s) z = Add(y, d)",
    ],
    ids=["shortcut not there yet", "another layer before the sum"],
)
def test_a_sum_that_cannot_be_looked_at_yet_is_no_target(body: str) -> None:
    proto = weighted("float[N,4] x, float[4,4] w1, float[4,4] w2", body, "float[...] z")
    batches = batches_of(proto, size=32)
    changed = scaled(scaled(proto, "w1", 0.8), "w2", 0.8)
    _, made, done = refitted(proto, batches, changed=changed)
    assert all(refit.kept for refit in done)
    assert change(proto, made, batches) < 1e-3 * change(proto, changed, batches)


@pytest.mark.parametrize("room", [1, 160_000])
def test_refits_from_as_many_samples_as_memory_allows_help_too(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for all layers but the first, or for ten batches alone."""
    proto = weighted(
        "float[N,3,6,6] x, float[16,3,3,3] w1, float[16] wb1, float[8,16,3,3] w2, float[8] wb2,"
        " float[8,8,3,3] w3, float[8] wb3, float[8,4] w4, float[4] wb4",
        "a = Conv<pads=[1,1,1,1]>(x, w1, wb1) b = Relu(a) c = Conv<strides=[2,2]>(b, w2, wb2)"
        " d = Relu(c) e = Conv<pads=[1,1,1,1]>(d, w3, wb3) g = Relu(e) p = GlobalAveragePool(g)"
        " f = Flatten(p) y = Gemm(f, w4, wb4)",
    )
    monkeypatch.setattr("onnxopt.pruning.stepper.LARGEST_FRONTIER_BYTES", room)
    batches = batches_of(proto, 30, 16)
    channels = channels_of(proto)
    dead = {unit for group in channels.groups for unit in group.units[::4]}
    cut = channels.cut(dead)
    made, (after, layers) = copied(cut), layers_of(cut)
    follows = following(after.model.graph, layers, after.instance.shape)
    pairs = find_pairs(after.model.graph, layers)
    done = compensate(proto, made, layers, follows, channels.kept(dead), batches, "ridge", pairs)
    assert len(pairs) == 2 and len(done) == 4
    unseen = [judge.drawn(proto, 99, 100)]
    assert change(proto, made, unseen) < 0.7 * change(proto, cut, unseen)
