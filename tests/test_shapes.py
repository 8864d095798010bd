"""Inferred shapes are never wrong: not on real models, not where the file itself is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference
import pytest
from judge import TINY_MODELS, corpus_file, drawn, model

from onnxopt.graph import Value, Variable
from onnxopt.model import Model, load
from onnxopt.runtime import Session
from onnxopt.shapes import infer
from onnxopt.typed_copy import TypedCopy

REAL_MODELS = [
    "bert_toy_optimized",
    "chineseocr_angle_net",
    "fastestdet_352",
    "gpt2_past_tiny",
    "loop_lstm_tiny",
    "magika_standard_v3_3",
    "mobilenetv2_qat_identity",
    "openseeface_mnv3_detection",
    "ppocr_mobile_v2_cls",
    "ssd_head_excerpt",
    "ultraface_slim320_simplified",
]


def inferred(proto: onnx.ModelProto) -> dict[str, Value]:
    """All values by name, bodies included, after inference."""
    made = Model.from_proto(proto)
    infer(made)
    graphs = list(made.graph.walk())
    values = [v for g in graphs for n in g.nodes for v in n.outputs if not v.omitted]
    return {v.name: v for v in (*values, *(v for g in graphs for v in g.inputs))}


def assert_true_at_run_time(proto: onnx.ModelProto) -> int:
    """Every inferred type and shape of the main graph is what ONNX Runtime makes; how many."""
    values = inferred(proto)
    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    del seen.graph.value_info[:]
    present = {info.name for info in seen.graph.output}
    names = {name for node in proto.graph.node for name in node.output if name}
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - present))
    session = Session(seen)
    compared = 0
    for size in (2, 3):
        feeds = drawn(proto, seed=size, size=size)
        sizes: dict[str, int] = {}
        for name, array in {**feeds, **session.run(feeds)}.items():
            if isinstance(array, np.ndarray) and name in values:
                assert_fits(values[name], array, sizes)
                compared += 1
    return compared


def assert_fits(value: Value, array: np.ndarray, sizes: dict[str, int]) -> None:
    assert value.dtype is None or value.dtype == array.dtype, value.name
    if value.shape is None:
        return
    assert len(value.shape) == array.ndim, value.name
    for dim, size in zip(value.shape, array.shape, strict=True):
        known = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
        assert known is None or known == size, f"{value.name}: {value.shape} is {array.shape}"


@pytest.mark.parametrize("path", TINY_MODELS, ids=lambda path: path.stem)
def test_shapes_of_tiny_models_are_true_at_run_time(path: Path) -> None:
    proto = load(path)
    if all(info.type.HasField("tensor_type") for info in proto.graph.input):
        values = inferred(proto)
        session = Session(proto)
        for name, array in session.run(drawn(proto)).items():
            if isinstance(array, np.ndarray) and isinstance(values.get(name), Variable):
                assert_fits(values[name], array, {})


@pytest.mark.parametrize("name", REAL_MODELS)
def test_shapes_of_real_models_are_true_at_run_time(name: str) -> None:
    assert assert_true_at_run_time(load(corpus_file(f"real/{name}.onnx"))) > 10


def test_wrong_declarations_inside_the_graph_are_not_believed() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[2,3] x) => (float[7,7,7] y) <float[9] a> {
                a = Relu(x)
                y = Transpose(a)
            }
        """)
    )
    assert values["a"].shape == (2, 3)
    assert values["y"].shape == (3, 2)


def test_dimensions_of_the_same_name_are_not_taken_for_equal() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,N] x, float[N] y) => (z) { z = Add(x, y) }
        """)
    )
    assert len({*values["x"].shape, *values["y"].shape}) == 3
    assert values["z"].shape[0] == values["x"].shape[0]
    assert values["z"].shape[1] not in (*values["x"].shape, *values["y"].shape)


def test_an_overridable_initializer_is_not_a_constant() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x, int64[2] s) => (y) <int64[2] s = {3, 2}> { y = Reshape(x, s) }
    """
    assert inferred(model(text))["y"].static_shape is None
    assert inferred(model(text.replace(", int64[2] s)", ")")))["y"].shape == (3, 2)


