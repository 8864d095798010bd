"""Transposes move to where they cancel: random graphs, and each pattern of exporters by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from hypothesis import HealthCheck, given, settings
from judge import apply, assert_same, model, operators
from transposed_graphs import models

from onnxopt.changes import Ledger
from onnxopt.errors import OnnxoptError
from onnxopt.model import Model
from onnxopt.passes.transposes import CancelTransposes
from onnxopt.runtime import Session
from onnxopt.shapes import infer

SLOW = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def cancelled(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, Ledger]:
    return apply(proto, CancelTransposes())


def transposes(proto: onnx.ModelProto) -> int:
    return operators(proto).count("Transpose")


@SLOW
@given(models())
def test_random_graphs_give_the_same_and_never_get_more_transposes(
    drawn_model: tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]],
) -> None:
    proto, feeds = drawn_model
    try:
        Session(proto).run(feeds)
    except OnnxoptError:
        return
    after, ledger = cancelled(proto)
    assert_same(proto, after, ledger.numerics, feeds)
    assert transposes(after) <= transposes(proto)
    assert len(operators(after)) <= len(operators(proto))
    again, second = cancelled(after)
    assert not second.changes
    assert again.SerializeToString(deterministic=True) == after.SerializeToString(
        deterministic=True
    )


HEADER = '<ir_version: 8, opset_import: ["" : {opset}]>\n'

PATTERNS = {
    "unary operators": """g (float[2,4,5,3] x) => (float[2,4,5,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Relu (a)
        c = LeakyRelu <alpha=0.5> (b)
        y = Transpose <perm=[0,2,3,1]> (c)
    }""",
    "a dynamic batch": """g (float[N,4,5,3] x) => (float[N,4,5,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Relu (a)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    "a Transpose without perm": """g (float[2,3] x) => (float[2,3] y) {
        a = Transpose (x)
        b = Relu (a)
        y = Transpose (b)
    }""",
    "channel constants": """g (float[2,4,5,3] x) => (float[2,4,5,3] y)
        <float[3,1,1] s = {1, 2, 3}, float[1,3,1,1] b = {4, 5, 6}, float h = {0.5}> {
        t = Transpose <perm=[0,3,1,2]> (x)
        m = Mul (t, s)
        n = Add (b, m)
        o = Div (n, h)
        y = Transpose <perm=[0,2,3,1]> (o)
    }""",
    "a PRelu slope": """g (float[2,4,5,3] x) => (float[2,4,5,3] y) <float[3,1,1] s = {1, 2, 3}> {
        t = Transpose <perm=[0,3,1,2]> (x)
        p = PRelu (t, s)
        y = Transpose <perm=[0,2,3,1]> (p)
    }""",
    "a residual whose operands are transposed alike": """
        g (float[2,4,5,3] x, float[2,4,5,3] z) => (float[2,4,5,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Transpose <perm=[0,3,1,2]> (z)
        c = Relu (a)
        d = Add (c, b)
        y = Transpose <perm=[0,2,3,1]> (d)
    }""",
    "a residual around a branch": """g (float[2,4,5,3] x) => (float[2,4,5,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Relu (a)
        c = Neg (b)
        d = Add (a, c)
        e = Mul (d, b)
        y = Transpose <perm=[0,2,3,1]> (e)
    }""",
    "a Concat": """g (float[2,4,5,3] x, float[2,4,5,2] z) => (float[2,4,5,5] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Transpose <perm=[0,3,1,2]> (z)
        c = Concat <axis=-3> (a, b)
        y = Transpose <perm=[0,2,3,1]> (c)
    }""",
    "a Split whose parts are transposed back": """
        g (float[2,4,5,4] x) => (float[2,4,5,2] y, float[2,4,5,2] z) <int64[2] n = {2, 2}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b, c = Split <axis=1> (a, n)
        y = Transpose <perm=[0,2,3,1]> (b)
        z = Transpose <perm=[0,2,3,1]> (c)
    }""",
    "a Slice": """g (float[2,4,5,3] x) => (float[2,3,5,2] y)
        <int64[2] s = {1, 1}, int64[2] e = {3, 4}, int64[2] d = {-3, 2}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Slice (a, s, e, d)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    "a Softmax": """g (float[2,4,5,3] x) => (float[2,4,5,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Softmax <axis=1> (a)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    "a Pad": """g (float[2,4,5,3] x) => (float[2,7,8,3] y)
        <int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Pad <mode="reflect"> (a, p)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    "a mean over the image that keeps its axes": """g (float[2,4,5,3] x) => (float[2,1,1,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = ReduceMean <axes=[2,3], keepdims=1> (a)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    "a sum that drops an axis": """g (float[2,4,5,3] x) => (float[2,5,3] y) <int64[1] d = {2}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = ReduceSum <keepdims=0> (a, d)
        y = Transpose <perm=[0,2,1]> (b)
    }""",
    "an ArgMax over the channels": """g (float[2,4,5,3] x) => (int64[2,4,5] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        y = ArgMax <axis=1, keepdims=0> (a)
    }""",
    "pooling between two pairs": """g (float[2,3,4,4] x) => (float[2,3,2,2] y) {
        a = Transpose <perm=[0,2,3,1]> (x)
        b = Relu (a)
        c = Transpose <perm=[0,3,1,2]> (b)
        d = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c)
        e = Transpose <perm=[0,2,3,1]> (d)
        f = Neg (e)
        y = Transpose <perm=[0,3,1,2]> (f)
    }""",
    "resizing to the nearest": """g (float[2,4,5,3] x) => (float[2,8,15,3] y)
        <float[0] r = {}, float[4] s = {1, 1, 2, 3}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Resize <mode="nearest"> (a, r, s)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    "quantization of each channel": """g (float[2,4,5,3] x) => (float[2,4,5,3] y)
        <float[3] s = {1, 2, 3}, uint8[3] z = {0, 1, 2}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = QuantizeLinear <axis=1> (a, s, z)
        c = DequantizeLinear <axis=-3> (b, s, z)
        y = Transpose <perm=[0,2,3,1]> (c)
    }""",
    "squeezed and unsqueezed axes": """g (float[2,1,5,3] x) => (float[2,5,3] y)
        <int64[1] d = {2}, int64[1] e = {0}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Squeeze (a, d)
        c = Unsqueeze (b, e)
        u = Transpose <perm=[0,1,3,2]> (c)
        y = Squeeze (u, e)
    }""",
    "a channel shuffle in three dimensions": """g (float[1,8,3,4] x) => (float[1,4,3,4] y)
        <int64[3] s = {4, 2, 12}, int64[5] t = {2, -1, 4, 3, 4}, int64 i = {1}> {
        a = Reshape (x, s)
        b = Transpose <perm=[1,0,2]> (a)
        c = Reshape (b, t)
        y = Gather <axis=0> (c, i)
    }""",
    "a constant picked from a Shape": """g (float[2,4,5,3] x) => (int64 y) <int64 i = {-3}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        s = Shape (a)
        y = Gather (s, i)
    }""",
    "only axes of size 1": """g (float[N,1,7] x) => (float[N,7,1] y) {
        a = Transpose <perm=[0,2,1]> (x)
        y = Identity (a)
    }""",
    "only axes of size 1, between two dynamic ones": """g (float[N,1,M] x) => (float[N,M,1] y) {
        a = Transpose <perm=[0,2,1]> (x)
        y = Identity (a)
    }""",
    "a product with a weight matrix": """g (float[2,5,3] x) => (float[2,5,2] y)
        <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
        a = Transpose <perm=[1,0,2]> (x)
        b = MatMul (a, w)
        y = Transpose <perm=[1,0,2]> (b)
    }""",
    "the rows of the weights after Flatten": """g (float[N,2,1,2] x) => (float[N,2] y)
        <float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] b = {1, 2}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        f = Flatten (a)
        y = Gemm (f, w, b)
    }""",
    "the columns of turned weights after Reshape": """g (float[N,2,2,2] x) => (float[N,1] y)
        <int64[2] s = {0, -1}, float[1,8] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        f = Reshape (a, s)
        y = Gemm <transB=1> (f, w)
    }""",
    "chains and equal Transposes": """g (float[2,3,4] x) => (float[2,3,4] y) {
        a = Transpose <perm=[1,0,2]> (x)
        b = Transpose <perm=[1,2,0]> (a)
        c = Transpose <perm=[1,2,0]> (x)
        d = Transpose <perm=[2,0,1]> (b)
        e = Transpose <perm=[2,0,1]> (c)
        f = Transpose <perm=[1,0,2]> (d)
        y = Add (e, f)
    }""",
    "in a body, of a captured value": """g (float[2,3] x, bool c) => (float[2,3] y) {
        y = If (c) <
            then_branch = p () => (float[2,3] p_y) {
                p_a = Transpose <perm=[1,0]> (x)
                p_b = Relu (p_a)
                p_y = Transpose <perm=[1,0]> (p_b)
            },
            else_branch = q () => (float[2,3] q_y) { q_y = Neg (x) }
        >
    }""",
}


@pytest.mark.parametrize("text", PATTERNS.values(), ids=PATTERNS)
def test_all_transposes_cancel(text: str) -> None:
    proto = model(HEADER.format(opset=13) + text)
    after, ledger = cancelled(proto)
    assert transposes(after) == 0
    assert len(operators(after)) <= len(operators(proto))
    assert_same(proto, after, ledger.numerics)


MUST_STAY = {
    "convolutions want their layout": (
        2,
        """g (float[1,4,4,3] x) => (float[1,4,4,3] y)
        <float[3,3,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Conv (a, w)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    ),
    "a residual with only one transposed operand": (
        1,
        """
        g (float[3,3] x, float[3,3] z) => (float[3,3] y) {
        a = Transpose <perm=[1,0]> (x)
        y = Add (a, z)
    }""",
    ),
    "a reader of lower rank along an axis that would move": (
        2,
        """
        g (float[2,4,5,3] x, float[5] z) => (float[2,4,5,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Add (a, z)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    ),
    "axes that a Reshape mixes": (
        1,
        """g (float[2,4,6] x) => (float[2,3,8] y)
        <int64[3] s = {2, 3, 8}> {
        a = Transpose <perm=[0,2,1]> (x)
        y = Reshape (a, s)
    }""",
    ),
    "a genuine channel shuffle": (
        1,
        """g (float[1,6,2] x) => (float[1,6,2] y)
        <int64[4] s = {1, 2, 3, 2}, int64[3] t = {1, 6, 2}> {
        a = Reshape (x, s)
        b = Transpose <perm=[0,2,1,3]> (a)
        y = Reshape (b, t)
    }""",
    ),
    "an inner value that is an output too": (
        2,
        """
        g (float[2,4,5,3] x) => (float[2,3,4,5] b, float[2,4,5,3] y)
        <float[3] s = {1, 2, 3}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = InstanceNormalization (a, s, s)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    ),
    "rows of weights in another order than the matrix has": (
        1,
        """
        g (float[2,3,4] x) => (float[4,2] y) <int64[2] t = {4, -1}, float[6,2] w
        = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}> {
        a = Transpose <perm=[2,0,1]> (x)
        f = Reshape (a, t)
        m = MatMul (f, w)
        y = Relu (m)
    }""",
    ),
    "linear interpolation": (
        2,
        """g (float[2,4,5,3] x) => (float[2,8,5,3] y)
        <float[0] r = {}, float[4] s = {1, 1, 2, 1}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Resize <mode="linear"> (a, r, s)
        y = Transpose <perm=[0,2,3,1]> (b)
    }""",
    ),
    "a Transpose that is not the inverse": (
        1,
        """g (float[2,4,5,3] x) => (float[2,5,3,4] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Relu (a)
        y = Transpose <perm=[0,3,1,2]> (b)
    }""",
    ),
}


