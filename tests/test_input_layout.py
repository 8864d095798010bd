"""An input takes another layout, its Transposes go away, and the change is made known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from judge import apply, assert_close, drawn, model, operators

from onnxopt.changes import Ledger
from onnxopt.errors import UsageError
from onnxopt.model import Model
from onnxopt.passes.input_layout import InputLayout
from onnxopt.passes.transposes import CancelTransposes
from onnxopt.runtime import Session
from onnxopt.shapes import infer

HEADER = '<ir_version: 8, opset_import: ["" : 13]>\n'
NHWC = (
    HEADER
    + """g (float[N,height,8,3] x) => (float[N,A,B,2] y)
    <float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}> {
    t = Transpose <perm=[0,3,1,2]> (x)
    y = Conv (t, w)
}"""
)


def turned(text: str, **layouts: str) -> tuple[onnx.ModelProto, Model]:
    working = Model.from_proto(model(text))
    for item in (InputLayout(layouts), CancelTransposes()):
        infer(working)
        item(working, Ledger())
    return working.to_proto(), working


def dims(info: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]


def assert_same_when_fed_turned(
    before: onnx.ModelProto, after: onnx.ModelProto, made: Model
) -> None:
    feeds = drawn(before, size=4)
    expected = Session(before).run(feeds)
    given = {
        n: np.transpose(a, made.input_permutations[n]) if n in made.input_permutations else a
        for n, a in feeds.items()
    }
    for name, value in Session(after).run(given).items():
        assert_close(expected[name], value, 0, 0, name)


def test_the_transpose_of_an_input_goes_and_its_dimensions_move_along() -> None:
    before = model(NHWC)
    after, made = turned(NHWC, x="nchw")
    assert operators(after) == ["Conv"]
    assert dims(after.graph.input[0]) == ["N", 3, "height", 8]
    assert dims(before.graph.input[0]) == ["N", "height", 8, 3]
    assert made.input_permutations == {"x": (0, 3, 1, 2)}
    assert_same_when_fed_turned(before, after, made)


def test_the_report_says_that_the_signature_changed() -> None:
    _, made = turned(NHWC, x="nchw")
    assert made.notes == [
        "the signature changed: the input 'x' is nchw now, [N, 3, height, 8]; "
        "it was [N, height, 8, 3]"
    ]


def test_other_readers_work_on_the_new_layout_too() -> None:
    text = (
        HEADER
        + """g (float[2,4,8,3] x) => (float[2,3,4,8] y, float[3] m) <float[3] s = {1, 2, 3}> {
        t = Transpose <perm=[0,3,1,2]> (x)
        y = InstanceNormalization <epsilon=0.1> (t, s, s)
        m = ReduceMax <axes=[0,1,2], keepdims=0> (x)
    }"""
    )
    after, made = turned(text, x="nchw")
    assert operators(after) == ["InstanceNormalization", "ReduceMax"]
    assert_same_when_fed_turned(model(text), after, made)


def test_readers_in_bodies_get_the_input_as_it_was() -> None:
    text = (
        HEADER
        + """g (float[2,4,8,3] x, bool c) => (float[2,3,4,8] y, float[2,4,8,3] b) {
        t = Transpose <perm=[0,3,1,2]> (x)
        y = LRN <size=3> (t)
        b = If (c) <then_branch = p () => (float[2,4,8,3] q) { q = LRN <size=3> (x) },
                    else_branch = r () => (float[2,4,8,3] w) { w = Neg (x) }>
    }"""
    )
    with pytest.raises(UsageError, match="no Transpose would be saved"):
        turned(text, x="nchw")


def test_a_transpose_behind_other_operators_is_saved_too() -> None:
    text = NHWC.replace(
        "t = Transpose <perm=[0,3,1,2]> (x)", "a = Relu (x)\n t = Transpose <perm=[0,3,1,2]> (a)"
    )
    after, made = turned(text, x="nchw")
    assert operators(after) == ["Relu", "Conv"]
    assert_same_when_fed_turned(model(text), after, made)


@pytest.mark.parametrize(
    ("layout", "shape", "perm"),
    [
        ("nhwc", "2,3,4,5", "0,2,3,1"),
        ("ncw", "2,4,3", "0,2,1"),
        ("nwc", "2,3,4", "0,2,1"),
        ("ncdhw", "2,3,4,5,6", "0,4,1,2,3"),
        ("ndhwc", "2,3,4,5,6", "0,2,3,4,1"),
    ],
)
def test_all_layouts_are_known(layout: str, shape: str, perm: str) -> None:
    text = (
        HEADER
        + f"""g (float[{shape}] x) => (float y) {{
        t = Transpose <perm=[{perm}]> (x)
        s = Shape (t)
        r = Reshape (t, s)
        y = ReduceMax <keepdims=0> (r)
    }}"""
    )
    after, made = turned(text, x=layout)
    assert "Transpose" not in operators(after)
    assert_same_when_fed_turned(model(text), after, made)


def test_a_second_round_leaves_the_input_alone() -> None:
    working = Model.from_proto(model(NHWC))
    infer(working)
    InputLayout({"x": "nchw"})(working, Ledger())
    again = Ledger()
    InputLayout({"x": "nchw"})(working, again)
    assert not again.changes


def test_without_leave_nothing_happens() -> None:
    working = Model.from_proto(model(NHWC))
    infer(working)
    InputLayout({"x": "nchw"})(working, Ledger(fuel=0))
    assert working.to_proto() == model(NHWC)
    assert not working.input_permutations
    assert not working.notes


@pytest.mark.parametrize(
    ("layouts", "said"),
    [
        ({"z": "nchw"}, "no input 'z'.*possible here: x=nchw"),
        ({"x": "ncw"}, r"cannot become ncw.*\[N, height, 8, 3\].*possible here: x=nchw"),
        ({"x": "nhwc"}, "no Transpose would be saved.*possible here: x=nchw"),
        ({"x": "chwn"}, "no input layout 'chwn'.*layouts are nchw"),
    ],
)
def test_what_cannot_be_is_refused_and_says_what_can(layouts: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        apply(model(NHWC), InputLayout(layouts))
