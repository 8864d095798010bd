"""Costs: counted by hand on small models, and by the published numbers on a large one."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from judge import corpus_file, model

from onnxopt.cost import Cost, cost_of, node_costs
from onnxopt.model import Model, load


def cost_of_text(text: str) -> Cost:
    return cost_of(model(text))


HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'


@pytest.mark.parametrize(
    ("node", "inputs", "macs"),
    [
        ("Conv(x, w)", "float[2,3,8,8] x, float[4,3,3,3] w", 2 * 4 * 6 * 6 * 3 * 9),
        ("Conv<group = 3>(x, w)", "float[1,3,8,8] x, float[6,1,3,3] w", 6 * 36 * 9),
        ("Conv<strides = [2, 2]>(x, w)", "float[1,3,9,9] x, float[4,3,3,3] w", 4 * 16 * 27),
        ("ConvTranspose(x, w)", "float[1,3,4,4] x, float[3,5,2,2] w", 3 * 16 * 5 * 4),
        ("Gemm(x, w)", "float[2,3] x, float[3,5] w", 2 * 5 * 3),
        ("Gemm<transA = 1, transB = 1>(x, w)", "float[3,2] x, float[5,3] w", 2 * 5 * 3),
        ("MatMul(x, w)", "float[7,2,3] x, float[3,5] w", 7 * 2 * 5 * 3),
        ("MatMul(x, w)", "float[N,2,3] x, float[3,5] w", 2 * 5 * 3),
        ("MatMul(x, w)", "float[3] x, float[3] w", 3),
        ("MatMulInteger(x, w)", "uint8[2,3] x, int8[3,5] w", 2 * 5 * 3),
        ("ConvInteger(x, w)", "uint8[1,3,8,8] x, uint8[4,3,3,3] w", 4 * 36 * 27),
        ("com.microsoft.FusedConv(x, w)", "float[1,3,8,8] x, float[4,3,3,3] w", 4 * 36 * 27),
        ("Relu(x)", "float[2,3] x", 0),
    ],
)
def test_multiply_accumulates_are_those_of_the_textbook(node: str, inputs: str, macs: int) -> None:
    found = cost_of_text(f"{HEADER} g ({inputs}) => (y) {{ y = {node} }}")
    assert found.macs == macs
    assert not found.unknown


def test_quantized_convolutions_count_like_others() -> None:
    found = cost_of_text(f"""
        {HEADER} g (uint8[1,3,8,8] x, uint8[4,3,3,3] w, float s, uint8 z) => (y) {{
            y = QLinearConv(x, s, z, w, s, z, s, z)
        }}""")
    assert found.macs == 4 * 36 * 27


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_count_every_gate_of_every_step(operator: str, gates: int) -> None:
    steps, batch, size, hidden = 5, 2, 3, 4
    found = cost_of_text(f"""
        {HEADER} g (float[{steps},{batch},{size}] x, float[1,{gates * hidden},{size}] w,
                    float[1,{gates * hidden},{hidden}] r) => (y) {{
            y = {operator}<hidden_size = {hidden}>(x, w, r)
        }}""")
    assert found.macs == steps * batch * gates * hidden * (size + hidden)


def test_resnet50_has_the_published_count() -> None:
    found = cost_of(load(corpus_file("real/light_resnet50.onnx")))
    assert found.macs == pytest.approx(4.09e9, rel=0.001)
    assert not found.assumed and not found.unknown


def test_symbolic_dimensions_count_as_one_and_are_named() -> None:
    found = cost_of_text(f"{HEADER} g (float[N,3] x) => (y) {{ y = Relu(x) }}")
    assert found.assumed == ("N",)
    assert found.activation_bytes == 2 * 3 * 4


def test_a_node_of_unknown_shape_makes_the_count_a_lower_bound() -> None:
    found = cost_of_text(f"""
        {HEADER} g (float[2,3] x, float[3,5] w, int64[2] s) => (y) {{
            r = Reshape(x, s)
            y = MatMul(r, w)
        }}""")
    assert len(found.unknown) == 1 and "MatMul" in found.unknown[0]


def test_bodies_are_counted_and_a_loop_says_that_it_counts_once() -> None:
    found = cost_of_text(f"""
        {HEADER} g (int64 n, bool go, float[2,2] x) => (y) {{
            y = Loop(n, go, x) <body = body (int64 i, bool c, float[2,2] h)
                => (bool d, float[2,2] k) {{ d = Identity(c) k = MatMul(h, h) }}>
        }}""")
    assert found.operators == {"Identity": 1, "Loop": 1, "MatMul": 1}
    assert found.nodes == 3
    assert any("Loop" in name for name in found.unknown)


def test_operators_of_other_domains_carry_their_domain() -> None:
    found = cost_of_text(f"{HEADER} g (float[2] x) => (y) {{ y = com.microsoft.Gelu(x) }}")
    assert found.operators == {"com.microsoft.Gelu": 1}


def test_parameters_count_initializers_and_constant_nodes_alike() -> None:
    as_node = f"""{HEADER} g (float[2] x) => (y) {{
        c = Constant<value = float[2] {{1, 2}}>() y = Add(x, c) }}"""
    as_initializer = (
        f"""{HEADER} g (float[2] x) => (y) <float[2] c = {{1, 2}}> {{ y = Add(x, c) }}"""
    )
    one, other = cost_of_text(as_node), cost_of_text(as_initializer)
    assert one.parameters == other.parameters == 2
    assert one.weight_bytes == other.weight_bytes == 8
    assert (one.initializers, other.initializers) == (0, 1)


def test_half_precision_weights_take_half_the_bytes() -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros((3, 5), np.float16), "w")
    x = onnx.helper.make_tensor_value_info("x", 10, [2, 3])
    y = onnx.helper.make_tensor_value_info("y", 10, [2, 5])
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [tensor]))
    found = cost_of(proto)
    assert found.weight_bytes == 30
    assert found.activation_bytes == 2 * (6 + 10)
    assert found.size_bytes == proto.ByteSize()


def test_peak_memory_frees_what_is_not_needed_any_more() -> None:
    chain = cost_of_text(
        f"{HEADER} g (float[10] x) => (d) {{ b = Relu(x) c = Relu(b) d = Relu(c) }}"
    )
    assert chain.activation_bytes == 4 * 40
    assert chain.peak_memory_bytes == 2 * 40


def test_peak_memory_holds_what_a_later_node_needs() -> None:
    residual = cost_of_text(
        f"{HEADER} g (float[10] x) => (d) {{ b = Relu(x) c = Relu(b) d = Add(c, x) }}"
    )
    assert residual.peak_memory_bytes == 3 * 40


def test_views_take_no_memory_but_keep_what_they_show_alive() -> None:
    found = cost_of_text(f"""
        {HEADER} g (float[2,5] x) => (d) <int64[1] s = {{10}}> {{
            b = Reshape(x, s) c = Relu(b) e = Relu(c) d = Add(e, b) }}""")
    assert found.activation_bytes == 4 * 40
    assert found.peak_memory_bytes == 3 * 40


def test_outputs_live_to_the_end() -> None:
    found = cost_of_text(
        f"{HEADER} g (float[10] x) => (b, d) {{ b = Relu(x) c = Relu(b) d = Relu(c) }}"
    )
    assert found.peak_memory_bytes == 3 * 40


def test_a_body_needs_its_memory_while_its_node_runs() -> None:
    found = cost_of_text(f"""
        {HEADER} g (bool c, float[10] x) => (y) {{
            y = If(c) <
                then_branch = a () => (q) {{ p = Relu(x) q = Relu(p) }},
                else_branch = b () => (r) {{ r = Relu(x) }}>
        }}""")
    assert found.peak_memory_bytes == 1 + 40 + 40 + 2 * 40


def test_signature_is_part_of_the_cost() -> None:
    found = cost_of_text(f"{HEADER} g (float[N,3] x) => (float[N,3] y) {{ y = Relu(x) }}")
    assert found.inputs == {"x": "float32[N,3]"}
    assert found.outputs == {"y": "float32[N,3]"}


def test_costs_of_nodes_add_up() -> None:
    proto = model(f"""
        {HEADER} g (float[2,3] x) => (y) <float[3,2] w = {{1,2,3,4,5,6}}> {{
            a = MatMul(x, w) y = Relu(a) }}""")
    first, second = node_costs(Model.from_proto(proto))
    assert (first.operator, first.macs, first.parameters, first.weight_bytes) == (
        "MatMul",
        12,
        6,
        24,
    )
    assert (second.operator, second.macs, second.output_bytes) == ("Relu", 0, 16)
    assert first.output_shape == "[2,2]"
