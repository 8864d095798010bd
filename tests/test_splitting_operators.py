"""A model as cuts see it: what is an operator, what a tensor, what a constant, and its costs."""

from __future__ import annotations

from pathlib import Path

import judge
import onnx
import onnx.helper
import pytest
import split_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st
from split_machines import both_machines

from onnxopt.cost import cost_of
from onnxopt.runtime import Session
from onnxopt.splitting.candidates import candidates
from onnxopt.splitting.codings import codings_of
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.export import export
from onnxopt.splitting.listing import list_cuts
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.splitting.sides import side_of
from onnxopt.splitting.wishes import named


def subject(text: str) -> Subject:
    return read_subject(cases.model(text))


def reads(dag: Dag, operator: str) -> set[str]:
    (found,) = [o for o in dag.operators if o.name == operator]
    return {dag.tensors[tensor].name for tensor in found.reads}


def test_control_flow_is_one_operator_that_reads_what_its_bodies_capture() -> None:
    dag = subject(cases.CAPTURES).dag
    assert reads(dag, "out") == {"c", "early", "x"}
    (branch,) = [o for o in dag.operators if o.op == "If"]
    (add,) = [o for o in dag.operators if o.name == "h"]
    assert [dag.weight_bytes[w] for w in branch.weights] == [16]
    assert not set(add.weights) & set(branch.weights)


def test_a_name_that_a_body_defines_itself_is_no_capture() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, bool c) => (float[2] z) {
            y = If(c) <
                then_branch = t () => (y) { y = Neg(x) },
                else_branch = e () => (q) { q = Abs(x) }
            >
            z = Relu(y)
        }
    """
    assert reads(subject(text).dag, "y") == {"c", "x"}


def test_what_depends_on_constants_alone_is_neither_operator_nor_tensor() -> None:
    found = subject(cases.QUANTIZED)
    assert [o.op for o in found.dag.operators] == [
        *("QuantizeLinear", "DequantizeLinear", "MatMul", "QuantizeLinear", "DequantizeLinear")
    ]
    assert "w" in found.constants
    assert "w" not in {tensor.name for tensor in found.dag.tensors}


def test_weights_behind_constant_nodes_count_for_the_operator_that_reads_them() -> None:
    dag = subject(cases.QUANTIZED).dag
    (product,) = [o for o in dag.operators if o.op == "MatMul"]
    assert sorted(dag.weight_bytes[w] for w in product.weights) == [1, 4, 16]


def test_a_weight_that_two_operators_read_counts_once_on_one_side() -> None:
    dag = subject(cases.SHARED).dag
    assert side_of(dag, range(5)).weight_bytes == 64
    assert side_of(dag, [0]).weight_bytes == side_of(dag, [1, 2, 3, 4]).weight_bytes == 64


def test_what_follows_from_a_shape_stays_with_the_operator_that_made_the_tensor() -> None:
    dag = subject(cases.SHAPES).dag
    assert [o.op for o in dag.operators] == ["Relu", "Sin", "Tanh", "Reshape", "Neg"]
    (relu,) = [o for o in dag.operators if o.op == "Relu"]
    assert {dag.tensors[t].name for t in relu.makes} == {"a", "target"}


def test_shapes_of_two_tensors_stay_with_the_later_one_only_if_it_follows_from_the_other() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x, float[M,4] z) => (float[K,4] y) {
            a = Relu(x)
            b = FROM
            s = Shape(a)
            t = Shape(b)
            both = Max(s, t)
            c = Sin(a)
            y = Expand(c, both)
        }
    """
    chained = subject(text.replace("FROM", "Tanh(a)")).dag
    assert [o.op for o in chained.operators] == ["Relu", "Tanh", "Sin", "Expand"]
    apart = subject(text.replace("FROM", "Tanh(z)")).dag
    assert [o.op for o in apart.operators] == ["Relu", "Tanh", "Max", "Sin", "Expand"]


def test_shapes_of_an_input_stay_with_its_first_reader_even_if_that_reads_them_through_others() -> (
    None
):
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,4] y) {
            s = Shape(x)
            zeros = ConstantOfShape(s)
            a = Add(x, zeros)
            b = Tanh(a)
            y = Expand(b, s)
        }
    """
    dag = subject(text).dag
    assert [o.op for o in dag.operators] == ["ConstantOfShape", "Add", "Tanh", "Expand"]


def test_operators_that_no_output_needs_are_left_out() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { dead = Sin(x) dying = Neg(dead) y = Relu(x) }
    """
    dag = subject(text).dag
    assert [o.op for o in dag.operators] == ["Relu"]
    assert [t.name for t in dag.tensors] == ["x", "y"]


