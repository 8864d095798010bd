"""Layers as matrices: rows @ matrix is what ONNX Runtime computes, and matrices are stored back."""

from __future__ import annotations

import re

import judge
import numpy as np
import onnx
import pytest
from cuts import weighted

from onnxopt.graph import Array
from onnxopt.optimizer import optimize
from onnxopt.pruning.biases import with_biases
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.layers import Layer, find_layers, find_weights
from onnxopt.pruning.stepper import set_weights, weights_of
from onnxopt.runtime import Session

LINE, IMAGE, VOLUME = "float[N,4,17] x", "float[N,4,9,7] x", "float[N,4,5,6,7] x"

CONVOLUTIONS = {
    "of a line": (LINE, "float[6,4,3] w, float[6] wb", "Conv(x, w, wb)"),
    "with strides, dilations and uneven pads": (
        LINE,
        "float[6,4,3] w, float[6] wb",
        "Conv<strides=[2],dilations=[3],pads=[5,1]>(x, w, wb)",
    ),
    "of an image": (
        IMAGE,
        "float[6,4,3,2] w, float[6] wb",
        "Conv<strides=[2,1],dilations=[1,2],pads=[1,0,2,1]>(x, w, wb)",
    ),
    "of one point": (IMAGE, "float[6,4,1,1] w", "Conv<strides=[2,3]>(x, w)"),
    "of a volume": (
        VOLUME,
        "float[6,4,2,3,1] w, float[6] wb",
        "Conv<strides=[1,2,3],dilations=[2,1,1],pads=[0,1,2,1,0,1]>(x, w, wb)",
    ),
    "padded to the same size, more at the end": (
        IMAGE,
        "float[6,4,4,3] w, float[6] wb",
        'Conv<auto_pad="SAME_UPPER",strides=[2,3]>(x, w, wb)',
    ),
    "padded to the same size, more at the start": (
        IMAGE,
        "float[6,4,4,3] w, float[6] wb",
        'Conv<auto_pad="SAME_LOWER",strides=[2,1]>(x, w, wb)',
    ),
    "said to be valid": (IMAGE, "float[6,4,2,2] w", 'Conv<auto_pad="VALID",strides=[2,2]>(x, w)'),
    "in groups": (IMAGE, "float[6,2,3,3] w, float[6] wb", "Conv<group=2>(x, w, wb)"),
    "depthwise": (IMAGE, "float[4,1,3,3] w, float[4] wb", "Conv<group=4,pads=[1,1,1,1]>(x, w, wb)"),
    "depthwise times three": (IMAGE, "float[12,1,3,3] w", "Conv<group=4>(x, w)"),
    "of half precision": (
        "float16[N,4,9,7] x",
        "float16[6,4,3,3] w, float16[6] wb",
        "Conv(x, w, wb)",
    ),
}
TRANSPOSED = {
    "transposed, of a line": (LINE, "float[4,6,3] w, float[6] wb", "ConvTranspose(x, w, wb)"),
    "transposed, of an image": (
        IMAGE,
        "float[4,6,3,2] w, float[6] wb",
        "ConvTranspose<strides=[3,2],dilations=[2,1],pads=[1,0,2,1]>(x, w, wb)",
    ),
    "transposed, with output padding": (
        IMAGE,
        "float[4,6,3,3] w",
        "ConvTranspose<strides=[2,3],pads=[1,1,1,1],output_padding=[1,2]>(x, w)",
    ),
    "transposed, to a given shape": (
        IMAGE,
        "float[4,6,3,4] w, float[6] wb",
        "ConvTranspose<strides=[2,2],dilations=[1,2],output_shape=[16,14]>(x, w, wb)",
    ),
    "transposed, to a shape with more than it makes": (
        IMAGE,
        "float[4,6,3,3] w, float[6] wb",
        'ConvTranspose<strides=[2,2],auto_pad="VALID",output_shape=[20,16]>(x, w, wb)',
    ),
    "transposed, to a multiple of the shape, more at the end": (
        IMAGE,
        "float[4,6,3,4] w, float[6] wb",
        'ConvTranspose<strides=[2,1],auto_pad="SAME_UPPER">(x, w, wb)',
    ),
    "transposed, to a multiple of the shape, more at the start": (
        IMAGE,
        "float[4,6,3,4] w",
        'ConvTranspose<strides=[2,1],auto_pad="SAME_LOWER",output_padding=[1,0]>(x, w)',
    ),
    "transposed, of a volume": (
        VOLUME,
        "float[4,3,2,3,1] w, float[3] wb",
        "ConvTranspose<strides=[1,2,3]>(x, w, wb)",
    ),
    "transposed, in groups": (
        IMAGE,
        "float[4,3,3,2] w, float[6] wb",
        "ConvTranspose<strides=[2,1],pads=[1,0,1,1],group=2>(x, w, wb)",
    ),
    "transposed, depthwise": (IMAGE, "float[4,1,3,3] w", "ConvTranspose<group=4>(x, w)"),
}
LINEAR = {
    "Gemm": ("float[N,7] x", "float[7,5] w, float[5] wb", "Gemm(x, w, wb)"),
    "Gemm without a bias": ("float[N,7] x", "float[7,5] w", "Gemm<transA=0>(x, w)"),
    "Gemm of a transposed weight": (
        "float[N,7] x",
        "float[5,7] w, float[5] wb",
        "Gemm<transB=1>(x, w, wb)",
    ),
    "MatMul of rows": ("float[N,7] x", "float[7,5] w", "MatMul(x, w)"),
    "MatMul of sequences": ("float[N,4,7] x", "float[7,5] w", "MatMul(x, w)"),
    "MatMul of heads": ("float[N,2,4,7] x", "float[7,5] w", "MatMul(x, w)"),
    "MatMul and Add": ("float[N,4,7] x", "float[7,5] w, float[5] wb", "Add(MatMul(x, w), wb)"),
    "MatMul and Add the other way": (
        "float[N,4,7] x",
        "float[7,5] w, float[5] wb",
        "Add(wb, MatMul(x, w))",
    ),
    "Gemm times two": ("float[N,7] x", "float[7,5] w, float[5] wb", "Gemm<alpha=2.0>(x, w, wb)"),
    "Gemm and half of a bias": (
        "float[N,7] x",
        "float[5,7] w, float[5] wb",
        "Gemm<beta=0.5, alpha=4.0, transB=1>(x, w, wb)",
    ),
    "Gemm with a bias as a row": ("float[N,7] x", "float[7,5] w, float[1,5] wb", "Gemm(x, w, wb)"),
    "Gemm of a bias that counts nothing": (
        "float[N,7] x",
        "float[7,5] w, float[5] wb",
        "Gemm<beta=0.0>(x, w, wb)",
    ),
}
CONTRACTIONS = {
    "weight on the left": ("float[N,7,4] x", "float[5,7] w", "MatMul(w, x)"),
    "weight on the left of maps": ("float[N,3,7,4] x", "float[5,7] w", "MatMul(w, x)"),
    "a weight for each head": ("float[N,3,4,7] x", "float[3,7,5] w", "MatMul(x, w)"),
    "a weight for each head, on the left": ("float[N,3,7,4] x", "float[3,5,7] w", "MatMul(w, x)"),
    "a vector": ("float[N,4,7] x", "float[7] w", "MatMul(x, w)"),
    "Einsum": ("float[N,4,7] x", "float[7,5] w", 'Einsum<equation="bsi,ij->bsj">(x, w)'),
    "Einsum without an arrow": (
        "float[N,4,7] x",
        "float[7,5] w",
        'Einsum<equation="abi,ij">(x, w)',
    ),
    "Einsum of heads": ("float[N,3,7] x", "float[3,7,5] w", 'Einsum<equation="bhd,hdo->bo">(x, w)'),
    "Einsum of turned heads": (
        "float[N,4,3,7] x",
        "float[5,3,7] w",
        'Einsum<equation="ibnd,hnd->ibh">(x, w)',
    ),
    "Einsum that makes heads": (
        "float[N,4,7] x",
        "float[7,3,5] w",
        'Einsum<equation="bsi,ihd->bhsd">(x, w)',
    ),
    "Einsum with a matrix for each head": (
        "float[N,4,3,7] x",
        "float[7,5,3] w",
        'Einsum<equation="bshd,dkh->bhsk">(x, w)',
    ),
    "Einsum with the weight first": (
        "float[N,7,4] x",
        "float[7,5] w",
        'Einsum<equation="ij,bis->bsj">(w, x)',
    ),
    "Einsum and Add": (
        "float[N,4,7] x",
        "float[7,3,5] w, float[3,5] wb",
        'Add(Einsum<equation="bsi,ihd->bshd">(x, w), wb)',
    ),
    "Einsum with a matrix for each head and Add": (
        "float[N,4,3,7] x",
        "float[3,7,5] w, float[3,5] wb",
        'Add(Einsum<equation="bshd,hdk->bshk">(x, w), wb)',
    ),
}
BY_CHANNEL = {**CONVOLUTIONS, **TRANSPOSED, **LINEAR}
ALL = {**BY_CHANNEL, **CONTRACTIONS}