@pytest.mark.parametrize(("left", "text"), MUST_STAY.values(), ids=MUST_STAY)
def test_no_more_than_can_be_saved_goes(left: int, text: str) -> None:
    proto = model(HEADER.format(opset=13) + text)
    after, ledger = cancelled(proto)
    assert transposes(after) == left
    assert_same(proto, after, ledger.numerics)


def test_before_opset_13_softmax_normalizes_all_axes_behind_its_own() -> None:
    text = """g (float[2,4,5,3] x) => (float[2,4,5,3] y) {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = Softmax <axis=AXIS> (a)
        y = Transpose <perm=[0,2,3,1]> (b)
    }"""
    for axis in range(4):
        proto = model(HEADER.format(opset=11) + text.replace("AXIS", str(axis)))
        after, ledger = cancelled(proto)
        assert transposes(after) == (0 if axis < 2 else 2)
        assert_same(proto, after, ledger.numerics)


def test_a_transpose_moves_to_the_smaller_tensor() -> None:
    proto = model(
        HEADER.format(opset=13)
        + """g (float[N,8,8,3] x) => (float[N,3,8] y)
        <float[3] s = {1, 2, 3}> {
        a = Transpose <perm=[0,3,1,2]> (x)
        b = ReduceMax <axes=[3], keepdims=0> (a)
        y = InstanceNormalization (b, s, s)
    }"""
    )
    after, ledger = cancelled(proto)
    assert operators(after) == ["ReduceMax", "Transpose", "InstanceNormalization"]
    assert_same(proto, after, ledger.numerics)


