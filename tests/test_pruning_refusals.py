"""What channel groups must leave alone, and say why; what must not crash."""

from __future__ import annotations

from pathlib import Path

import judge
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from cuts import (
    assert_cuts_hold,
    channels_of,
    random_cut,
    reasons,
    revived,
    units,
    weighted,
)
from generated import random_model

from onnxopt.pruning.channels import Channels
from onnxopt.pruning.proof import TOLERANCE, prove, relative_error

IN = "float[N,6] x, float[6,8] w1, "
FIRST = "a = MatMul(x, w1) "

REFUSED = {
    "an_output_of_the_model": (
        IN + "float[8,3] w2",
        FIRST + "y = Identity(a) z = MatMul(a, w2)",
        "is an output of the model",
        "float y, float z",
    ),
    "an_operator_that_is_not_known": (
        IN + "float[8,3] w2",
        FIRST + "b, i = TopK(a, k) y = MatMul(b, w2)",
        "TopK making 'b' is not followed",
    ),
    "a_size_that_scales": (
        IN + "float[8,3] w2",
        FIRST + "s = Shape(a) d = Gather(s, i1) f = Cast<to=1>(d) r = Sqrt(f) b = Div(a, r)"
        " y = MatMul(b, w2)",
        "Sqrt making 'r' reads the size of 'a'",
    ),
    "a_size_that_is_counted": (
        IN + "float[8,3] w2",
        FIRST + "s = Size(a) f = Cast<to=1>(s) b = Div(a, f) y = MatMul(b, w2)",
        "Size making 's' counts its elements",
    ),
    "a_size_that_is_an_output": (
        IN + "float[8,3] w2",
        FIRST + "s = Shape(a) y = MatMul(a, w2)",
        "the output 's' tells the size of 'a'",
        "float y, int64 s",
    ),
    "a_size_sliced_before_opset_10": (
        IN + "float[8,3] w2",
        FIRST + "s = Shape(a) d = Slice<starts=[1],ends=[2]>(s) f = Cast<to=1>(d) b = Div(a, f)"
        " y = MatMul(b, w2)",
        "Div making 'b' reads the size of 'a'",
    ),
    "a_target_that_is_computed": (
        IN + "float[8,3] w2",
        FIRST + "e = Mul(k, two) t = Concat<axis=0>(m1, e) b = Reshape(a, t) y = MatMul(b, w2)",
        "computes its target",
    ),
    "a_slice_that_skips": (
        IN + "float[4,3] w2",
        FIRST + "b = Slice(a, zero, nine, i1, two) y = MatMul(b, w2)",
        "skips along this axis",
    ),
    "a_part_that_depends_on_data": (
        IN + "int64[1] n, float[8,3] w2",
        FIRST + "b = Slice(a, n, nine, i1) y = ReduceSum(b, i1)",
        "takes a part that is computed",
    ),
    "a_channel_that_is_named": (
        IN + "float[8,3] w2",
        FIRST + "b = ArgMax<axis=1>(a) c = Cast<to=1>(b) y = MatMul(a, w2)",
        "ArgMax making 'b' tells indices along this axis",
        "float y, float c",
    ),
    "a_channel_that_is_picked_by_data": (
        IN + "int64[2] n, float[8,3] w2",
        FIRST + "b = Gather<axis=1>(a, n) y = ReduceSum(b, i1)",
        "picks along this axis",
    ),
    "indices_that_count_all_channels": (
        "float[N,3,8,8] x, float[8,3,1,1] w1, float[5,8,1,1] w2",
        "a = Conv(x, w1) b, i = MaxPool<kernel_shape=[2,2]>(a) y = Conv(b, w2)",
        "tells indices that count all channels",
        "float y, int64 i",
    ),
    "mirrored_channels": (
        "float[N,3,8,8] x, float[8,3,1,1] w1, float[5,9,1,1] w2",
        'a = Conv(x, w1) b = Pad<mode="reflect">(a, p4) y = Conv(b, w2)',
        "repeats what is on this axis",
    ),
    "pads_that_are_computed": (
        "float[N,3,8,8] x, int64[8] p, float[8,3,1,1] w1",
        "a = Conv(x, w1) b = Pad(a, p) y = ReduceSum<keepdims=0>(b)",
        "pads by amounts that are computed",
    ),
    "parts_that_are_computed": (
        IN + "int64[2] n",
        FIRST
        + "b, c = Split<axis=1>(a, n) d = ReduceSum(b, i1) e = ReduceSum(c, i1) y = Add(d, e)",
        "computes its sizes",
    ),
    "what_a_loop_carries": (
        "float[N,6] x, float[6,6] w1",
        "a = MatMul(x, w1) y = Loop(n, c, a) <body = l (int64 i, bool c1, float[N,6] h) =>"
        " (bool c2, float[N,6] h2) { h2 = Relu(h) c2 = Identity(c1) }>",
        "carries it",
    ),
}
CONSTANTS = (
    "int64 i1 = {1}, int64[1] zero = {0}, int64[1] nine = {9}, int64[1] two = {2},"
    " int64[1] k = {4}, int64[1] m1 = {-1}, int64[8] p4 = {0,1,0,0,0,0,0,0}"
)