def found_in(proto: onnx.ModelProto) -> list[Layer]:
    channels = Channels(proto, judge.drawn(proto, 0, 3))
    return list(find_layers(channels.model.graph, channels.instance.shape))


def one_layer(case: tuple[str, str, str]) -> tuple[onnx.ModelProto, Layer, dict[str, Array]]:
    data, weights, text = case
    output = "float16[...] y" if "float16" in data else "float[...] y"
    body = f"y = {text}"
    if found := re.fullmatch(r"Add\((?:wb, )?(\w+(?:<.*>)?\(x, w\))(?:, wb)?\)", text):
        body = f"m = {found[1]} y = {text.replace(found[1], 'm')}"
    proto = weighted(f"{data}, {weights}", body, output)
    (layer,) = found_in(proto)
    return proto, layer, weights_of(proto, [layer.weight, layer.bias])


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("samples", [1, 3])
def test_rows_times_the_matrix_are_what_onnx_runtime_gives(case: str, samples: int) -> None:
    proto, layer, weights = one_layer(ALL[case])
    rng = np.random.default_rng(samples)
    feeds = judge.drawn(proto, 1, samples)
    y = Session(proto).run(feeds)[layer.output]
    count = layer.positions(y.shape)
    assert layer.made_shape(feeds["x"].shape, (99, *y.shape[1:])) == y.shape
    positions = rng.integers(0, count, (samples, 11))
    rows = layer.rows(feeds["x"], positions).astype(np.float64)
    matrix = layer.matrix(weights)
    assert matrix.shape[0] == layer.groups
    parts = np.split(rows, layer.groups, axis=1)
    made = np.concatenate(
        [part @ W[:-1] + W[-1] for part, W in zip(parts, matrix, strict=True)], axis=1
    )
    expected = layer.outputs(y, positions)
    tolerance = 1e-2 if y.dtype == np.float16 else 1e-5
    np.testing.assert_allclose(made, expected, rtol=tolerance, atol=tolerance)
    assert count * samples * made.shape[1] == y.size


