"""Two layers refitted in turns: the adjoint, the targets between them, and what that gains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import judge
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from cuts import weighted

from onnxopt.graph import Array
from onnxopt.pruning import turns
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import compensate, following
from onnxopt.pruning.layers import Layer, find_layers
from onnxopt.pruning.linear_map import LinearMap
from onnxopt.pruning.pairs import find_pairs
from onnxopt.pruning.refit import Looked, Refit, Task, by_all_samples
from onnxopt.pruning.turns import wanted_between
from onnxopt.runtime import Session

CASES = (
    ((1, 1), (1, 1, 1, 1), (1, 1), (8, 8)),
    ((2, 2), (1, 1, 1, 1), (1, 1), (8, 8)),
    ((2, 2), (0, 1, 2, 0), (1, 1), (9, 8)),
    ((1, 2), (2, 2, 2, 2), (2, 2), (7, 9)),
)


@pytest.mark.parametrize(("strides", "pads", "dilations", "size"), CASES)
def test_the_adjoint_of_a_convolution_is_its_adjoint(
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    size: tuple[int, ...],
) -> None:
    rng = np.random.default_rng(0)
    layer = Layer(
        "c", "conv", "c", "x", "c", "W", "b",
        kernel=(3, 3), strides=strides, pads=pads, dilations=dilations,
    )  # fmt: skip
    W = rng.normal(size=(1, 4 * 9 + 1, 5))
    x = rng.normal(size=(2, 4, *size)).astype(np.float32)
    operator = LinearMap(layer, W)
    made: Array = operator.linear(x)
    r = np.asarray(rng.normal(size=made.shape), np.float32)
    back = operator.adjoint(r, x.shape[2:])
    assert back.shape == x.shape
    assert np.isclose(np.sum(made * r), np.sum(x * back), rtol=1e-4)


def test_the_adjoint_of_a_product_is_its_adjoint() -> None:
    rng = np.random.default_rng(1)
    operator = LinearMap(Layer("m", "linear", "m", "x", "m", "W", "b"), rng.normal(size=(1, 7, 3)))
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)
    r = rng.normal(size=(2, 5, 3)).astype(np.float32)
    back = operator.adjoint(r, ())
    assert np.isclose(np.sum(operator.linear(x) * r), np.sum(x * back), rtol=1e-4)


def test_the_wanted_change_lessens_the_error_of_the_second_layer() -> None:
    rng = np.random.default_rng(2)
    second = LinearMap(Layer("m", "linear", "m", "x", "m", "W", "b"), rng.normal(size=(1, 9, 4)))
    z = np.maximum(rng.normal(size=(50, 8)), 0).astype(np.float32)
    target = rng.normal(size=(50, 4)).astype(np.float32)
    zero = np.zeros((), np.float32)
    change = wanted_between(second, z, target, zero, rectified=False)
    before = np.square(second.forward(z) - target).sum()
    after = np.square(second.forward(z + change) - target).sum()
    assert after < 0.7 * before
    assert not change[z <= 0].any()


PLAIN = (
    "float[N,6] x, float[6,16] w1, float[16] wb1, float[16,5] w2, float[5] wb2",
    "h = Gemm(x, w1, wb1) r = Relu(h) y = Gemm(r, w2, wb2)",
)
TOKENS = (
    "float[N,7,6] x, float[6,16] w1, float[16] wb1, float[16,6] w2, float[6] wb2",
    "m = MatMul(x, w1) h = Add(m, wb1) r = Relu(h) n = MatMul(r, w2) o = Add(n, wb2) y = Add(o, x)",
)
CONVOLUTIONS = (
    "float[N,3,8,8] x, float[12,3,3,3] w1, float[12] wb1, float[4,12,3,3] w2, float[4] wb2",
    "h = Conv<pads=[1,1,1,1],strides=[2,2]>(x, w1, wb1) r = Relu(h) y = Conv(r, w2, wb2)",
)
RESIDUAL = (
    "float[N,4,6,6] x, float[12,4,3,3] w1, float[12] wb1, float[4,12,3,3] w2, float[4] wb2",
    "s = Tanh(x) h = Conv<pads=[1,1,1,1]>(s, w1, wb1) r = Relu(h)"
    " c = Conv<pads=[1,1,1,1]>(r, w2, wb2) t = Add(c, s) y = Relu(t)",
)
APART = (
    "float[N,6] x, float[6,16] w1, float[16] wb1, float[6,16] w2, float[16] wb2,"
    " float[16,5] w3, float[5] wb3, float[16,5] w4, float[5] wb4",
    "m = MatMul(x, w1) n = MatMul(x, w2) h = Add(m, wb1) i = Add(n, wb2) r = Relu(h) q = Relu(i)"
    " o = MatMul(r, w3) p = MatMul(q, w4) y = Add(o, wb3) z = Add(p, wb4)",
)


def halved(
    proto: onnx.ModelProto, batches: Sequence[dict[str, Array]], seed: int, *, in_turns: bool
) -> tuple[onnx.ModelProto, list[Refit]]:
    """The model with half of each group gone and refitted."""
    channels = Channels(proto, batches[0])
    rng = np.random.default_rng(seed)
    groups = [group for group in channels.groups if len(group.units) > 6]
    dead = {u for g in groups for u in rng.choice(g.units, len(g.units) // 2, replace=False)}
    pruned = channels.cut(dead)
    after = Channels(pruned, batches[0])
    layers = list(find_layers(after.model.graph, after.instance.shape))
    pairs = find_pairs(after.model.graph, layers)
    assert len(pairs) == len(groups)
    follows = following(after.model.graph, layers, after.instance.shape)
    kept = channels.kept(dead)
    done = compensate(
        proto, pruned, layers, follows, kept, batches, pairs=pairs if in_turns else {}
    )
    return pruned, done


def lost(original: onnx.ModelProto, pruned: onnx.ModelProto, x: Array) -> float:
    before, after = Session(original).run({"x": x}), Session(pruned).run({"x": x})
    return sum(
        float(np.square(before[name].astype(np.float64) - after[name]).mean()) for name in before
    )


@pytest.mark.parametrize("size", [1, 32])
@pytest.mark.parametrize(
    "case",
    [PLAIN, TOKENS, CONVOLUTIONS, RESIDUAL, APART],
    ids=["plain", "tokens", "convolutions", "residual", "layers apart"],
)
def test_refits_in_turns_come_closer_than_each_layer_alone(
    case: tuple[str, str], size: int
) -> None:
    proto = weighted(*case, "float[...] y, float[...] z" if case is APART else "float[...] y")
    batches = [judge.drawn(proto, seed, size) for seed in range(120 if size == 1 else 10)]
    unseen = judge.drawn(proto, 999, 200)["x"]
    alone, _ = halved(proto, batches, 1, in_turns=False)
    together, done = halved(proto, batches, 1, in_turns=True)
    assert lost(proto, together, unseen) < 0.98 * lost(proto, alone, unseen)
    assert all(refit.after <= refit.before for refit in done)


def test_a_turn_leaves_the_first_layer_free_where_the_relu_between_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it gives there does not matter, and asking for no change there holds it back."""
    proto = weighted(*PLAIN)
    batches = [judge.drawn(proto, seed, 64) for seed in range(10)]
    fitted = turns._fitted

    def held_back(
        known: Any, task: Any, looked: Any, targets: Callable[[int], Array], on: Any
    ) -> Array:
        if targets.__name__ == "freed":
            return first[0]
        first[:] = [fitted(known, task, looked, targets, on)]
        return first[0]

    first: list[Array] = []
    free = [halved(proto, batches, seed, in_turns=True)[1][-1].after for seed in range(4)]
    monkeypatch.setattr(turns, "_fitted", held_back)
    held = [halved(proto, batches, seed, in_turns=True)[1][-1].after for seed in range(4)]
    assert sum(free) < 0.95 * sum(held)


