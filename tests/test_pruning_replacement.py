"""Stand-ins from samples: a linear branch is found exactly, and errors are told as they are."""

from __future__ import annotations

from collections.abc import Sequence

import judge
import numpy as np
import onnx
import pytest
from block_cases import WITH_BLOCKS, Case
from cuts import weighted
from test_pruning_blocks import blocks_in, case
from test_pruning_removal import shown_values

from onnxopt.graph import Array
from onnxopt.model import Model, load
from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.biases import with_biases
from onnxopt.pruning.blocks import Block, blocks_of
from onnxopt.pruning.compensate import compensate, following
from onnxopt.pruning.instance import run_instance
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.removal import Removed, Replaced, StandIn, without
from onnxopt.pruning.replacement import Fits, fits_of, fitted
from onnxopt.runtime import Session
from onnxopt.shapes import infer
from onnxopt.verification.feeds import draws

LINEAR = {
    "convolution": (
        "float[N,4,6,6] x, float[6,4,1,1] w1, float[6] w1b, float[4,6,1,1] w2, float[5,4,3,3] w3",
        "a = Tanh(x) c = Conv(a, w1, w1b) d = Conv(c, w2) s = Add(d, a) y = Conv(s, w3)",
    ),
    "one dimension": (
        "float[N,4,9] x, float[4,4,1] w1, float[4] w1b",
        "a = Tanh(x) c = Conv(a, w1, w1b) s = Add(c, a) y = Relu(s)",
    ),
    "rows": (
        "float[N,S,6] x, float[6,6] w1, float[6] w1b",
        "a = Tanh(x) m = MatMul(a, w1) b = Add(m, w1b) s = Add(a, b) y = Sigmoid(s)",
    ),
    "matrix": (
        "float[N,6] x, float[6,6] w1, float[6] w1b",
        "a = Tanh(x) b = Gemm(a, w1, w1b) s = Add(a, b) y = Sigmoid(s)",
    ),
}


def batches_of(proto: onnx.ModelProto, count: int = 10, size: int = 32) -> list[dict[str, Array]]:
    return [judge.drawn(proto, seed, size) for seed in range(count)]


def fitted_to(proto: onnx.ModelProto) -> tuple[Block, Fits]:
    """The one block of a model, and what may stand for it."""
    (block,) = blocks_of(proto, judge.drawn(proto)).found
    return block, fits_of(proto, [block], batches_of(proto))[block]


@pytest.mark.parametrize("name", LINEAR)
def test_a_map_in_place_of_a_linear_branch_changes_nothing_but_rounding(name: str) -> None:
    inputs, body = LINEAR[name]
    proto = weighted(inputs, body)
    block, fits = fitted_to(proto)
    assert fits.map is not None
    assert fits.map.error < 1e-9 < 0.01 < fits.nothing.error
    small = without(proto, {block: fits.map.standin})
    for seed in range(3):
        assert_close(proto, small, judge.drawn(proto, 100 + seed, 4))
    assert_close(proto, optimize(small, Options(verify=False)).model, judge.drawn(proto, 200, 4))


def assert_close(a: onnx.ModelProto, b: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    """Up to rounding, of samples in float32 too."""
    expected, found = Session(a).run(feeds)["y"], Session(b).run(feeds)["y"]
    assert np.abs(expected - found).max() <= 1e-4 * np.abs(expected).max()


def test_a_map_is_folded_into_the_next_convolution() -> None:
    inputs, body = LINEAR["convolution"]
    proto = weighted(inputs, body)
    block, fits = fitted_to(proto)
    assert fits.map is not None
    tidy = optimize(without(proto, {block: fits.map.standin}), Options(verify=False)).model
    assert judge.operators(tidy) == ["Tanh", "Conv"]


def test_the_constant_is_the_mean_of_the_branch_in_each_channel() -> None:
    proto = case("basic").model()
    block, fits = fitted_to(proto)
    batches = batches_of(proto)
    assert fits.constant is not None
    assert isinstance(fits.constant.standin, Removed)
    given = [shown_values(proto, [block.branch], feeds)[0] for feeds in batches]
    mean = np.concatenate(given).mean(axis=(0, 2, 3))
    assert fits.constant.standin.offset is not None
    np.testing.assert_allclose(fits.constant.standin.offset, mean, 1e-4, 1e-5)


def told(proto: onnx.ModelProto, block: Block, standin: StandIn) -> float:
    """The error at the exit on the batches that judge, behind the Relu."""
    pairs = []
    small = without(proto, {block: standin})
    for feeds in batches_of(proto)[4::5]:
        (a,), (b,) = (shown_values(m, [block.exit], feeds) for m in (proto, small))
        pairs.append((np.maximum(a, 0), np.maximum(b, 0)) if block.rectified else (a, b))
    a, b = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*pairs, strict=True))
    return float(np.square(a - b).sum() / np.square(a - a.mean()).sum())


@pytest.mark.parametrize("name", ["basic", "input to output", "Gemm", "post-norm transformer"])
def test_errors_are_those_of_the_sum_on_samples_that_took_no_part(name: str) -> None:
    proto = case(name).model()
    blocks = blocks_of(proto, judge.drawn(proto)).found
    for block, fits in fits_of(proto, blocks, batches_of(proto)).items():
        assert fits.constant is not None
        assert fits.map is not None
        assert fits.nothing.error == pytest.approx(told(proto, block, Removed()), rel=1e-3)
        # the constant and the map that are kept have seen the judging samples too
        for fit in (fits.constant, fits.map):
            assert fit.error == pytest.approx(told(proto, block, fit.standin), rel=0.2)
        assert fits.map.error <= min(fits.nothing.error, fits.constant.error)


