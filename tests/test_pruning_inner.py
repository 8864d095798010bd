"""Layers inside of operators, and weights that are stored as integers: what refits restore."""

from __future__ import annotations

import judge
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from cuts import weighted
from pruning_cases import CASES

from onnxopt.graph import Array
from onnxopt.pruning.biases import with_biases, without_zero_biases
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import compensate, following
from onnxopt.pruning.layers import Layer, find_layers
from onnxopt.pruning.readers import readers
from onnxopt.pruning.refit import Refit
from onnxopt.pruning.sensitivity import damages, factors, output_change
from onnxopt.pruning.statistics import rank
from onnxopt.pruning.stepper import set_weights, weights_of
from onnxopt.runtime import Session

ATTENTION = (
    "float[N,5,6] x, float[6,8] w1, float[8,36] wa, float[36] wb, float[12,6] wo",
    "h = MatMul(x, w1) o = com.microsoft.Attention<num_heads=3>(h, wa, wb) y = MatMul(o, wo)",
)
FUSED = (
    "float[N,3,6,6] x, float[8,3,1,1] w1, float[8] wb1, float[4,8,3,3] w2, float[4] wb2",
    "a = Conv(x, w1, wb1)"
    " y = com.microsoft.FusedConv<{0},kernel_shape=[3,3],pads=[1,1,1,1]>(a, w2, wb2)",
)
FUSED_GROUPS = (
    "float[N,3,6,6] x, float[8,3,1,1] w1, float[8] wb1, float[6,4,3,3] w2, float[6] wb2",
    "a = Conv(x, w1, wb1) y = com.microsoft.FusedConv<{0},kernel_shape=[3,3],group=2>(a, w2, wb2)",
)
GEMM = (
    "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[4] wb2",
    "a = Gemm(x, w1, wb1) y = com.microsoft.FusedGemm<{0},alpha=0.5>(a, w2, wb2)",
)
RELU = 'activation="Relu"'
LEAKY = 'activation="LeakyRelu",activation_params=[0.1]'
GEMM_LEAKY = 'activation="LeakyRelu",activation_alpha=0.1'
INNER = {
    "attention": (ATTENTION[0], ATTENTION[1], "w1", "h"),
    "FusedConv with Relu": (FUSED[0], FUSED[1].format(RELU), "w1", "a"),
    "FusedConv with LeakyRelu": (FUSED[0], FUSED[1].format(LEAKY), "w1", "a"),
    "FusedConv in groups": (FUSED_GROUPS[0], FUSED_GROUPS[1].format(LEAKY), "w1", "a"),
    "FusedGemm with Relu": (GEMM[0], GEMM[1].format(RELU), "w1", "a"),
    "FusedGemm with LeakyRelu": (GEMM[0], GEMM[1].format(GEMM_LEAKY), "w1", "a"),
}
OUTER = {
    "Einsum of heads": (
        "float[N,5,6] x, float[6,8] w1, float[4,2,3] w2",
        'a = MatMul(x, w1) r = Reshape(a, s) y = Einsum<equation="bshd,hdo->bso">(r, w2)',
        "int64[4] s = {0, 0, 4, 2}",
    ),
    "Einsum": (
        "float[N,5,6] x, float[6,8] w1, float[8,3] w2",
        'a = MatMul(x, w1) y = Einsum<equation="bsi,ij->bsj">(a, w2)',
        "",
    ),
    "a weight on the left": (
        "float[N,5,6] x, float[6,8] w1, float[3,8] w2",
        "a = MatMul(x, w1) t = Transpose<perm=[0,2,1]>(a) y = MatMul(w2, t)",
        "",
    ),
    "a weight for each of two": (
        "float[N,6] x, float[6,8] w1, float[2,8,3] w2",
        "a = MatMul(x, w1) u = Unsqueeze(a, one) v = Unsqueeze(u, one)"
        " e = Expand(v, s) y = MatMul(e, w2)",
        "int64[1] one = {1}, int64[4] s = {1, 2, 4, 1}",
    ),
    "ConvTranspose in groups": (
        "float[N,3,5,5] x, float[8,3,1,1] w1, float[8] wb1, float[8,1,3,3] w2, float[4] wb2,"
        " float[4,4,1,1] w3",
        "a = Conv(x, w1, wb1) b = ConvTranspose<group=4,strides=[2,2]>(a, w2, wb2) y = Conv(b, w3)",
        "",
    ),
    "Gemm times two": (
        "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[4] wb2",
        "a = Gemm(x, w1, wb1) y = Gemm<alpha=2.0,beta=0.5>(a, w2, wb2)",
        "",
    ),
}


