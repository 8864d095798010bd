"""Rows are what a convolution multiplies, and moments say what the rows would."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt.pruning.moments import (
    Array,
    Moments,
    NotFiniteError,
    im2col,
    im2col_transposed,
    output_spatial,
    transposed_spatial,
)
from onnxopt.runtime import Session


def geometry(rng: np.random.Generator, dims: int) -> dict[str, Any]:
    """Random sizes of a convolution, with which it has some output."""
    kernel = rng.integers(1, 4, dims)
    dilations = rng.integers(1, 3, dims)
    pads = np.concatenate([rng.integers(0, 3, dims), rng.integers(0, 3, dims)])
    strides = rng.integers(1, 4, dims)
    drawn = {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    return {name: [int(n) for n in value] for name, value in drawn.items()}


def onnxruntime(op: str, x: Array, weight: Array, **attributes: Any) -> Array:
    node = onnx.helper.make_node(op, ["x", "w"], ["y"], **attributes)
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    constant = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, weight.shape, weight.ravel())
    graph = onnx.helper.make_graph([node], "one", inputs, outputs, [constant])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return np.asarray(Session(model).run({"x": x})["y"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_rows_times_weights_are_the_convolution_of_onnx_runtime(seed: int, dims: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = geometry(rng, dims)
    x = rng.standard_normal((2, 3, *rng.integers(5, 9, dims))).astype(np.float32)
    shape = output_spatial(x.shape[2:], **sizes)
    weight = rng.standard_normal((4, 3, *sizes["kernel"])).astype(np.float32)
    attributes = {name: sizes[name] for name in ("strides", "dilations", "pads")}
    expected = onnxruntime("Conv", x, weight, **attributes)
    assert expected.shape == (2, 4, *shape)
    rows = im2col(x, **sizes)
    found = (rows @ weight.reshape(4, -1).T).reshape(2, -1, 4).transpose(0, 2, 1)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_rows_times_weights_are_the_transposed_convolution_of_onnx_runtime(
    seed: int, dims: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = geometry(rng, dims)
    extra = [int(rng.integers(0, s)) for s in sizes["strides"]]
    x = rng.standard_normal((2, 3, *rng.integers(5, 8, dims))).astype(np.float32)
    weight = rng.standard_normal((3, 4, *sizes["kernel"])).astype(np.float32)
    attributes = {name: sizes[name] for name in ("strides", "dilations", "pads")}
    expected = onnxruntime("ConvTranspose", x, weight, output_padding=extra, **attributes)
    shape = transposed_spatial(x.shape[2:], **sizes, output_padding=extra)
    assert expected.shape == (2, 4, *shape)
    rows = im2col_transposed(x, **sizes, output_padding=extra)
    matrix = np.moveaxis(weight, 1, -1).reshape(-1, 4)
    found = (rows @ matrix).reshape(2, -1, 4).transpose(0, 2, 1)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_rows_are_those_of_a_convolution_written_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, 5, 4))
    rows = im2col(x, (3, 2), (2, 1), (1, 2), (1, 0, 0, 2)).reshape(2, 4, 2, 3, 2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 2)))
    for i, j, c, a, b in np.ndindex(rows.shape):
        assert rows[i, j, c, a, b] == padded[0, c, 2 * i + a, j + 2 * b]


@pytest.mark.parametrize("unfold", [im2col, im2col_transposed])
def test_chosen_positions_give_the_same_rows_as_all(unfold: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 2, 6, 5))
    sizes = {"kernel": (3, 3), "strides": (2, 1), "dilations": (1, 1), "pads": (1, 1, 0, 1)}
    everything = unfold(x, **sizes).reshape(3, -1, 18)
    positions = rng.integers(0, everything.shape[1], (3, 7))
    chosen = unfold(x, **sizes, positions=positions).reshape(3, 7, 18)
    for sample in range(3):
        np.testing.assert_array_equal(chosen[sample], everything[sample, positions[sample]])


def rows_and_targets(seed: int, rows: int, k: int, m: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, k)) + 1).astype(np.float32)
    return x, (x @ rng.standard_normal((k, m)) + 0.5).astype(np.float32)


def test_moments_are_the_means_over_all_rows_however_they_come() -> None:
    x, t = rows_and_targets(2, 9000, 6, 4)
    moments = Moments(6, 4)
    moments.add(x[:5000], t[:5000])
    rest = Moments(6, 4)
    rest.add(x[5000:], t[5000:])
    moments = moments.merge(rest)
    full = np.hstack([x, np.ones((9000, 1))]).astype(np.float64)
    assert moments.count == 9000
    np.testing.assert_allclose(moments.H, full.T @ full / 9000, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.C, full.T @ t / 9000, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.T, np.mean(t.astype(float) ** 2, axis=0), rtol=1e-5)


def test_moments_of_groups_are_those_of_each_group_alone() -> None:
    x, t = rows_and_targets(3, 500, 6, 4)
    together = Moments(3, 2, groups=2)
    together.add(x, t)
    for index in range(2):
        alone = Moments(3, 2)
        alone.add(x[:, 3 * index : 3 * index + 3], t[:, 2 * index : 2 * index + 2])
        for name in ("H", "C", "T"):
            expected = getattr(alone, name)
            np.testing.assert_allclose(getattr(together, name)[index], expected, rtol=1e-5)
            np.testing.assert_allclose(
                getattr(together.group(index), name), expected, rtol=1e-5, atol=1e-6
            )


def test_values_too_large_for_float32_are_summed_and_infinite_ones_refused() -> None:
    moments = Moments(1, 1)
    moments.add(np.full((4, 1), 1e25), np.full((4, 1), 1e25))
    np.testing.assert_allclose(moments.H[0, 0], 1e50)
    with pytest.raises(NotFiniteError, match="infinite"):
        moments.add(np.full((1, 1), np.inf), np.zeros((1, 1)))
    with pytest.raises(NotFiniteError, match="infinite"):
        moments.add(np.zeros((1, 1)), np.full((1, 1), np.nan))
    assert moments.count == 4 and np.isfinite(moments.H).all()


def test_moments_without_rows_are_finite() -> None:
    moments = Moments(3, 2)
    moments.add(np.zeros((0, 3)), np.zeros((0, 2)))
    assert np.isfinite(moments.H).all() and not moments.T.any()


def test_targets_that_come_later_make_the_same_moments() -> None:
    rng = np.random.default_rng(3)
    x, first, second = rng.normal(size=(90, 5)), rng.normal(size=(90, 2)), rng.normal(size=(90, 2))
    known, straight = Moments(5, 2), Moments(5, 2)
    known.add(x, first)
    straight.add(x, second)
    later = known.without_targets()
    later.take(later.products(x, second, aim=True))
    for name in ("H", "C", "T"):
        np.testing.assert_allclose(getattr(later, name), getattr(straight, name), rtol=1e-6)