def test_a_value_that_a_loop_carries_has_no_shape() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (int64 n, bool go, float[1] x) => (y) {
                y = Loop(n, go, x) <body = body (int64 i, bool c, float[1] held)
                    => (bool d, float[1] longer)
                    { d = Identity(c) longer = Concat<axis = 0>(held, held) }>
            }
        """)
    )
    assert values["held"].shape is None and values["longer"].shape is None
    assert values["y"].shape is None and values["y"].dtype == np.float32
    assert values["i"].shape == ()


def test_a_body_sees_the_small_constants_around_it() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (bool c, float[2,3] x) => (y) <int64[1] axes = {0}> {
                y = If(c) <
                    then_branch = a () => (p) { p = Unsqueeze(x, axes) },
                    else_branch = b () => (q) { q = Unsqueeze(x, axes) }>
            }
        """)
    )
    assert values["p"].shape == values["y"].shape == (1, 2, 3)


def test_a_body_that_reuses_a_name_has_its_own_shapes() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (bool c, float[2,3] x) => (y, w) {
                w = Relu(x)
                y = If(c) <
                    then_branch = a () => (p) { t = Transpose(x) p = Relu(t) },
                    else_branch = b () => (q) { t = Relu(x) q = Transpose(t) }>
            }
        """)
    )
    assert values["y"].shape == (3, 2) and values["w"].shape == (2, 3)
    assert values["t"].shape == (2, 3)  # the second of the two


def test_the_rank_of_a_reshape_is_known_by_the_length_of_its_shape() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[A,B] x, int64[3] s) => (z) { y = Reshape(x, s) z = Relu(y) }
        """)
    )
    assert values["y"].rank == values["z"].rank == 3


def test_a_short_time_fourier_transform_is_onesided_unless_it_says_otherwise() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[1,128,1] x) => (y)
                <int64 step = {8}, int64 length = {16}> { y = STFT(x, step, , length) }
        """)
    )
    assert values["y"].shape == (1, 15, 9, 2)


def test_unknown_operators_keep_their_declared_type_but_no_shape() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
            g (float[2,3] x) => (float[2,3] z) <float16[9] a> {
                a = com.acme.Magic(x)
                z = com.acme.More(a)
            }
        """)
    )
    assert values["a"].dtype == np.float16 and values["a"].shape is None
    assert values["z"].dtype == np.float32 and values["z"].shape is None


def test_a_fused_convolution_is_shaped_like_a_convolution() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
            g (float[1,2,8,8] x, float[4,2,3,3] w) => (y) {
                y = com.microsoft.FusedConv<activation = "Relu">(x, w)
            }
        """)
    )
    assert values["y"].shape == (1, 4, 6, 6)


def test_local_functions_are_looked_into() -> None:
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
            g (float[2,3] x) => (y) { y = local.turn(x) }
            <domain: "local", opset_import: ["" : 17]>
            turn (a) => (b) { b = Transpose(a) }
        """)
    )
    assert values["y"].shape == (3, 2)


def test_large_weights_are_not_copied_and_small_ones_are() -> None:
    weight = onnx.numpy_helper.from_array(np.zeros((512, 512), np.float32), "w")
    shape = onnx.numpy_helper.from_array(np.array([4, 128]), "s")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"]),
        onnx.helper.make_node("Reshape", ["y", "s"], ["z"]),
    ]
    x = onnx.helper.make_tensor_value_info("x", 1, [1, 512])
    z = onnx.helper.make_tensor_value_info("z", 1, None)
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", [x], [z], [weight, shape]), ir_version=8
    )
    assert TypedCopy(Model.from_proto(proto)).proto.ByteSize() < 1000
    assert inferred(proto)["z"].shape == (4, 128)


def test_where_inference_throws_types_come_from_declarations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def throw(*args: object, **options: object) -> None:
        raise onnx.shape_inference.InferenceError("no")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", throw)
    values = inferred(
        model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[2,3] x) => (float[2,3] y) <float[2,3] a> { a = Relu(x) y = Relu(a) }
        """)
    )
    assert values["a"].dtype == values["y"].dtype == np.float32
    assert values["a"].shape is None and values["x"].shape is None
