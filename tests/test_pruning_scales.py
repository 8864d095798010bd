"""Scales of BatchNormalizations order channels, though the rewriting has folded them away."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from cuts import weighted
from judge import REPOSITORY

from onnxopt.calibration import Calibration, load_calibration
from onnxopt.errors import UsageError
from onnxopt.graph import Array
from onnxopt.model import load
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.prune import Pruner
from onnxopt.signature import model_inputs

BN_SCALE = PruneOptions(criterion="bn-scale")
PAD = "<pads = [1, 1, 1, 1]>"


def bn(number: int, size: int = 8) -> str:
    """The weights of one BatchNormalization."""
    names = (f"wg{number}", f"wb{number}", f"wm{number}", f"wvar{number}")
    return "".join(f", float[{size}] {name}" for name in names)


def norm(made: str, data: str, number: int) -> str:
    return f" {made} = BatchNormalization({data}, wg{number}, wb{number}, wm{number}, wvar{number})"


def scale(proto: onnx.ModelProto, *names: str) -> Array:
    """Sizes of scales, summed over several BatchNormalizations."""
    held = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    return np.asarray(sum(np.abs(held[name].astype(np.float64)) for name in names))


def orders(proto: onnx.ModelProto, calibration: Calibration | None = None) -> dict[str, list[int]]:
    """For each group, by name, the order in which its channels go."""
    analysis = Pruner(proto, calibration, BN_SCALE).analysis("flops")
    pairs = zip(analysis.groups, analysis.rankings, strict=True)
    return {group.name: ranking.order.tolist() for group, ranking in pairs}


def ascending(scores: Array) -> list[int]:
    return list(np.argsort(scores, kind="stable"))


def samples(proto: onnx.ModelProto, count: int = 40) -> Calibration:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((count, 3, 6, 6)).astype(np.float32)}
    return Calibration.from_arrays(arrays, model_inputs(proto))


CHAIN = weighted(
    "float[N,3,6,6] x, float[8,3,3,3] w1" + bn(1) + ", float[8,8,3,3] w2" + bn(2)
    + ", float[5,8,1,1] w3",
    f"c1 = Conv{PAD}(x, w1)" + norm("n1", "c1", 1) + " r1 = Relu(n1)"
    + f" c2 = Conv{PAD}(r1, w2)" + norm("n2", "c2", 2) + " r2 = Relu(n2) y = Conv(r2, w3)",
)  # fmt: skip


@pytest.mark.parametrize("with_samples", [False, True])
def test_what_a_folded_batchnorm_multiplied_least_goes_first(with_samples: bool) -> None:
    found = orders(CHAIN, samples(CHAIN) if with_samples else None)
    # A group without a name of its node is called by the value: of the folded node.
    assert list(found.values()) == [
        ascending(scale(CHAIN, "wg1")),
        ascending(scale(CHAIN, "wg2")),
    ]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in CHAIN.graph.initializer}
    folded = weights["wg1"] / np.sqrt(weights["wvar1"] + 1e-5)
    size = np.linalg.norm(weights["w1"].reshape(8, -1), axis=1) * np.abs(folded)
    assert next(iter(found.values())) != ascending(size)


def test_all_scales_of_a_residual_stream_count_together() -> None:
    proto = weighted(
        "float[N,3,6,6] x, float[8,3,3,3] w0" + bn(0) + ", float[6,8,3,3] w1" + bn(1, 6)
        + ", float[8,6,3,3] w2" + bn(2) + ", float[5,8,1,1] w3",
        f"c0 = Conv{PAD}(x, w0)" + norm("n0", "c0", 0) + " r0 = Relu(n0)"
        + f" c1 = Conv{PAD}(r0, w1)" + norm("n1", "c1", 1) + " r1 = Relu(n1)"
        + f" c2 = Conv{PAD}(r1, w2)" + norm("n2", "c2", 2)
        + " s = Add(n2, r0) r2 = Relu(s) y = Conv(r2, w3)",
    )  # fmt: skip
    stream, inner = orders(proto).values()
    assert stream == ascending(scale(proto, "wg0", "wg2"))
    assert inner == ascending(scale(proto, "wg1"))
    assert stream != ascending(scale(proto, "wg0")) != ascending(scale(proto, "wg2"))


@pytest.mark.parametrize(
    ("weights", "body", "scales"),
    [
        # Something else reads the convolution, so the BatchNormalization stays.
        ("float[8,3,3,3] w1", "c = Conv(x, w1)" + norm("n", "c", 1) + " r = Add(n, c)", ("wg1",)),
        # So does one after a Relu.
        ("float[8,3,3,3] w1", "c = Conv(x, w1) s = Relu(c)" + norm("r", "s", 1), ("wg1",)),
        # Two in a row are merged, and a factor is folded into the one before.
        (
            "float[8,3,3,3] w1" + bn(2) + ", float[8,1,1] wk",
            "c = Conv(x, w1)" + norm("n", "c", 1) + norm("m", "n", 2) + " r = Mul(m, wk)",
            ("wg1", "wg2"),
        ),
        ("float[3,8,3,3] w1", "c = ConvTranspose(x, w1)" + norm("r", "c", 1), ("wg1",)),
        (
            "float[8,3,3,3] w1",
            "c = Conv(x, w1) g = Identity(wg1)"
            " r = BatchNormalization(c, g, wb1, wm1, wvar1)",
            ("wg1",),
        ),
        # Of a depthwise convolution both count.
        (
            "float[8,3,3,3] w1, float[8,1,3,3] wd" + bn(2),
            "c = Conv(x, w1)" + norm("n", "c", 1) + " s = Relu(n) d = Conv<group = 8>(s, wd)"
            + norm("r", "d", 2),
            ("wg1", "wg2"),
        ),
    ],
)  # fmt: skip
def test_wherever_the_batchnorm_is_its_scale_is_found(
    weights: str, body: str, scales: tuple[str, ...]
) -> None:
    proto = weighted(
        f"float[N,3,6,6] x, {weights}{bn(1)}, float[5,8,1,1] w9",
        f"{body} z = Relu(r) y = Conv(z, w9)",
    )
    (found,) = orders(proto).values()
    assert found == ascending(scale(proto, *scales))


@pytest.mark.parametrize("product", ["c = MatMul(x, w1)", "c = Gemm(x, w1)"])
def test_hidden_units_of_products_have_scales_too(product: str) -> None:
    proto = weighted(
        "float[N,6] x, float[6,8] w1" + bn(1) + ", float[8,4] w2",
        product + norm("n", "c", 1) + " r = Relu(n) y = MatMul(r, w2)",
    )
    (found,) = orders(proto).values()
    assert found == ascending(scale(proto, "wg1"))


def test_groups_without_a_batchnorm_go_by_their_weights_and_are_named() -> None:
    proto = weighted(
        "float[N,3,6,6] x, float[8,3,3,3] w1" + bn(1) + ", float[7,8,3,3] w2, float[5,7,1,1] w3",
        f"c1 = Conv{PAD}(x, w1)" + norm("n1", "c1", 1) + " r1 = Relu(n1)"
        + f" c2 = Conv{PAD}(r1, w2) r2 = Relu(c2) y = Conv(r2, w3)",
    )  # fmt: skip
    pruner = Pruner(proto, None, BN_SCALE)
    first, second = pruner.analysis("latency").rankings
    assert list(first.order) == ascending(scale(proto, "wg1"))
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert list(second.order) == ascending(np.linalg.norm(weights["w2"].reshape(7, -1), axis=1))
    (note,) = pruner.analysis("latency").notes
    assert note.endswith("(l2): c2") and note in pruner.at(Budget("flops", 0.5)).notes


def test_a_model_without_any_batchnorm_is_refused_with_the_way_out() -> None:
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[8,4] w2",
        "c = MatMul(x, w1) r = Relu(c) y = MatMul(r, w2)",
    )
    with pytest.raises(UsageError, match="no group of them has one") as error:
        _ = Pruner(proto, None, BN_SCALE).analysis("flops")
    assert "--criterion" in error.value.fix


DIGITS = REPOSITORY / "models" / "digits_resnet.onnx"


def test_the_inner_channels_of_a_real_model_go_by_their_scales_in_two_rounds_as_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proto = load(DIGITS)
    held = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    made = {node.output[0]: node for node in proto.graph.node}
    expected = {
        made[node.input[0]].name: np.abs(held[node.input[1]])
        for node in proto.graph.node
        if node.op_type == "BatchNormalization" and made[node.input[0]].op_type == "Conv"
    }
    monkeypatch.setattr("onnxopt.pruning.approach.ONE_ROUND", 0.6)
    data = load_calibration(
        DIGITS.with_name("digits_resnet_calibration.npz"), model_inputs(proto), samples=40
    )
    done = Pruner(proto, data, PruneOptions(criterion="bn-scale")).at(Budget("flops", 0.4))
    assert len(done.rounds) == 2
    checked = 0
    for first, second in zip(*(round_.groups for round_ in done.rounds), strict=True):
        assert first.name == second.name
        if not first.name.endswith("conv1/Conv"):
            continue  # the groups of the stream have several scales
        scales = expected[first.name]
        left = np.delete(np.arange(len(scales)), first.removed)
        kept = np.delete(left, second.removed)
        gone = np.setdiff1d(np.arange(len(scales)), kept)
        assert len(kept) + len(second.removed) + len(first.removed) == len(scales)
        assert not len(gone) or scales[kept].min() >= scales[gone].max()
        checked += bool(len(second.removed))
    assert checked >= 2