def test_turns_with_numbers_of_16_bits_stay_finite_and_do_not_hurt() -> None:
    """Squares of such activations, and sums of them, are beyond what 16 bits hold."""
    single = weighted(*PLAIN)
    half = onnx.ModelProto()
    half.CopyFrom(single)
    for tensor in half.graph.initializer:
        data = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(data, tensor.name))
    for info in (*half.graph.input, *half.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    rng = np.random.default_rng(0)
    batches = [{"x": (60 * rng.standard_normal((64, 6))).astype(np.float16)} for _ in range(10)]
    unseen = (60 * rng.standard_normal((500, 6))).astype(np.float16)
    alone, _ = halved(half, batches, 1, in_turns=False)
    together, done = halved(half, batches, 1, in_turns=True)
    assert all(np.isfinite([refit.before, refit.after]).all() for refit in done)
    assert lost(half, together, unseen) < 0.97 * lost(half, alone, unseen)


@pytest.mark.parametrize("case", [PLAIN, CONVOLUTIONS], ids=["plain", "convolutions"])
def test_the_last_turns_take_all_samples_and_help_with_others_but_are_not_made_from_too_few(
    case: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = weighted(*case)
    unseen = judge.drawn(proto, 999, 200)["x"]

    def lost_with(last: int, size: int, count: int) -> float:
        few = partial(turns.in_turns, last=last)
        monkeypatch.setattr("onnxopt.pruning.compensate.in_turns", few)
        batches = [judge.drawn(proto, seed, size) for seed in range(count)]
        return lost(proto, halved(proto, batches, 1, in_turns=True)[0], unseen)

    assert lost_with(4, 32, 10) < 0.98 * lost_with(0, 32, 10)
    assert lost_with(4, 2, 12) == lost_with(0, 2, 12)


def test_the_error_that_is_told_is_the_one_after_the_turns() -> None:
    proto = weighted(*PLAIN)
    batches = [judge.drawn(proto, seed, 64) for seed in range(10)]
    pruned, done = halved(proto, batches, 1, in_turns=True)
    y = [Session(proto).run(batches[i])["y"].astype(np.float64) for i in (4, 9)]
    found = [Session(pruned).run(batches[i])["y"] for i in (4, 9)]
    squares = sum(float(np.square(a - b).sum()) for a, b in zip(y, found, strict=True))
    told = done[-1].after * float(np.square(np.stack(y) - np.mean(y)).sum())
    assert 0.7 * told < squares < told  # they took part in the last turns


def test_a_first_layer_that_is_too_wide_to_be_solved_is_left_out_of_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Moments of 25,088 rows, as of the first product of a VGG, would take 5 GB."""
    proto = weighted(*PLAIN)
    batches = [judge.drawn(proto, seed, 32) for seed in range(10)]
    alone, _ = halved(proto, batches, 1, in_turns=False)
    monkeypatch.setattr("onnxopt.pruning.turns.WIDEST_SOLVED", 5)
    together, _ = halved(proto, batches, 1, in_turns=True)
    assert together.SerializeToString() == alone.SerializeToString()


def test_in_every_turn_the_moments_are_of_the_rows_that_have_targets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Targets of more rows than the moments know would make each change too large."""
    proto = weighted(*PLAIN)
    batches = [judge.drawn(proto, seed, 32) for seed in range(10)]
    fitted, seen = turns._fitted, set()

    def told(known: Any, task: Any, looked: Any, targets: Callable[[int], Array], on: Any) -> Array:
        seen.add((known.count, sum(len(looked.x(number)) for number in on)))
        return fitted(known, task, looked, targets, on)

    monkeypatch.setattr(turns, "_fitted", told)
    halved(proto, batches, 1, in_turns=True)
    assert seen == {(8 * 32, 8 * 32), (10 * 32, 10 * 32)}


def test_samples_in_one_batch_have_judged_already_and_get_no_turns_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proto = weighted(*PLAIN)
    batches = [judge.drawn(proto, 0, 320)]
    whole = halved(proto, batches, 1, in_turns=True)[0]
    few = partial(turns.in_turns, last=0)
    monkeypatch.setattr("onnxopt.pruning.compensate.in_turns", few)
    assert halved(proto, batches, 1, in_turns=True)[0] == whole


def test_a_refit_by_all_samples_leaves_what_a_relu_hides() -> None:
    proto = weighted("float[N,6] x, float[6,4] w", "h = MatMul(x, w) y = Relu(h)")
    channels = Channels(proto, judge.drawn(proto, 0, 2))
    (layer,) = find_layers(channels.model.graph, channels.instance.shape)
    batches = [judge.drawn(proto, seed, 64)["x"] for seed in range(6)]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    old = layer.matrix(weights)
    plain = [x @ weights["w"] for x in batches]
    targets = [np.where(t < 0, 3 * t, t) for t in plain]
    nothing = [np.zeros((), np.float32)] * len(batches)
    looked = Looked(layer, batches, [t.shape for t in targets], 6 * 64)
    new = [by_all_samples(Task(looked, targets, nothing, is_hidden, weights), old, 1e-3)
           for is_hidden in (True, False)]  # fmt: skip
    assert np.abs(new[0] - old).max() < 1e-4 < 0.1 < np.abs(new[1] - old).max()
