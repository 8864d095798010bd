"""Protobuf to graph and back: nothing is lost, and what cannot be a graph is refused."""

from __future__ import annotations

from pathlib import Path

import judge
import onnx
import onnx.helper
import pytest
from onnx import TensorProto

from onnxopt.convert import node_to_proto
from onnxopt.errors import BadModelError
from onnxopt.model import Model, load


def round_trip(proto: onnx.ModelProto) -> onnx.ModelProto:
    return Model.from_proto(proto).to_proto()


@pytest.mark.parametrize("file", judge.TINY_MODELS, ids=lambda f: f.stem)
def test_an_untouched_model_comes_back_byte_for_byte(file: Path) -> None:
    proto = load(file)
    assert round_trip(proto) == proto


@pytest.mark.parametrize(
    "name", ["real/silero_vad_v5.onnx", "real/scan_cntk.onnx", "real/lr_mnist_scikit.onnx"]
)
def test_a_real_model_with_bodies_and_other_domains_comes_back_whole(name: str) -> None:
    proto = load(judge.corpus_file(name))
    after = round_trip(proto)
    assert len(after.graph.node) == len(proto.graph.node)
    assert abs(after.ByteSize() - proto.ByteSize()) < 16  # an empty domain field may go


def decorated() -> onnx.ModelProto:
    proto = judge.model("""
        <ir_version: 10, opset_import: ["" : 18, "custom" : 3], producer_name: "p",
         doc_string: "the model", metadata_props: ["author": "me"]>
        g (float[2] x) => (float[2] z) <float[2] w = {1, 2}> {
            [first] y = Add(x, w)
            z = custom.Twist<angle = 0.5>(y)
        }""")
    graph = proto.graph
    graph.doc_string = "the graph"
    graph.metadata_props.add(key="k", value="v")
    graph.node[0].doc_string = "an addition"
    graph.node[0].metadata_props.add(key="scope", value="/a/b")
    graph.value_info.append(onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]))
    annotation = graph.quantization_annotation.add(tensor_name="y")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    raw = onnx.AttributeProto(name="blob", type=onnx.AttributeProto.STRING, s=b"\xff\xfe")
    graph.node[1].attribute.append(raw)
    kind = onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    graph.node[1].attribute.append(onnx.helper.make_attribute("kind", kind))
    sparse = onnx.helper.make_sparse_tensor(
        onnx.helper.make_tensor("s", TensorProto.FLOAT, [1], [2.0]),
        onnx.helper.make_tensor("", TensorProto.INT64, [1], [3]),
        [5],
    )
    graph.sparse_initializer.append(sparse)
    return proto


def test_docs_metadata_annotations_and_odd_attributes_survive() -> None:
    proto = decorated()
    assert round_trip(proto) == proto


def test_a_node_keeps_its_docs_and_odd_attributes_when_an_input_changes() -> None:
    model = Model.from_proto(decorated())
    node = model.graph.nodes[1]
    node.inputs[0] = model.graph.inputs[0]
    proto = node_to_proto(node)
    assert [a.name for a in proto.attribute] == ["angle", "blob", "kind"]
    assert proto.attribute[1].s == b"\xff\xfe"
    assert list(proto.input) == ["x"] and proto.domain == "custom"


def test_an_initializer_that_a_quantization_annotation_names_is_protected() -> None:
    assert "w" in Model.from_proto(decorated()).graph.protected


def test_nodes_out_of_order_are_put_in_order_and_others_keep_theirs() -> None:
    proto = judge.model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] z) { z = Neg(y)  a = Exp(x)  y = Abs(x) }""")
    assert judge.operators(round_trip(proto)) == ["Abs", "Neg", "Exp"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("{ y = Add(x, z)  z = Neg(y) }", "cycle"),
        ("{ y = Neg(missing) }", "'missing', which nothing makes"),
        ("{ y = Neg(x)  y = Exp(x) }", "defined twice"),
        ("{ a = Neg(x) }", "'y' is made by no node"),
    ],
)
def test_a_graph_that_does_not_hang_together_is_refused(body: str, complaint: str) -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) '
    with pytest.raises(BadModelError, match=complaint):
        Model.from_proto(judge.model(head + body))


def test_of_two_constants_with_one_name_the_last_counts_as_in_onnx_runtime() -> None:
    proto = judge.model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) {
            c = Constant<value_float = 12.0>()
            c = Constant<value_float = 2.0>()
            y = Mul(x, c)
        }""")
    after = round_trip(proto)
    assert judge.operators(after) == ["Constant", "Mul"]
    judge.assert_same(proto, after)


def test_overridable_initializers_are_not_constants_before_they_are_frozen() -> None:
    proto = judge.model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }""")
    free, frozen = Model.from_proto(proto), Model.from_proto(proto, freeze_inputs=True)
    assert free.graph.initializers[0].array is None
    assert frozen.graph.initializers[0].array is not None
    assert [i.name for i in frozen.to_proto().graph.input] == ["x"]
    assert [i.name for i in free.to_proto().graph.input] == ["x", "w"]


def test_before_ir_version_4_initializers_are_constants_and_new_ones_become_inputs() -> None:
    proto = judge.model("""<ir_version: 3, opset_import: ["" : 9]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }""")
    model = Model.from_proto(proto)
    old = model.graph.initializers[0]
    assert old.array is not None
    new = model.graph.add_initializer(old.array * 2, "w2")
    model.graph.nodes[0].inputs[1] = new
    after = model.to_proto()
    assert [i.name for i in after.graph.input] == ["x", "w", "w2"]
    onnx.checker.check_model(after)


def test_a_body_that_redefines_an_outer_name_is_not_rewritten() -> None:
    proto = judge.tiny("if")
    model = Model.from_proto(proto)
    everything = list(model.graphs())
    body = everything[1]
    body.nodes[0].outputs[0].name = model.graph.inputs[0].name
    assert body not in list(model.graphs())


def test_captured_values_are_linked_to_the_graph_that_makes_them() -> None:
    model = Model.from_proto(judge.tiny("if"))
    control = next(node for node in model.graph.nodes if node.op == "If")
    captured = {value.name for body in control.bodies for value in body.captured()}
    outside = {v.name for n in model.graph.nodes for v in n.outputs}
    outside |= {v.name for v in (*model.graph.inputs, *model.graph.initializers)}
    assert captured and captured <= outside
