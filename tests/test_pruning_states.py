"""Initial states that are zero go, others stay."""

from __future__ import annotations

import judge
import numpy as np
import onnx
import pytest
from cuts import channels_of, units, weighted

from onnxopt.pruning.states import without_zero_states
from onnxopt.runtime import Session

INPUTS = (
    "float[4,N,6] x, float[1,20,6] wa, float[1,20,5] wb, float[1,20,5] wc, float[1,20,5] wd,"
    " float[5,3] wo"
)
STACK = (
    "s = Shape(x) n = Slice(s, i1, i2) u = Concat<axis=0>(i2, n, i5) v = Concat<axis=0>(i1, n, i5)"
    " {0} h = Slice(z, i0, i1, i0) k = Slice(z, i1, i2, i0)"
    " o, oh, oc = LSTM<hidden_size=5>(x, wa, wb, , , h, h) t = Squeeze(o, i1)"
    " p, ph, pc = LSTM<hidden_size=5>(t, wc, wd, , , k, k) q = Squeeze(p, i1) y = MatMul(q, wo)"
)
CONSTANTS = (
    "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] i5 = {5}, float zero = {0},"
    " float one = {1}"
)


def stack(zeros: str) -> onnx.ModelProto:
    """Two LSTMs that start from parts of z."""
    return weighted(INPUTS, STACK.replace("{0}", zeros), constants=CONSTANTS)


def states_of(proto: onnx.ModelProto) -> list[list[str]]:
    return [list(node.input[5:]) for node in proto.graph.node if node.op_type == "LSTM"]


@pytest.mark.parametrize(
    "zeros",
    [
        "z = ConstantOfShape(u)",
        "z = ConstantOfShape<value = float[1] {0}>(u)",
        "z = Expand(zero, u)",
        "a = Expand(zero, v) z = Concat<axis=0>(a, a)",
    ],
)
def test_layers_of_a_stack_that_start_from_zeros_can_be_cut_alone(zeros: str) -> None:
    proto = stack(zeros)
    assert units(channels_of(proto)) == [5]
    made = without_zero_states(proto)
    assert states_of(made) == [[], []] and states_of(proto) == [["h", "h"], ["k", "k"]]
    assert units(channels_of(made)) == [5, 5]
    feeds = judge.drawn(proto, 0, 3)
    assert np.array_equal(Session(proto).run(feeds)["y"], Session(made).run(feeds)["y"])


@pytest.mark.parametrize(
    "zeros",
    [
        "z = ConstantOfShape<value = float[1] {1}>(u)",
        "z = Expand(one, u)",
        "a = Expand(zero, v) b = Expand(one, v) z = Concat<axis=0>(a, b)",
        "a = ConstantOfShape(u) z = Cos(a)",
    ],
)
def test_states_that_are_not_zero_stay(zeros: str) -> None:
    proto = stack(zeros)
    assert states_of(without_zero_states(proto)) == states_of(proto)


def test_states_that_callers_give_or_may_override_stay() -> None:
    text = "y, yh, yc = LSTM<hidden_size=5>(x, wa, wb, , , h, c)"
    proto = weighted(
        INPUTS.split(", float[1,20,5] wc")[0] + ", float[1,2,5] h, float[1,2,5] wcell",
        text.replace("c)", "wcell)"),
    )
    assert states_of(without_zero_states(proto)) == [["h", "wcell"]]
    for tensor in proto.graph.initializer:
        if tensor.name == "wcell":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 2, 5), "f"), "wcell"))
    assert states_of(without_zero_states(proto)) == [["h"]]
    proto.graph.input.add().CopyFrom(
        onnx.helper.make_tensor_value_info("wcell", onnx.TensorProto.FLOAT, [1, 2, 5])
    )
    assert states_of(without_zero_states(proto)) == [["h", "wcell"]]