@pytest.mark.parametrize("case", ALL)
def test_a_matrix_that_is_stored_is_the_matrix_that_was_read(case: str) -> None:
    _, layer, weights = one_layer(ALL[case])
    matrix = layer.matrix(weights)
    same = layer.stored(matrix, weights)
    assert set(same) == {name for name in (layer.weight, layer.bias) if name}
    for name, array in same.items():
        assert (array.dtype, array.shape) == (weights[name].dtype, weights[name].shape)
        assert np.array_equal(array, weights[name])
    other: Array = np.asarray(np.random.default_rng(3).standard_normal(matrix.shape))
    if not layer.bias:
        other[:, -1] = 0
    other = other.astype(weights[layer.weight].dtype).astype(np.float64)
    assert np.array_equal(layer.matrix(layer.stored(other, weights)), other)


@pytest.mark.parametrize("case", BY_CHANNEL)
def test_rows_of_a_unit_are_the_rows_that_see_its_channels(case: str) -> None:
    """Channels are set to zero: rows of other units stay, rows of these become zero."""
    proto, layer, _ = one_layer(ALL[case])
    feeds = judge.drawn(proto, 2, 2)
    axis = -1 if layer.kind == "linear" else 1
    width = feeds["x"].shape[axis]
    roots = np.random.default_rng(0).permutation(np.arange(width) % 3) + 100
    positions = np.zeros((2, 1), np.int64)
    if feeds["x"].ndim > 2:
        positions = np.arange(3)[None].repeat(2, axis=0)
    for group, rows in enumerate(layer.unit_rows(roots, [100, 101, 102])):
        share = width // layer.groups
        mine = np.arange(width) // share == group
        k = share * layer.taps
        assert sorted(np.concatenate(rows).tolist()) == list(range(k))
        for number, chosen in enumerate(rows):
            x = np.moveaxis(np.ones_like(feeds["x"]), axis, 0)
            x[(roots == 100 + number) & mine] = 7
            part = layer.rows(np.moveaxis(x, 0, axis), positions)[:, group * k : (group + 1) * k]
            seen = np.flatnonzero((part == 7).any(axis=0))
            assert set(seen.tolist()) <= set(chosen.tolist())
            assert not (np.delete(part, chosen, axis=1) == 7).any()
            if not any(layer.pads) and layer.kind != "transposed":
                assert seen.tolist() == chosen.tolist()