def test_nodes_out_of_order_are_put_into_one() -> None:
    proto = cases.model(cases.RESIDUAL)
    nodes = [*proto.graph.node][::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    dag = read_subject(proto).dag
    assert [o.op for o in dag.operators] == ["Relu", "MatMul", "Tanh", "MatMul", "Add", "Sigmoid"]
    assert dag.operators[0].nodes == (5,)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("sequence", "sequence"), ("optional", "optional")],
)
def test_what_is_no_tensor_cannot_cross_and_says_why(name: str, reason: str) -> None:
    dag = read_subject(judge.tiny(name)).dag
    assert any(reason in tensor.why_not for tensor in dag.tensors)


def test_texts_cannot_cross() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (string[2] x) => (string[2] z) { y = Identity(x) z = Identity(y) }
    """
    assert all("string" in tensor.why_not for tensor in subject(text).dag.tensors)


def test_random_operators_are_named_and_are_no_constants() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[2] x) => (float[2] y) {
            a = RandomNormal<shape = [2]>()
            b = own.noise(x)
            c = Add(a, b)
            y = Relu(c)
        }
        <domain: "own", opset_import: ["" : 17]>
        noise (x) => (y) { y = RandomNormalLike(x) }
    """
    found = subject(text)
    assert len(found.random) == 2
    assert [o.op for o in found.dag.operators] == ["RandomNormal", "own.noise", "Add", "Relu"]


def test_types_that_shape_inference_does_not_know_come_from_the_runtime() -> None:
    dag = subject(cases.CONTRIB).dag
    types = {t.name: (t.dtype, t.dims) for t in dag.tensors}
    assert types["a"] == ("float32", ("N", 3, 6))
    assert types["f"] == ("float32", ("N", 3, 5))
    assert types["g"][0] == "float32"


def test_shapes_that_a_file_declares_wrong_are_not_believed() -> None:
    proto = cases.model(cases.CONTRIB)
    wrong = onnx.helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, [7, 7, 7])
    proto.graph.value_info.append(wrong)
    dims = {t.name: t.dims for t in read_subject(proto).dag.tensors}
    assert dims["f"] == ("N", 3, 5)


@pytest.mark.parametrize("text", [cases.RESIDUAL, cases.SIDE_HEAD, cases.CAPTURES])
def test_memory_of_a_side_is_what_is_alive_at_once(text: str) -> None:
    dag = subject(text).dag
    for device in cases.down_sets(dag):
        edge = frozenset(range(len(dag.operators))) - device
        if device:
            assert side_of(dag, device).peak_bytes == alive_at_once(dag, device, frozenset())
            assert side_of(dag, edge, device).peak_bytes == alive_at_once(dag, edge, device)
        for middle in cases.down_sets(dag):
            if device < middle and device:
                own = middle - device
                found = side_of(dag, own, device).peak_bytes
                assert found == alive_at_once(dag, own, device)


def alive_at_once(dag: Dag, side: frozenset[int], before: frozenset[int]) -> int:
    """Asked of each tensor at each operator: it is there already, and is needed still."""
    most = 0
    for now in side:
        live = 0
        for tensor in dag.tensors:
            made = -1 if tensor.producer is None or tensor.producer in before else tensor.producer
            is_there = made <= now and (made < 0 or made in side)
            is_own = made in side or (tensor.producer is None and not before)
            later = [r for r in tensor.readers if r not in side and r not in before]
            used = [r for r in tensor.readers if r in side and r >= now]
            alive = is_there and bool(later or used or (is_own and tensor.is_output))
            live += tensor.size_bytes * alive
        most = max(most, live)
    return most


def test_symbols_stay_symbols_while_sizes_are_told_at_numbers() -> None:
    proto = cases.model(cases.RESIDUAL)
    one, many = read_subject(proto), read_subject(proto, {"x": (32, 4)})
    assert one.sizes == ("N = 1",)
    assert many.sizes == ()
    for found, size in ((one, 16), (many, 512)):
        assert {t.dims for t in found.dag.tensors} == {("N", 4)}
        assert {t.size_bytes for t in found.dag.tensors} == {size}


