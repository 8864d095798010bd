"""Residual blocks: which sums end one, what belongs to its branch, and why others end none."""

from __future__ import annotations

from collections.abc import Iterable

import judge
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from block_cases import CASES, Case
from cuts import weighted

from onnxopt.model import Model, load
from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.blocks import Blocks, blocks_of, find_blocks
from onnxopt.runtime import Session
from onnxopt.shapes import infer
from onnxopt.verification.feeds import draws


def case(name: str) -> Case:
    return next(each for each in CASES if each.name == name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_blocks_are_found_and_every_other_sum_has_its_reason(case: Case) -> None:
    blocks = case.found()
    found = tuple((b.entry, b.exit, b.kind, " ".join(b.nodes)) for b in blocks.found)
    reasons = [item.reason for item in blocks.declined]
    assert found == case.blocks, reasons
    assert len(reasons) == len(case.reasons), reasons
    for part, reason in zip(case.reasons, reasons, strict=True):
        assert part in reason


def test_blocks_know_which_others_lie_directly_in_them() -> None:
    blocks = case("blocks in a block").found()
    inner = {block.exit: [b.exit for b in block.inner] for block in blocks.found}
    assert inner == {"s1": [], "t": [], "s2": ["t"], "s3": ["s1", "s2"]}
    assert [block.exit for block in blocks.outermost] == ["s3"]


def test_what_attention_reads_besides_its_entry_is_told() -> None:
    first, second = case("pre-norm transformer").found().found
    assert (first.sides, second.sides) == (("mask",), ())


def test_shapes_and_constants_and_copies_of_the_entry_are_no_sides() -> None:
    for name in ("targets of shapes are shared", "quantized", "recurrent"):
        assert all(block.sides == () for block in case(name).found().found)


AXES = {
    "basic": [1],
    "squeeze and excitation": [1],
    "gate last": [1],
    "pre-norm transformer": [-1, -1],
    "Gemm": [-1],
    "recurrent": [None],
    "quantized": [1],
    "targets of shapes are shared": [-1, -1],
    "hourglass": [1, 1],
    "channels are cut in two": [None],
}


@pytest.mark.parametrize("name", AXES)
def test_the_channels_lie_along_the_axis_that_the_last_layer_makes(name: str) -> None:
    assert [block.axis for block in case(name).found().found] == AXES[name]


def test_transposed_channels_lie_along_the_axis_where_they_came_to() -> None:
    body = """t = Transpose<perm = [0, 2, 3, 1]>(x) m = MatMul(t, w1)
    b = Transpose<perm = [0, 3, 1, 2]>(m) y = Add(x, b)"""
    proto = weighted("float[N,4,5,6] x, float[4,4] w1", body)
    (block,) = blocks_of(proto, judge.drawn(proto)).found
    assert (block.axis, block.shape) == (1, (3, 4, 5, 6))


def test_a_sum_that_only_relus_read_is_known_as_such() -> None:
    assert [b.rectified for b in case("basic").found().found] == [True]
    assert [b.rectified for b in case("preactivation chain").found().found] == [False, False]
    assert [b.rectified for b in case("input to output").found().found] == [False]


def test_an_operator_of_an_unknown_domain_may_keep_a_state() -> None:
    proto = judge.model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[2,4] x, float[4,4] w) => (float[2,4] y)
        { m = MatMul(x, w) c = own.Count(m) y = Add(x, c) }"""
    )
    graph = Model.from_proto(proto).graph
    blocks = find_blocks(graph, lambda value: (2, 4))
    assert blocks.found == ()
    assert "is of a kind that is not known" in blocks.declined[0].reason


def test_equal_shapes_in_one_run_are_not_enough_where_one_may_be_broadcast() -> None:
    body = "m = MatMul(x, w1) b = Mul(m, z) y = Add(x, b)"
    proto = weighted("float[1,4] x, float[N,4] z, float[4,4] w1", body)
    blocks = blocks_of(proto, judge.drawn(proto, 0, 1))
    assert "the shapes may differ in other runs" in blocks.declined[0].reason
    assert blocks.found == ()


def test_weights_that_a_caller_may_override_are_weights() -> None:
    """Else an excitation with two of them would pass for attention, and each bias for a sum."""
    body = "m = MatMul(x, w) b = Add(m, c) n = MatMul(b, w) y = Add(x, n)"
    proto = judge.model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x, float[2,2] w, float[2] c)
        => (float[2,2] y) <float[2,2] w = {{1, 2, 3, 4}}, float[2] c = {{1, 2}}> {{ {body} }}"""
    )
    assert {info.name for info in proto.graph.input} == {"x", "w", "c"}
    blocks = blocks_of(proto, {"x": np.ones((2, 2), np.float32)})
    assert [(b.exit, b.kind, b.sides) for b in blocks.found] == [("y", "mlp", ())]
    assert blocks.declined == ()


def test_without_shapes_nothing_is_a_block() -> None:
    proto = case("basic").model()
    model = Model.from_proto(proto)
    infer(model)
    blocks = find_blocks(model.graph, lambda value: None)
    assert [item.reason for item in blocks.declined] == ["its shapes are not known"]