def test_units_that_a_layer_does_not_read_have_no_rows() -> None:
    _, layer, _ = one_layer(CONVOLUTIONS["of an image"])
    rows = layer.unit_rows(np.array([5, 9, 9, 5]), [9, 4, 5])
    assert [r.tolist() for r in rows[0]] == [
        [*range(6, 12), *range(12, 18)],
        [],
        [*range(6), *range(18, 24)],
    ]


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        (f"{IMAGE}, float[4,4,1,1] w", "a = Conv(x, w) b = Relu(a) y = Conv(b, w)"),
        (f"{IMAGE}, float[6,4,1,1] w", "a = Conv(x, w) s = ReduceSum(w) y = Mul(a, s)"),
        (f"{IMAGE}, float[4,4,1,1] w, float[4] wb", "a = Conv(x, w, wb) y = PRelu(a, w)"),
        ("float[7,N] x, float[7,5] w", "y = Gemm<transA=1>(x, w)"),
        ("float[N,7] x, float[7,5] w, float[1] wb", "y = Gemm(x, w, wb)"),
        ("float[N,1,2,7] x, float[2,7,5] w", "y = MatMul(x, w)"),
        ("float[N,7] x, float[2,7,5] w", "y = MatMul(x, w)"),
        ("float[7,N] x, float[5,7] w", "y = MatMul(w, x)"),
        ("float[N,7] x, float[7,5] w", "y = Gemm<alpha=0.0>(x, w)"),
        ("float[N,7,7] x, float[7,5] w", 'y = Einsum<equation="bii,ij->bj">(x, w)'),
        ("float[N,7,2] x, float[7,5] w", 'y = Einsum<equation="bis,ij->bj">(x, w)'),
        ("float[N,7] x, float[7,5] w", 'y = Einsum<equation="bi,ij->jb">(x, w)'),
        ("float[N,7] x, float[7,5] w", 'y = Einsum<equation="bi,ij->b">(x, w)'),
        ("float[N,7] x, float[3,5] w", 'y = Einsum<equation="bi,kj->bikj">(x, w)'),
        ("float[N,7] x, float[7,5] w", 'y = Einsum<equation="bi,ij,jk->bk">(x, w, x)'),
        ("float[7] x, float[7,5] w", "y = MatMul(x, w)"),
    ],
)
def test_layers_that_cannot_be_refitted_alone_are_left_out(inputs: str, body: str) -> None:
    assert not found_in(weighted(inputs, body))