def refused(name: str) -> onnx.ModelProto:
    inputs, body, _, *outputs = REFUSED[name]
    constants = {
        "a_size_that_scales": "int64 i1 = {1}",
        "an_operator_that_is_not_known": "int64[1] k = {8}",
        "what_a_loop_carries": "int64 n = {2}, bool c = {1}",
    }.get(name, CONSTANTS.replace("int64 i1", "int64[1] i1"))
    opset = 9 if name == "a_size_sliced_before_opset_10" else 18
    return weighted(inputs, body, *outputs, constants=constants, opset=opset)


FEEDS: dict[str, dict[str, np.ndarray]] = {
    "a_part_that_depends_on_data": {"n": np.array([2])},
    "a_channel_that_is_picked_by_data": {"n": np.array([2, 5])},
    "pads_that_are_computed": {"p": np.array([0, 1, 0, 0, 0, 1, 0, 0])},
    "parts_that_are_computed": {"n": np.array([3, 5])},
}


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in REFUSED
        if n not in ("a_constant_that_is_a_parameter_too", "what_meets_an_axis_of_one_run")
    ],
)
def test_what_cannot_be_cut_is_declined_with_its_reason(name: str) -> None:
    proto = refused(name)
    feeds = {**judge.drawn(proto), **FEEDS.get(name, {})}
    channels = Channels(proto, feeds)
    assert not any("w1" in (r.weight.name for r in g.producers) for g in channels.groups)
    assert REFUSED[name][2] in reasons(channels)


def test_a_weight_that_is_also_read_as_a_parameter_is_declined() -> None:
    proto = weighted(
        "float[N,6] x, float[6,3] w1, float[3,2] w2, float[1,1,1] u",
        "a = MatMul(x, w1) q = Cast<to=1>(sizes) b = Mul(a, q) y = MatMul(b, w2)"
        " z = Expand(u, sizes)",
        "float y, float z",
        constants="int64[3] sizes = {2, 3, 4}",
    )
    channels = channels_of(proto)
    assert not channels.groups
    assert "Expand making 'z' reads 'sizes' as a parameter" in reasons(channels)


def test_initializers_that_callers_may_override_are_declined_with_the_option_to_freeze_them() -> (
    None
):
    proto = weighted("float[N,6] x, float[6,8] w1, float[8,3] w2", FIRST + "y = MatMul(a, w2)")
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [6, 8])
    )
    channels = Channels(proto, {"x": np.ones((2, 6), np.float32)})
    assert not channels.groups
    assert "--freeze-inputs" in reasons(channels)


def test_before_ir_4_weights_listed_as_inputs_are_cut_like_others() -> None:
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[8,3] w2", FIRST + "y = MatMul(a, w2)", opset=8, ir=3
    )
    for name, dims in (("w1", [6, 8]), ("w2", [8, 3])):
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
        proto.graph.input.append(info)
    channels = channels_of(proto)
    assert units(channels) == [8]
    assert_cuts_hold(proto)


def test_an_initializer_that_is_an_output_is_not_cut() -> None:
    proto = weighted(IN + "float[8,3] w2", FIRST + "y = MatMul(a, w2)")
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("w2", onnx.TensorProto.FLOAT, [8, 3])
    )
    channels = channels_of(proto)
    assert not channels.groups
    assert "'w2' is an output of the model" in reasons(channels)


def test_sparse_initializers_are_not_cut() -> None:
    proto = weighted(IN + "float[8,3] w2", FIRST + "y = MatMul(a, w2)")
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "w2"))
    values = onnx.helper.make_tensor("w2", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = onnx.helper.make_tensor("w2_indices", onnx.TensorProto.INT64, [2], [1, 20])
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [8, 3]))
    channels = channels_of(proto)
    assert not channels.groups
    assert "is sparse" in reasons(channels)


