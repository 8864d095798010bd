"""Two layers refitted in turns: the adjoint, the targets between them, and what that gains."""

from __future__ import annotations

import judge
import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from onnxopt.graph import Array
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import compensate, following
from onnxopt.pruning.layers import Layer, find_layers
from onnxopt.pruning.linear_map import LinearMap
from onnxopt.pruning.pairs import find_pairs
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


BLOCK = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,6] x) => (float[N,5] y) {
    h = Gemm(x, A, a)
    r = Relu(h)
    y = Gemm(r, B, b)
}"""


def _block(hidden: int, seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    model = judge.model(BLOCK)
    shapes = {"A": (6, hidden), "a": (hidden,), "B": (hidden, 5), "b": (5,)}
    for name, shape in shapes.items():
        data: Array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    return model


@pytest.mark.parametrize("seed", range(3))
def test_refits_in_turns_come_closer_than_each_layer_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    original = _block(16, seed)
    batches = [{"x": rng.normal(size=(64, 6)).astype(np.float32)} for _ in range(12)]
    unseen = rng.normal(size=(500, 6)).astype(np.float32)
    expected = Session(original).run({"x": unseen})["y"]
    errors: list[float] = []
    dead = rng.permutation(16)[:8]
    for in_turns in (False, True):
        channels = Channels(original, batches[0])
        (group,) = channels.groups
        units = [group.units[i] for i in dead]
        pruned = channels.cut(units)
        after = Channels(pruned, batches[0])
        layers = list(find_layers(after.model.graph, after.instance.shape))
        pairs = find_pairs(after.model.graph, layers)
        assert [first.node for first in pairs.values()] == ["h"]
        compensate(
            original,
            pruned,
            layers,
            following(after.model.graph, layers, after.instance.shape),
            channels.kept(units),
            batches,
            pairs=pairs if in_turns else {},
        )
        errors.append(float(np.square(Session(pruned).run({"x": unseen})["y"] - expected).mean()))
    assert errors[1] < 0.95 * errors[0]