@pytest.mark.parametrize(
    ("inputs", "body", "count"),
    [
        (
            f"{IMAGE}, float[4,4,1,1] w",
            "a = Conv(x, w) b = Relu(a) y = Conv<pads=[1,1,1,1]>(b, w)",
            2,
        ),
        (
            "float[N,7] x, float[7,7] w",
            "a = MatMul(x, w) b = Tanh(a) c = MatMul(b, w) y = Add(b, c)",
            2,
        ),
        ("float[N,7] x, float[7,7] w", "a = Gemm(x, w) y = Gemm<transB=1>(a, w)", 0),
        (f"{IMAGE}, float[4,2,1,1] w", "a = Conv<group=2>(x, w) y = Conv<group=2>(a, w)", 0),
        (f"{IMAGE}, float[4,4,1,1] w", "a = Conv(x, w) b = Conv(a, w) c = Abs(w) y = Add(b, c)", 0),
    ],
)
def test_layers_that_share_a_weight_are_one_if_all_that_reads_it_is_alike(
    inputs: str, body: str, count: int
) -> None:
    proto = weighted(inputs, body)
    channels = Channels(proto, judge.drawn(proto))
    found = list(find_weights(channels.model.graph, channels.instance.shape))
    assert sum(len(layer.places) for layer in found) == count and len(found) <= 1
    assert not found_in(proto)


def test_zero_biases_as_raw_exports_compute_them_do_not_hide_layers() -> None:
    proto = weighted(
        "float[N,4,9,7] x, float[6,4,3,3] w1, float[6,6,3,3] w2",
        """z = Constant<value_float=0.0>() one = Constant<value_ints=[1]>()
        n = Shape<start=0,end=1>(w1) s = Expand(n, one) c = CastLike(z, x) b1 = Expand(c, s)
        h = Conv(x, w1, b1) r = Relu(h) d = CastLike(z, r) b2 = Expand(d, s) y = Conv(r, w2, b2)""",
    )
    assert not found_in(proto)
    made = with_biases(optimize(proto).model)
    assert [layer.weight for layer in found_in(made)] == ["w1", "w2"]


def test_two_layers_that_share_a_bias_are_left_out() -> None:
    proto = weighted(
        "float[N,7] x, float[7,5] w1, float[5,5] w2, float[5] wb",
        "a = Gemm(x, w1, wb) b = Tanh(a) y = Gemm(b, w2, wb)",
    )
    assert not found_in(proto)


@pytest.mark.parametrize(
    "inputs",
    ["float[N,4,5] x, float[5,5] w, float[4,5] wb", "float[N,4,5] x, float[5,1] w, float[5] wb"],
)
def test_an_added_tensor_that_is_no_bias_is_not_taken_for_one(inputs: str) -> None:
    proto = weighted(inputs, "m = MatMul(x, w) y = Add(m, wb)")
    (layer,) = found_in(proto)
    assert (layer.output, layer.bias) == ("m", "")


def test_a_product_that_others_read_too_does_not_own_the_bias_after_it() -> None:
    proto = weighted(
        "float[N,5] x, float[5,5] w, float[5] wb", "m = MatMul(x, w) a = Add(m, wb) y = Mul(a, m)"
    )
    (layer,) = found_in(proto)
    assert (layer.output, layer.bias) == ("m", "")


def test_weights_that_callers_may_override_are_no_layer() -> None:
    proto = weighted("float[N,7] x, float[7,5] w", "y = MatMul(x, w)")
    proto.graph.input.add().CopyFrom(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [7, 5])
    )
    assert not found_in(proto)


def test_the_layers_come_in_the_order_in_which_they_run() -> None:
    proto = judge.tiny("unet")
    places = {n: i for i, node in enumerate(proto.graph.node) for n in node.output}
    layers = found_in(proto)
    assert len(layers) > 4 and "transposed" in {layer.kind for layer in layers}
    order = [places[layer.node] for layer in layers]
    assert order == sorted(order)


def test_what_is_stored_is_what_the_model_then_computes() -> None:
    proto, layer, weights = one_layer(CONVOLUTIONS["in groups"])
    matrix = np.zeros(layer.matrix(weights).shape)
    matrix[1, -1, 2] = 4.0
    set_weights(proto, layer.stored(matrix, weights))
    y = Session(proto).run(judge.drawn(proto))["y"]
    assert (y[:, 5] == 4.0).all() and not y[:, :5].any()