def batches_of(proto: onnx.ModelProto, count: int = 10, size: int = 8) -> list[dict[str, Array]]:
    return [judge.drawn(proto, seed, size) for seed in range(count)]


def layers_of(proto: onnx.ModelProto, size: int = 3) -> tuple[Channels, list[Layer]]:
    channels = Channels(proto, judge.drawn(proto, 0, size))
    return channels, list(find_layers(channels.model.graph, channels.instance.shape))


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    return made


def refitted(
    original: onnx.ModelProto, changed: onnx.ModelProto, batches: list[dict[str, Array]]
) -> tuple[onnx.ModelProto, list[Refit]]:
    made = copied(changed)
    after, layers = layers_of(made)
    follows = following(after.model.graph, layers, after.instance.shape)
    return made, compensate(original, made, layers, follows, {}, batches)


def change(
    original: onnx.ModelProto, found: onnx.ModelProto, batches: list[dict[str, Array]]
) -> float:
    first, second = Session(original), Session(found)
    lost = output_change([first.run(b) for b in batches], [second.run(b) for b in batches])
    assert lost is not None
    return lost


def lost_without_loss(
    proto: onnx.ModelProto, batches: list[dict[str, Array]], name: str
) -> tuple[float, float]:
    """The change of the outputs where the least important unit is gone, before and after refits."""
    channels, layers = layers_of(proto)
    place = next(i for i, g in enumerate(channels.groups) if g.name == name)
    assert readers(channels.groups[place], layers, channels)
    ranking = rank(proto, channels, channels.groups, layers, batches)[place]
    assert ranking.measured and ranking.curve[1] < 1e-3 < ranking.curve[-1]
    dead = {channels.groups[place].units[int(ranking.order[0])]}
    cut = channels.cut(dead)
    made = copied(cut)
    after, layers = layers_of(made)
    follows = following(after.model.graph, layers, after.instance.shape)
    compensate(proto, made, layers, follows, channels.kept(dead), batches)
    return change(proto, cut, batches), change(proto, made, batches)


@pytest.mark.parametrize("case", INNER)
def test_channels_that_others_make_up_for_are_cut_without_loss(case: str) -> None:
    """There are 8 channels of 3 or 6 inputs: at least two are sums of the others."""
    inputs, body, _, name = INNER[case]
    proto = weighted(inputs, body)
    before, after = lost_without_loss(proto, batches_of(proto), name)
    assert before > 1e-3
    assert after < 1e-3 * before


@pytest.mark.parametrize("case", OUTER)
def test_channels_of_products_over_any_axes_are_cut_without_loss(case: str) -> None:
    inputs, body, constants = OUTER[case]
    proto = weighted(inputs, body, constants=constants)
    channels, layers = layers_of(proto)
    assert "w2" in {name for layer in layers for name in layer.weights}
    reader = next(
        (group, reader)
        for group in channels.groups
        for reader in readers(group, layers, channels)
        if reader.layer.weight == "w2"
    )
    for rows in reader[1].rows:
        count = reader[1].layer.matrix(weights_of(proto, ["w2", "wb2"])).shape[1] - 1
        assert sorted(np.concatenate(rows).tolist()) == list(range(count))
    if case in ("Einsum of heads", "ConvTranspose in groups"):
        return  # what is cut there is more than one channel: nothing else makes up for that
    before, after = lost_without_loss(proto, batches_of(proto), reader[0].name)
    assert before > 1e-3
    assert after < 1e-3 * before


