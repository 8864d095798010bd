"""Sessions: types that numpy lacks, nested values, errors in one line of the right kind."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from judge import corpus_file, model

import onnxopt.runtime
from onnxopt.errors import BadModelError, UnverifiableError
from onnxopt.messages import clean_message
from onnxopt.runtime import RunError, Session


def test_outputs_come_by_name_and_in_order() -> None:
    proto = model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] b, float[2] a) { a = Neg(x) b = Abs(x) }""")
    found = Session(proto).run({"x": np.array([1, -2], np.float32)})
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["a"], [-1, 2])


@pytest.mark.parametrize("name", ["bfloat16", "float8e4m3fn", "float8e5m2"])
def test_types_that_numpy_lacks_go_in_and_come_out(name: str) -> None:
    proto = model(f"""<ir_version: 10, opset_import: ["": 21]>
        g ({name}[3] x, float[1] s) => ({name}[3] y, float[1] t) {{
            y = Identity(x)
            t = Neg(s)
        }}""")
    session = Session(proto)
    value = np.array([1, 2, 3]).astype(session.inputs[0].dtype)
    found = session.run({"x": value, "s": np.ones(1, np.float32)})
    assert found["y"].dtype == value.dtype
    np.testing.assert_array_equal(found["y"].astype(np.float32), [1, 2, 3])
    assert value.dtype.type.__module__ == ml_dtypes.__name__


def test_sequences_and_absent_optionals_are_fed() -> None:
    proto = model("""<ir_version: 10, opset_import: ["": 21]>
        g (seq(float[N]) s, optional(float[2]) o) => (float[M] joined, bool there) {
            joined = ConcatFromSequence<axis = 0>(s)
            there = OptionalHasElement(o)
        }""")
    session = Session(proto)
    assert [(p.kind, p.optional) for p in session.inputs] == [("sequence", False), ("tensor", True)]
    found = session.run({"s": [np.ones(2, np.float32), np.zeros(1, np.float32)], "o": None})
    np.testing.assert_array_equal(found["joined"], [1, 1, 0])
    assert not found["there"]


def test_initializers_that_are_inputs_are_overridable() -> None:
    proto = model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[1] x, float[1] w) => (float[1] y) <float[1] w = {2}> { y = Mul(x, w) }""")
    session = Session(proto)
    assert [p.name for p in session.inputs] == ["x"]
    assert [p.name for p in session.overridable] == ["w"]
    x = np.ones(1, np.float32)
    assert session.run({"x": x})["y"] == 2
    assert session.run({"x": x, "w": np.array([5], np.float32)})["y"] == 5


def test_a_model_too_large_for_one_message_is_loaded_from_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proto = model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[1000] x) => (float[1000] y) { y = Add(x, w) }""")
    weight = np.arange(1000, dtype=np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    monkeypatch.setattr(onnxopt.runtime, "LARGEST_IN_MEMORY_BYTES", 100)
    found = Session(proto).run({"x": np.zeros(1000, np.float32)})
    np.testing.assert_array_equal(found["y"], weight)
    assert not proto.graph.initializer[0].external_data


def test_running_twice_gives_the_same_bits() -> None:
    proto = model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[64,512] x, float[512,64] w) => (float[64,64] y) {
            m = MatMul(x, w)
            y = Softmax(m)
        }""")
    rng = np.random.default_rng(0)
    feeds = {
        n: rng.standard_normal(s).astype(np.float32)
        for n, s in (("x", (64, 512)), ("w", (512, 64)))
    }
    first, second = Session(proto).run(feeds), Session(proto).run(feeds)
    assert first["y"].tobytes() == second["y"].tobytes()


def test_wrong_inputs_are_a_run_error_in_one_line() -> None:
    proto = model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x, float[3] z) => (float[2] y, float[3] v) { y = Neg(x) v = Neg(z) }""")
    session = Session(proto)
    for feeds in ({}, {"x": np.ones(2), "z": np.ones(3)}, {"x": np.ones((2, 2), np.float32)}):
        with pytest.raises(RunError) as caught:
            session.run(feeds)
        assert "\n" not in str(caught.value)
        assert "ONNXRuntimeError" not in str(caught.value)
        assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "body",
    [
        "y = NoSuchOperator(x)",
        "y = Relu<slope = 1.0>(x)",
        "z = Cast<to = 7>(x) y = Add(x, z)",
    ],
)
def test_invalid_models_are_bad_models(body: str) -> None:
    proto = model(f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] y) {{ {body} }}""")
    with pytest.raises(BadModelError, match="not valid ONNX"):
        Session(proto)


def test_foreign_operators_cannot_be_verified_here() -> None:
    proto = model("""<ir_version: 8, opset_import: ["": 17, "my.domain": 1]>
        g (float[2] x) => (float[2] y) { y = my.domain.Special(x) }""")
    with pytest.raises(UnverifiableError, match="Special"):
        Session(proto)


def test_messages_lose_codes_paths_and_traces() -> None:
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Div node. "
        "Name:'' Status Message: /src/onnxruntime/core/element_wise_ops.cc:692 Integer division"
        "\nStacktrace: at main"
    )
    assert clean_message(Exception(text)) == "running Div node. Integer division"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("bert_tf2onnx_mixed_slice_types", BadModelError),
        ("polygraphy_invalid_op", BadModelError),
        ("sleepvit_bad_attr", BadModelError),
        ("starry_night_fp16_badshape", BadModelError),
        ("epcontext_qnn", UnverifiableError),
        ("superres_prepost_op18", UnverifiableError),
        ("whisper_openai_azure", UnverifiableError),
        ("training_model_send_recv", UnverifiableError),
    ],
)
def test_hostile_models_are_refused_with_the_right_kind(
    name: str, error: type[Exception], capfd: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load(corpus_file(f"hostile/{name}.onnx"), load_external_data=False)
    with pytest.raises(error) as caught:
        Session(proto)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")