def test_of_three_transposes_around_a_concat_the_two_needed_stay() -> None:
    proto = model(
        HEADER.format(opset=13)
        + """
        g (float[2,4,5,3] x, float[2,5,3,4] z) => (float[2,4,6,5] y, float[2,4,5,6] p) {
        a = Transpose <perm=[0,1,3,2]> (x)
        b = Transpose <perm=[0,3,2,1]> (z)
        c = Concat <axis=2> (a, b)
        y = LRN <size=3> (c)
        p = Transpose <perm=[0,1,3,2]> (c)
    }"""
    )
    after, ledger = cancelled(proto)
    assert transposes(after) == 2
    assert_same(proto, after, ledger.numerics)


def test_outputs_and_surviving_nodes_keep_their_names() -> None:
    text = """g (float[2,4,5,3] x) => (float[2,4,5,3] y, float[2,3,4,5] z) {
        a = Transpose <perm=[0,3,1,2]> (x)
        z = Relu (a)
        n = Neg (z)
        m = Exp (n)
        y = Transpose <perm=[0,2,3,1]> (m)
    }"""
    proto = model(HEADER.format(opset=13) + text)
    for node in proto.graph.node:
        node.name = f"{node.op_type} of {node.output[0]}"
    after, ledger = cancelled(proto)
    assert after.graph.output == proto.graph.output
    assert {n.name: n.op_type for n in after.graph.node if n.name}.items() <= {
        n.name: n.op_type for n in proto.graph.node
    }.items()
    assert transposes(after) == 1
    assert_same(proto, after, ledger.numerics)