@pytest.mark.parametrize("case", INNER)
def test_what_an_operator_computes_inside_is_learnt_back(case: str) -> None:
    """Other weights in the pruned model; the target is what the original's weights make."""
    inputs, body, _, _ = INNER[case]
    proto = weighted(inputs, body)
    name = "wa" if case == "attention" else "w2"
    batches = batches_of(proto)
    changed = copied(proto)
    set_weights(changed, {name: weights_of(proto, [name])[name] * np.float32(0.7)})
    made, done = refitted(proto, changed, batches)
    assert any(refit.kept and refit.after < 1e-3 * refit.before for refit in done)
    assert change(proto, made, batches) < 1e-3 * change(proto, changed, batches)


@pytest.mark.parametrize("case", INNER)
def test_only_behind_a_relu_what_is_negative_is_free(case: str) -> None:
    channels, layers = layers_of(weighted(*INNER[case][:2]))
    after = following(channels.model.graph, layers, channels.instance.shape)
    inner = next(layer for layer in layers if layer.inner)
    (found,) = after[inner.output]
    assert found.rectified == ("Relu" in case and "Leaky" not in case) and not found.shortcut


def test_heads_that_are_cut_leave_the_targets_of_those_that_stay() -> None:
    proto = weighted(*ATTENTION)
    channels, layers = layers_of(proto)
    heads = next(group for group in channels.groups if len(group.units) == 3)
    dead = {heads.units[1]}
    batches = batches_of(proto)
    cut = channels.cut(dead)
    weights = weights_of(cut, ["wa"])["wa"] * np.float32(0.7)
    set_weights(cut, {"wa": weights})
    after, layers = layers_of(cut)
    follows = following(after.model.graph, layers, after.instance.shape)
    done = compensate(proto, cut, layers, follows, channels.kept(dead), batches)
    found = next(refit for refit in done if refit.layer == "o")
    assert found.kept and found.after < 1e-3 * found.before
    stays = np.r_[0:4, 8:16, 20:28, 32:36]
    expected = weights_of(proto, ["wa"])["wa"][:, stays]
    h = np.concatenate([b["x"].reshape(-1, 6) for b in batches]) @ weights_of(cut, ["w1"])["w1"]
    np.testing.assert_allclose(h @ weights_of(cut, ["wa"])["wa"], h @ expected, rtol=0.1, atol=0.2)


def test_recurrent_layers_and_what_feeds_them_have_trials_and_damages() -> None:
    case = next(case for case in CASES if case.name == "stacked_bidirectional_lstm")
    proto = with_biases(case.model())
    batches = batches_of(proto, 3, 4)
    channels, layers = layers_of(proto)
    rankings = rank(proto, channels, channels.groups, layers, batches)
    assert len(rankings) == 2 and all(r.measured and r.readers == 1 for r in rankings)
    assert {name for trial in rankings[0].trials for name in trial} >= {"wr", "wx2"}
    for trial in rankings[0].trials:  # both directions lose the same ones
        gone = [unit for unit in range(4) if not trial["wr"][0, :, unit].any()]
        assert gone and not trial["wr"][:, :, gone].any()
    assert rankings[0].curve[-1] < 2.1  # of two nodes, however many gates they have
    assert {name for trial in rankings[1].trials for name in trial} >= {"wr2", "wo"}
    for lost in damages(rankings, factors(copied(proto), rankings, batches)):
        assert np.isfinite(lost).all() and lost[-1] > 0


QDQ = next(case for case in CASES if case.name == "qdq")


def test_integers_stand_for_the_numbers_that_onnx_runtime_takes_them_for() -> None:
    proto = QDQ.model()
    feeds = judge.drawn(proto, 1, 3)
    shown = copied(proto)
    shown.graph.output.extend(onnx.ValueInfoProto(name=n) for n in "ac")
    run = Session(shown).run(feeds)
    _, layers = layers_of(proto)
    assert [layer.node for layer in layers] == ["c", "y"]
    first = layers[0]
    weights = weights_of(proto, first.parameters)
    matrix = first.matrix(weights)
    body = run["a"].reshape(8, -1).T
    np.testing.assert_allclose(matrix[0, :-1], body, rtol=1e-6)
    positions = np.arange(36)[None].repeat(3, axis=0)
    made = first.rows(feeds["x"], positions) @ matrix[0, :-1] + matrix[0, -1]
    np.testing.assert_allclose(made, first.outputs(run["c"], positions), rtol=1e-4, atol=1e-4)
    for name, array in first.stored(matrix, weights).items():
        assert array.dtype == weights[name].dtype and np.array_equal(array, weights[name])
    clipped = first.stored(matrix + 100, weights)  # the scales stay
    assert clipped[first.quantized[0].integers].max() == 127
    moved = first.stored(matrix + 0.02, weights)
    found = first.matrix({**weights, **moved})
    steps = np.array([0.01, 0.02] * 4)
    assert (np.abs(found - (matrix + 0.02))[0] <= steps / 2 + 1e-6).all()