def test_what_only_a_run_tells_is_read_off_a_run() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x, bool c) => (float[M] y) <int64[1] flat = {-1}> {
            a = Relu(x)
            b = If(c) <
                then_branch = t () => (p) { p = Neg(a) },
                else_branch = e () => (q) { q = Reshape(a, flat) }
            >
            d = Abs(b)
            f = NonZero(d)
            y = Cast<to = 1>(f)
        }
    """
    found = subject(text).dag
    sizes = {t.name: t.size_bytes for t in found.tensors}
    dims = {t.name: t.dims for t in found.tensors}
    assert dims["b"] is None
    assert sizes["b"] == sizes["a"] == sizes["d"] == 16


def test_a_dimension_of_minus_one_is_open() -> None:
    proto = cases.model(cases.RESIDUAL)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    found = read_subject(proto)
    assert found.sizes == ("x[0] = 1",)
    assert {t.size_bytes for t in found.dag.tensors} == {16}


def test_a_computed_reshape_does_not_hide_how_large_its_result_is() -> None:
    found = {t.name: t.size_bytes for t in subject(cases.SHAPES).dag.tensors}
    assert found["r"] == found["a"] == 48


@pytest.mark.parametrize("name", ["residual", "if", "lstm", "qdq", "unet", "shared_conv"])
def test_operators_add_up_to_what_inspect_tells(name: str) -> None:
    proto = judge.tiny(name)
    dag, whole = read_subject(proto).dag, cost_of(proto)
    assert sum(o.macs for o in dag.operators) >= whole.macs
    assert sum(dag.weight_bytes) <= whole.weight_bytes


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(judge.TINY_MODELS), st.integers(0, 10**6))
def test_listed_costs_are_those_of_either_side(file: object, pick: int) -> None:
    found = read_subject(judge.tiny(file.stem))  # type: ignore[attr-defined]
    dag, cuts = found.dag, enumerate_cuts(found.dag)
    listing = list_cuts(found)
    if not listing.cuts:
        return
    cut = listing.cuts[pick % len(listing.cuts)]
    names = {tensor.name for tensor in cut.tensors}
    devices = [
        frozenset(cuts.operators(c))
        for c in cuts.distinct()
        if {dag.tensors[t].name for t in cuts.crossing[c]} == names
    ]
    device = min(devices, key=len)
    edge = frozenset(range(len(dag.operators))) - device
    assert cut.edge == side_of(dag, edge, device)
    assert cut.device == side_of(dag, device)
    assert cut.size_bytes == sum(dag.tensors[t].size_bytes for t in dag.crossing(device))


def test_listed_cuts_are_all_there_are() -> None:
    found = subject(cases.CAPTURES)
    expected = {frozenset(found.dag.crossing(device)) for device in cases.down_sets(found.dag)}
    number = {tensor.name: n for n, tensor in enumerate(found.dag.tensors)}
    listed = [frozenset(number[t.name] for t in cut.tensors) for cut in list_cuts(found).cuts]
    assert set(listed) == expected - {frozenset[int]()}
    assert len(set(listed)) == len(listed)


def test_an_initializer_that_may_be_overridden_is_copied_and_stays_an_input() -> None:
    proto = cases.model(cases.OVERRIDABLE)
    parts = cases.halves_at(proto, "a")
    for piece in parts.pieces:
        assert "gain" in {info.name for info in piece.proto.graph.input}
        assert "gain" not in piece.reads
    feed = {**cases.feeds(proto, 0), "gain": cases.feeds(proto, 1, 4)["x"][0]}
    expected = Session(proto).run(feed)
    found = cases.run_row([piece.proto for piece in parts.pieces], feed)
    judge.assert_close(expected["y"], found["y"], 0, 0, "y")


def test_an_empty_model_has_no_cuts() -> None:
    proto = judge.model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] x) { }
    """)
    assert list_cuts(read_subject(proto)).cuts == ()
    assert isinstance(proto, onnx.ModelProto)


def test_cuts_plan_and_manifest_tell_the_same_memory_of_the_device(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    found = subject(cases.RESIDUAL)
    machines = both_machines(found, slower=1.0)
    listing = list_cuts(found)
    cuts = enumerate_cuts(found.dag)
    device, edge = machines.device.before(cuts)[0], machines.edge.behind(cuts)[0]
    planned = candidates(cuts, codings_of(found.dag, ("none",), {}, machines), device, edge)
    for cut in listing.cuts:
        names = tuple(tensor.name for tensor in cut.tensors)
        (number,) = (
            n
            for n in range(len(planned))
            if tuple(found.dag.tensors[t].name for t in cuts.crossing[planned.cut[n]]) == names
        )
        file, folder = tmp_path / "m.onnx", tmp_path / str(cut.id)
        file.write_bytes(proto.SerializeToString())
        wish, source = named(found, names, "none"), read_source(file, proto)
        done = export(found, wish, source, folder, verify=False)
        first, second = done.manifest.segments
        assert first.peak_bytes == cut.device.peak_bytes == planned.peak_bytes[number]
        assert first.weight_bytes == cut.device.weight_bytes == planned.weight_bytes[number]
        assert (second.peak_bytes, second.weight_bytes) == (
            cut.edge.peak_bytes,
            cut.edge.weight_bytes,
        )