REAL = {
    "cifar10/resnet20": {"convolution": 7},
    "cifar10/resnet56": {"convolution": 25},
    "real/light_resnet50": {"convolution": 12},
    "real/mobilenetv2_int8_qdq_op18": {"convolution": 10},
    "real/openseeface_mnv3_detection": {"convolution": 10},
    "real/bert_tiny_fp16_op11": {"attention": 12, "mlp": 12},
    "real/gpt2_past_tiny": {"mlp": 12},
    "real/yolox_nano": {"convolution": 7},
    "real/yolov8n_int8_qdq": {"convolution": 6},
    "real/tbefn_180x320": {"convolution": 4},
    "real/silero_langid_micro_8k": {"attention": 4, "mlp": 4, "convolution": 1},
}


def blocks_in(name: str) -> tuple[onnx.ModelProto, Blocks]:
    path = judge.corpus_file(f"{name}.onnx")
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    proto = optimize(load(path), Options(verify=False)).model
    feeds = draws(proto, Session(proto)).feeds[0].arrays
    return proto, blocks_of(proto, feeds)


@pytest.mark.parametrize("name", REAL)
def test_real_models_have_the_blocks_that_were_counted_by_hand(name: str) -> None:
    _, blocks = blocks_in(name)
    kinds: dict[str, int] = {}
    for block in blocks.found:
        kinds[block.kind] = kinds.get(block.kind, 0) + 1
    assert kinds == REAL[name]


def random_graph(seed: int) -> onnx.ModelProto:
    """Sums, products and functions of square matrices, each value read or an output."""
    rng = np.random.default_rng(seed)
    nodes, values, read = list[onnx.NodeProto](), ["x"], set[str]()
    for _ in range(int(rng.integers(4, 20))):
        late = [values[-1], values[-1 - int(rng.integers(min(len(values), 4)))]]
        if rng.random() < 0.2:
            late[0] = values[int(rng.integers(len(values)))]
        op = str(rng.choice(["Add", "Add", "Mul", "MatMul", "MatMul", "Relu", "Neg"]))
        inputs = {"Relu": late[:1], "Neg": late[:1], "MatMul": [late[0], "w"]}.get(op, late)
        if not any((node.op_type, node.input) == (op, inputs) for node in nodes):
            values.append(f"v{len(nodes)}")
            nodes.append(onnx.helper.make_node(op, inputs, values[-1:]))
            read.update(inputs)
    outputs = [name for name in values[1:] if name not in read or rng.random() < 0.03]
    make = onnx.helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(rng.normal(size=(4, 4)).astype(np.float32), "w")
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [make("x", onnx.TensorProto.FLOAT, (4, 4))],
        [make(name, onnx.TensorProto.FLOAT, (4, 4)) for name in outputs],
        [weight],
    )
    return onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.OperatorSetIdProto(version=17)]
    )


def needed(
    proto: onnx.ModelProto, wanted: Iterable[str], cut: tuple[str, str] = ("", "")
) -> set[str]:
    """What some values need, by name, if the node that makes cut[0] did not read cut[1]."""
    makers = {node.output[0]: node for node in proto.graph.node}
    found: set[str] = set()
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if name in makers and name not in found:
            found.add(name)
            pending += [i for i in makers[name].input if (name, i) != cut]
    return found


def expected_blocks(proto: onnx.ModelProto) -> list[tuple[str, str, list[str]]]:
    """By the definition: all between entry and branch is dead without the sum's reading it."""
    outputs = [info.name for info in proto.graph.output]
    order = [node.output[0] for node in proto.graph.node]
    products = {node.output[0] for node in proto.graph.node if node.op_type == "MatMul"}
    found = []
    for node in proto.graph.node:
        if node.op_type != "Add" or node.input[0] == node.input[1]:
            continue
        for entry, branch in (node.input, node.input[::-1]):
            dead = needed(proto, outputs) - needed(proto, outputs, (node.output[0], branch))
            before = needed(proto, [branch])
            between = {name for name in before if entry in needed_with_inputs(proto, name)}
            if between and between <= dead and dead & products:
                found.append((entry, node.output[0], [name for name in order if name in dead]))
    return found


def needed_with_inputs(proto: onnx.ModelProto, name: str) -> set[str]:
    """What a value is computed from, inputs of the model among it, without itself."""
    makers = {node.output[0]: node for node in proto.graph.node}
    inner = needed(proto, [name])
    return {i for each in inner for i in makers[each].input}


@pytest.mark.parametrize("start", range(0, 500, 50))
def test_in_random_graphs_blocks_are_what_the_definition_says(start: int) -> None:
    for seed in range(start, start + 50):
        proto = random_graph(seed)
        model = Model.from_proto(proto)
        infer(model)
        blocks = find_blocks(model.graph, lambda value: (4, 4))
        found = [(b.entry, b.exit, list(b.nodes)) for b in blocks.found]
        assert found == expected_blocks(proto), seed


def test_random_graphs_have_blocks_and_sums_that_are_none() -> None:
    found = [len(expected_blocks(random_graph(seed))) for seed in range(500)]
    assert min(found) == 0
    assert sum(count > 0 for count in found) > 100
    assert max(found) > 1