def test_quantized_weights_are_ranked_by_samples_and_refitted_to_integers() -> None:
    proto = QDQ.model()
    batches = batches_of(proto)
    channels, layers = layers_of(proto)
    (ranking,) = rank(proto, channels, channels.groups, layers, batches)
    assert ranking.measured
    changed = copied(proto)
    other = weights_of(proto, ["w1"])["w1"].astype(np.int16)
    set_weights(changed, {"w1": np.clip(other - 3, -128, 127).astype(np.int8)})
    made, done = refitted(proto, changed, batches)
    assert done[0].kept and done[0].after < 0.05 * done[0].before
    assert weights_of(made, ["w1"])["w1"].dtype == np.int8
    # What is reported is the error of the integers that were stored.
    _, (again, _) = refitted(proto, made, batches)
    assert again.before == pytest.approx(done[0].after, rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        ("b = DequantizeLinear", "q = DequantizeLinear(w1, s, z) b = DequantizeLinear"),
        ("c = Conv(x, a, b)", "q = ReduceSum(a) c = Conv(x, a, b)"),
    ],
    ids=["integers", "numbers"],
)
def test_quantized_weights_that_others_read_too_are_no_layer(change: tuple[str, str]) -> None:
    proto = weighted(QDQ.inputs, QDQ.body.replace(*change), constants=QDQ.constants)
    _, layers = layers_of(proto)
    assert [layer.node for layer in layers] == ["y"]


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_nodes_get_biases_that_go_again_if_nothing_uses_them(op: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    proto = weighted(
        f"float[3,N,6] x, float[2,{5 * gates},6] w, float[2,{5 * gates},5] wr",
        f'y, = {op}<hidden_size=5, direction="bidirectional">(x, w, wr)',
    )
    made = with_biases(proto)
    assert weights_of(made, [made.graph.node[0].input[3]]).popitem()[1].shape == (2, 10 * gates)
    feeds = judge.drawn(proto, 0, 2)
    assert np.array_equal(Session(proto).run(feeds)["y"], Session(made).run(feeds)["y"])
    assert list(without_zero_biases(made).graph.node[0].input) == ["x", "w", "wr"]


def test_layers_that_share_a_bias_get_one_each() -> None:
    """Else their channels would belong together, and no refit could change it."""
    proto = weighted(
        "float[N,3,4,4] x, float[8,3,1,1] w1, float[8,8,1,1] w2, float[8,8,1,1] w3, float[8] wb",
        "a = Conv(x, w1, wb) b = Relu(a) c = Conv(b, w2, wb) d = Relu(c) y = Conv(d, w3)",
    )
    channels, layers = layers_of(proto)
    assert [len(group.units) for group in channels.groups] == [8] and len(layers) == 1
    made = with_biases(proto)
    channels, layers = layers_of(made)
    assert [len(group.units) for group in channels.groups] == [8, 8] and len(layers) == 3
    feeds = judge.drawn(proto, 0, 2)
    assert np.array_equal(Session(proto).run(feeds)["y"], Session(made).run(feeds)["y"])


def test_a_bias_that_callers_may_override_stays_shared() -> None:
    proto = weighted(
        "float[N,3,4,4] x, float[8,3,1,1] w1, float[8,8,1,1] w2, float[8] wb",
        "a = Conv(x, w1, wb) b = Relu(a) y = Conv(b, w2, wb)",
    )
    proto.graph.input.add().CopyFrom(
        onnx.helper.make_tensor_value_info("wb", onnx.TensorProto.FLOAT, [8])
    )
    assert {node.input[2] for node in with_biases(proto).graph.node if node.op_type == "Conv"} == {
        "wb"
    }