@pytest.mark.parametrize("case", WITH_BLOCKS, ids=lambda case: case.name)
def test_every_block_gets_stand_ins_that_run(case: Case) -> None:
    proto = case.model()
    blocks = blocks_of(proto, judge.drawn(proto)).found
    feeds = batches_of(proto, 4)
    for block, fits in fits_of(proto, blocks, feeds).items():
        assert (fits.map is None) == (block.axis is None)
        for fit in (fits.nothing, fits.constant, fits.map):
            if fit is not None:
                small = without(proto, {block: fit.standin})
                runs = [Session(model).run(feeds[0]) for model in (proto, small)]
                shapes = [{name: value.shape for name, value in run.items()} for run in runs]
                assert shapes[0] == shapes[1]


def test_fits_of_one_block_do_not_depend_on_the_others() -> None:
    proto = case("preactivation chain").model()
    blocks = blocks_of(proto, judge.drawn(proto)).found
    together = fits_of(proto, blocks[::-1], batches_of(proto))
    for block in blocks:
        alone = fits_of(proto, [block], batches_of(proto))[block]
        assert alone.nothing.error == together[block].nothing.error
        maps = [found.map for found in (alone, together[block])]
        assert len({fit.error for fit in maps if fit is not None}) == 1


def test_what_was_cut_before_a_block_is_made_up_for_by_its_map() -> None:
    """Inputs of the pruned model, targets of the original."""
    rng = np.random.default_rng(0)
    proto = case("input to output").model()
    (block,) = blocks_of(proto, judge.drawn(proto)).found
    targets = [rng.normal(size=(8, 4, 8, 8)).astype(np.float32) for _ in range(5)]
    inputs = [np.asarray(t * 0.5 + 3, np.float32) for t in targets]
    fits = fitted(block, inputs, targets, 40)
    assert fits.map is not None
    assert isinstance(fits.map.standin, Replaced)
    np.testing.assert_allclose(fits.map.standin.matrix, 2 * np.eye(4), atol=1e-3)
    np.testing.assert_allclose(fits.map.standin.offset, np.full(4, -6), rtol=1e-3)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_a_map_from_few_samples_is_never_worse_than_the_best_without_one(shift: float) -> None:
    rng = np.random.default_rng(2)
    block = Block("b", "x", "c", "y", ("c",), shape=(2, 16), axis=-1)
    inputs = [rng.normal(size=(2, 16)).astype(np.float32) for _ in range(5)]
    targets = [np.asarray(x + shift + rng.normal(size=x.shape), np.float32) for x in inputs]
    fits = fitted(block, inputs, targets, 10)
    assert fits.map is not None
    assert fits.constant is not None
    assert fits.map.error <= min(fits.nothing.error, fits.constant.error)
    assert (fits.constant.error < fits.nothing.error) == bool(shift)


REAL = ("cifar10/resnet20", "real/mobilenetv2_int8_qdq_op18", "real/bert_tiny_fp16_op11")


@pytest.mark.parametrize("name", REAL)
def test_blocks_of_real_models_can_be_replaced(name: str) -> None:
    proto, blocks = blocks_in(name)
    feeds: Sequence[dict[str, Array]] = [dict(f.arrays) for f in draws(proto, Session(proto)).feeds]
    same = [f for f in feeds if shapes_of(f) == shapes_of(feeds[0])][:4]
    block = blocks.found[len(blocks.found) // 2]
    fits = fits_of(proto, [block], same)[block]
    before = Session(proto).run(same[0])
    for fit in (fits.nothing, fits.constant, fits.map):
        assert fit is not None
        after = Session(without(proto, {block: fit.standin})).run(same[0])
        assert {k: (v.shape, v.dtype) for k, v in before.items()} == {
            k: (v.shape, v.dtype) for k, v in after.items()
        }
        assert all(np.isfinite(v.astype(np.float64)).all() for v in after.values())


def shapes_of(feeds: dict[str, Array]) -> list[tuple[int, ...]]:
    return [array.shape for array in feeds.values()]


@pytest.mark.parametrize("kind", ["removed", "map"])
def test_a_model_without_blocks_is_refitted_like_any_other(kind: str) -> None:
    """Under the old names, maps among the layers: their targets are the original's sums."""
    proto = optimize(load(judge.REPOSITORY / "models" / "digits_resnet.onnx")).model
    proto = with_biases(proto)
    name = proto.graph.input[0].name
    with np.load(judge.REPOSITORY / "models" / "digits_resnet_calibration.npz") as file:
        images = file[file.files[0]][:192]
    batches = [{name: images[start : start + 32]} for start in range(0, 160, 32)]
    blocks = blocks_of(proto, batches[0]).found[:3]
    fits = fits_of(proto, blocks, batches)
    standins = {b: fits[b].nothing.standin for b in blocks}
    if kind == "map":
        standins = {b: fit.standin for b in blocks if (fit := fits[b].map) is not None}
    small = without(proto, standins)
    model = Model.from_proto(small)
    infer(model)
    shape = run_instance(small, batches[0]).shape
    layers = list(find_layers(model.graph, shape))
    refitted = onnx.ModelProto()
    refitted.CopyFrom(small)
    compensate(proto, refitted, layers, following(model.graph, layers, shape), {}, batches)
    unseen = {name: images[160:]}
    expected, before, after = (
        next(iter(Session(each).run(unseen).values())) for each in (proto, small, refitted)
    )
    assert np.square(after - expected).sum() < 0.5 * np.square(before - expected).sum()