def test_local_functions_are_not_followed() -> None:
    channels = channels_of(judge.tiny("local_functions"))
    assert all(group.exact for group in channels.groups)
    assert_cuts_hold(judge.tiny("local_functions"))


def test_a_node_on_the_list_of_what_to_ignore_keeps_its_channels() -> None:
    proto = weighted(IN + "float[8,3] w2", "[first] a = MatMul(x, w1) y = MatMul(a, w2)")
    assert not Channels(proto, judge.drawn(proto), ["first"]).groups
    assert units(Channels(proto, judge.drawn(proto))) == [8]


def test_squeeze_without_axes_does_not_take_an_axis_of_which_one_index_is_left() -> None:
    for opset in (11, 18):
        proto = weighted(
            "float[N,3,1,1] x, float[8,3,1,1] w1, float[8,3] w2",
            "a = Conv(x, w1) b = Squeeze(a) y = MatMul(b, w2)",
            opset=opset,
        )
        channels = channels_of(proto)
        (group,) = channels.groups
        assert prove(channels, group.units[1:], [judge.drawn(proto, 1)]).holds


def test_bounds_that_are_computed_for_other_axes_stay_computed() -> None:
    proto = weighted(
        "float[N,S,6] x, float[6,8] w1, float[5,3] w2",
        "a = MatMul(x, w1) s = Shape(x) n = Slice(s, one, two) m = Sub(n, one)"
        " e = Concat<axis=0>(m, five) b = Slice(a, z2, e, ax) y = MatMul(b, w2)",
        constants="int64[1] one = {1}, int64[1] two = {2}, int64[1] five = {5},"
        " int64[2] z2 = {0, 0}, int64[2] ax = {1, 2}",
    )
    channels = channels_of(proto)
    assert sorted(units(channels)) == [3, 5]
    for seed in range(4):
        dead = random_cut(channels, seed, channels.groups)
        assert prove(channels, dead, [judge.drawn(proto, 1, 3), judge.drawn(proto, 2, 6)]).holds


def test_no_axis_is_emptied_by_a_cut_that_was_asked_about() -> None:
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[3,2] w2, float[5,2] w3",
        "a = MatMul(x, w1) b, c = Split<axis=1>(a, s) d = MatMul(b, w2) e = MatMul(c, w3)"
        " y = Add(d, e)",
        constants="int64[2] s = {3, 5}",
    )
    channels = channels_of(proto)
    assert units(channels) == [3, 5]
    first = channels.groups[0].units
    assert set(channels.emptied(first)) == {frozenset(first)}
    assert not list(channels.emptied(first[1:]))
    dead = revived(channels, [u for group in channels.groups for u in group.units])
    assert len(dead) == 6
    assert prove(channels, dead, [judge.drawn(proto, 1)]).error <= TOLERANCE


@pytest.mark.parametrize("path", judge.TINY_MODELS, ids=lambda path: path.stem)
def test_cuts_of_the_tiny_models_hold(path: Path) -> None:
    proto = judge.tiny(path.stem)
    if path.stem in ("sequence", "optional", "inputs_outputs", "detector"):
        pytest.skip("its inputs are no tensors that can be drawn here")
    assert_cuts_hold(proto, seeds=2)
    assert_cuts_hold(proto, channels_of(proto, selects=0), seeds=2)


@pytest.mark.parametrize("seed", range(40))
def test_cuts_of_random_models_hold(seed: int) -> None:
    proto = random_model(seed)
    for channels in (channels_of(proto, 2), channels_of(proto, 2, selects=0)):
        for number in range(2):
            if channels.groups:
                dead = random_cut(channels, number, channels.groups)
                assert prove(channels, dead, [judge.drawn(proto, 5, 2)]).holds


def test_errors_are_relative_to_the_largest_element_and_infinite_between_kinds() -> None:
    one = np.array([1.0, -4.0], np.float32)
    assert relative_error(one, one) == 0.0
    assert relative_error(one, one + np.float32(0.4)) == pytest.approx(0.1, rel=1e-5)
    assert relative_error(one, one[:1]) == float("inf")
    assert relative_error(one, np.array([1.0, np.nan], np.float32)) == float("inf")
    assert relative_error(np.array(["a"], object), np.array(["b"], object)) == float("inf")
    assert relative_error([one, one], [one]) == float("inf")
    assert relative_error([{"a": 1.0}], [{"a": 1.0}]) == 0.0