def test_what_reads_a_value_in_a_body_gets_it_as_it_was() -> None:
    proto = model(
        HEADER.format(opset=13)
        + """
        g (float[2,3] x, float[2,3] z, bool c) => (float[2,3] y, float[3,2] w) {
        a = Transpose <perm=[1,0]> (x)
        b = Transpose <perm=[1,0]> (z)
        d = Add (a, b)
        y = Transpose <perm=[1,0]> (d)
        w = If (c) <
            then_branch = p () => (float[3,2] p_y) { p_y = Softmax <axis=1> (d) },
            else_branch = q () => (float[3,2] q_y) { q_y = Neg (d) }
        >
    }"""
    )
    after, ledger = cancelled(proto)
    assert transposes(after) == 1
    assert_same(proto, after, ledger.numerics)


def test_two_outputs_that_are_the_same_stay_two() -> None:
    proto = model(
        HEADER.format(opset=13)
        + """
        g (float[2,3] x) => (float[2,3] y, float[2,3] z) {
        a = Relu (x)
        y = Transpose <perm=[0,1]> (a)
        z = Transpose <perm=[0,1]> (a)
    }"""
    )
    after, ledger = cancelled(proto)
    assert operators(after) == ["Relu", "Identity"]
    assert_same(proto, after, ledger.numerics)


def test_large_constants_with_other_readers_are_not_copied() -> None:
    proto = model(
        HEADER.format(opset=13)
        + """
        g (float[40,30] x) => (float[40,30] y, float[30,40] z) {
        a = Transpose <perm=[1,0]> (x)
        b = Add (a, k)
        y = Transpose <perm=[1,0]> (b)
        z = Neg (k)
    }"""
    )
    values = np.arange(1200, dtype=np.float32).reshape(30, 40)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "k"))
    after, _ = cancelled(proto)
    assert transposes(after) == 2
    del proto.graph.node[3], proto.graph.output[1]
    after, ledger = cancelled(proto)
    assert transposes(after) == 0
    assert_same(proto, after, ledger.numerics)
    assert after.ByteSize() <= proto.ByteSize()


def test_nothing_is_done_without_leave_and_the_reason_is_booked() -> None:
    proto = model(HEADER.format(opset=13) + PATTERNS["unary operators"])
    working, ledger = Model.from_proto(proto), Ledger(fuel=0)
    infer(working)
    CancelTransposes()(working, ledger)
    assert working.to_proto() == proto
    _, ledger = cancelled(model(HEADER.format(opset=13) + MUST_STAY["linear interpolation"][1]))
    assert {change.what for change in ledger.declined} == {
        "no Transpose would be saved: Resize cannot change layout"
    }


def test_movement_alone_is_booked_as_exact() -> None:
    for name in ("unary operators", "a Concat", "a Pad", "a channel shuffle in three dimensions"):
        _, ledger = cancelled(model(HEADER.format(opset=13) + PATTERNS[name]))
        assert ledger.numerics == "exact"
    for name in ("a Softmax", "a product with a weight matrix"):
        _, ledger = cancelled(model(HEADER.format(opset=13) + PATTERNS[name]))
        assert ledger.numerics == "rounding"
