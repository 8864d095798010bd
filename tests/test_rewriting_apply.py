"""What becomes of a graph when a rule's description takes the place of a match."""

from __future__ import annotations

import numpy as np
import onnx.numpy_helper
import onnx.parser
from rewriting import HEAD, apply, made_by, model, names, operators, rule

from onnxopt.changes import Ledger
from onnxopt.model import Model
from onnxopt.passes.apply_rules import ApplyRules
from onnxopt.rewriting.rule import Array, Graph, Node, Result, Skip, Value, op
from onnxopt.shapes import infer


def use_x(x: Value) -> Result:
    return x


REMOVE_NEG = rule("p (x) => (y) { y = Neg(x) }", use_x, reuse="any")


def test_readers_read_the_value_instead() -> None:
    made = model("g (float[N] x) => (float[N] y) { a = Neg(x) b = Exp(a) y = Add(a, b) }")
    apply(REMOVE_NEG, made)
    assert operators(made.graph) == ["Exp", "Add"]
    assert names(made.graph.nodes[1].inputs) == ["x", "b"]


def test_the_node_that_makes_the_value_makes_the_graph_output_under_its_name() -> None:
    made = model("g (float[N] x) => (float[N] y) { a = Exp(x) b = Abs(a) y = Neg(a) }")
    apply(REMOVE_NEG, made)
    assert operators(made.graph) == ["Exp", "Abs"]
    assert names(made.graph.nodes[0].outputs) == ["y"]
    assert names(made.graph.nodes[1].inputs) == ["y"]


def test_an_identity_makes_a_graph_output_of_a_graph_input() -> None:
    made = model("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    apply(REMOVE_NEG, made)
    assert operators(made.graph) == ["Identity"]
    assert names(made.graph.outputs) == ["y"]


def test_an_identity_makes_a_graph_output_of_another_graph_output() -> None:
    made = model("g (float[N] x) => (float[N] a, float[N] y) { a = Exp(x) y = Neg(a) }")
    apply(REMOVE_NEG, made)
    assert operators(made.graph) == ["Exp", "Identity"]
    assert names(made.graph.outputs) == ["a", "y"]


def test_an_identity_that_would_only_be_made_again_is_left_alone() -> None:
    made = model("g (float[N] x) => (float[N] y) { y = Identity(x) }")
    changes, declined = apply(rule("p (x) => (y) { y = Identity(x) }", use_x), made)
    assert not changes
    assert [d.what for d in declined] == ["a graph output needs a node that makes it"]


IF = """g (float[N] x, bool c) => (float[N] w) {
    a = Exp(x)
    w = If (c) <
        then_branch = t () => (float[N] u) { u = Neg(a) },
        else_branch = e () => (float[N] v) { b = Neg(a) v = Abs(b) }>
}"""


def test_bodies_are_rewritten_and_keep_the_values_that_they_capture() -> None:
    made = model(IF)
    changes, _ = apply(REMOVE_NEG, made)
    then_branch, else_branch = made_by(made.graph, "w").bodies
    assert len(changes) == 2
    assert operators(then_branch) == ["Identity"]  # a body cannot rename what it captures
    assert names(then_branch.outputs) == ["u"]
    assert operators(else_branch) == ["Abs"]
    assert names(else_branch.nodes[0].inputs) == ["a"]


def test_a_value_that_a_body_captures_is_replaced_in_the_body_too() -> None:
    made = model(IF.replace("a = Exp(x)", "e = Exp(x) a = Not(e)").replace("Neg", "Sqrt"))
    apply(rule("p (x) => (y) { y = Not(x) }", use_x), made)
    then_branch = made_by(made.graph, "w").bodies[0]
    assert names(then_branch.nodes[0].inputs) == ["e"]


def scale_weights(x: Value, W: Array, k: Array, c: Node) -> Result:
    return op("Conv", x, W * k, **c.attrs)


SCALE = rule("p (x, W, k) => (y) { c = Conv(x, W) y = Mul(c, k) }", scale_weights)
CONV = "g (float[N,1,4] x) => (float[N,2,K] y) <float[2,1,2] W = {1, 2, 3, 4}, float k = {2}>"


def test_new_weights_take_over_name_and_place_of_those_before() -> None:
    made = model(CONV + "{ c = Conv<pads = [1, 1]>(x, W) y = Mul(c, k) }")
    apply(SCALE, made)
    assert [c.name for c in made.graph.initializers] == ["W", "k"]
    array = made.graph.initializers[0].array
    assert array is not None
    assert array.ravel().tolist() == [2, 4, 6, 8]
    assert made.graph.nodes[0].attrs == {"pads": [1, 1]}


def test_weights_that_others_read_are_kept_beside_the_new_ones() -> None:
    made = model(
        CONV + "{ c = Conv(x, W) d = Conv<pads = [0, 0]>(x, W) m = Mul(c, k) y = Add(m, d) }"
    )
    apply(SCALE, made)
    arrays = {c.name: c.array for c in made.graph.initializers}
    assert sorted(arrays) == ["W", "W_1", "k"]
    assert names(made_by(made.graph, "d").inputs) == ["x", "W"]
    assert names(made_by(made.graph, "m").inputs) == ["x", "W_1"]
    old = arrays["W"]
    assert old is not None
    assert old.ravel().tolist() == [1, 2, 3, 4]


def test_weights_are_never_written_into() -> None:
    made = model(CONV + "{ c = Conv(x, W) y = Mul(c, k) }")
    before = made.graph.initializers[0].array
    assert before is not None
    apply(SCALE, made)
    assert before.ravel().tolist() == [1, 2, 3, 4]


def test_a_constant_that_the_description_goes_on_reading_is_not_replaced() -> None:
    def keep_both(x: Value, k: Value, n: Array) -> Result:
        return op("Add", op("Mul", x, k), n + 1)

    text = "g (float[N] x) => (float[N] y) <float k = {2}> { a = Add(x, k) y = Mul(a, k) }"
    made = model(text)
    pattern = "p (x, k, n) => (y) { a = Add(x, n) y = Mul(a, k) }"
    # One sweep: the result fits a rule like this one forever.
    ApplyRules((rule(pattern, keep_both),), infer)._sweep(made.graph, Ledger(fuel=1))
    proto = made.to_proto()
    arrays = {t.name: onnx.numpy_helper.to_array(t).item() for t in proto.graph.initializer}
    assert sorted(arrays.values()) == [2, 3]
    mul, add = proto.graph.node
    assert arrays[mul.input[1]] == 2
    assert arrays[add.input[1]] == 3


def test_new_nodes_take_over_name_doc_string_and_metadata_of_their_like() -> None:
    proto = onnx.parser.parse_model(HEAD + CONV + "{ c = Conv(x, W) y = Mul(c, k) }")
    proto.graph.node[0].name = "first"
    proto.graph.node[0].doc_string = "from layer 1"
    proto.graph.node[1].name = "second"
    made = Model.from_proto(proto)
    apply(SCALE, made)
    (node,) = made.to_proto().graph.node
    assert (node.op_type, node.name, node.doc_string) == ("Conv", "first", "from layer 1")


def test_a_new_node_of_another_kind_takes_a_name_but_no_doc_string() -> None:
    proto = onnx.parser.parse_model(HEAD + "g (float[N] x) => (float[N] y) { y = Neg(x) }")
    proto.graph.node[0].name = "first"
    proto.graph.node[0].doc_string = "negates"
    made = Model.from_proto(proto)
    apply(rule("p (x) => (y) { y = Neg(x) }", lambda_exp), made)
    (node,) = made.to_proto().graph.node
    assert (node.op_type, node.name, node.doc_string) == ("Exp", "first", "")


def lambda_exp(x: Value) -> Result:
    return op("Exp", x)


def test_names_of_new_values_and_nodes_are_new() -> None:
    def two(x: Value) -> Result:
        return op("Exp", op("Exp", op("Abs", x)))

    text = "g (float[N] x) => (float[N] y, float[N] y_Exp) { y = Neg(x) y_Exp = Sqrt(x) }"
    made = model(text)
    apply(rule("p (x) => (y) { y = Neg(x) }", two), made)
    outputs = [name for node in made.graph.nodes for name in names(node.outputs)]
    assert len(set(outputs)) == len(outputs) == 4


def test_nodes_that_others_still_need_stay() -> None:
    def skip_neg(x: Value) -> Result:
        return op("Abs", x)

    text = "g (float[N] x) => (float[N] y, float[N] z) { a = Neg(x) y = Abs(a) z = Exp(a) }"
    made = model(text)
    apply(rule("p (x) => (y) { a = Neg(x) y = Abs(a) }", skip_neg, reuse="any"), made)
    assert sorted(operators(made.graph)) == ["Abs", "Exp", "Neg"]


def test_a_constant_takes_the_place_and_the_name_of_what_is_computed() -> None:
    def constant() -> Result:
        return np.array([5], np.float32)

    made = model("g (float[1] x) => (float[1] y) { a = Neg(x) y = Exp(a) }")
    apply(rule("p (x) => (y) { y = Neg(x) }", constant), made)
    assert [(c.name, c.array.tolist()) for c in made.graph.initializers if c.array is not None] == [
        ("a", [5])
    ]


def test_a_constant_graph_output_is_made_by_an_identity() -> None:
    def constant() -> Result:
        return np.array([5], np.float32)

    made = model("g (float[1] x) => (float[1] y) { y = Neg(x) }")
    apply(rule("p (x) => (y) { y = Neg(x) }", constant), made)
    assert operators(made.graph) == ["Identity"]
    assert names(made.graph.outputs) == ["y"]


def test_new_initializers_become_inputs_where_the_ir_version_asks_for_it() -> None:
    def add_constant(x: Value) -> Result:
        return op("Add", x, np.array([5], np.float32))

    head = '<ir_version: 3, opset_import: ["" : 8]> '
    made = model("g (float[N] x) => (float[N] y) { y = Neg(x) }", head)
    apply(rule("p (x) => (y) { y = Neg(x) }", add_constant), made)
    proto = made.to_proto()
    (tensor,) = proto.graph.initializer
    assert [info.name for info in proto.graph.input] == ["x", tensor.name]


def test_new_constants_in_a_body_become_nodes_where_the_ir_version_asks_for_it() -> None:
    def add_constant(x: Value) -> Result:
        return op("Add", x, np.array([5], np.float32))

    made = model(IF, '<ir_version: 3, opset_import: ["" : 8]> ')
    apply(rule("p (x) => (y) { y = Neg(x) }", add_constant), made)
    body = made.to_proto().graph.node[1].attribute[0].g
    assert [node.op_type for node in body.node] == ["Constant", "Add"]
    assert not body.initializer


def test_the_graph_of_the_match_is_at_hand() -> None:
    seen: list[str] = []

    def look(x: Value, graph: Graph) -> Result:
        seen.append(graph.name)
        return Skip("only looking")

    apply(rule("p (x) => (y) { y = Neg(x) }", look), model(IF))
    assert seen == ["t", "e"]


def test_omitted_inputs_stay_omitted() -> None:
    def resize(x: Value, sizes: Value) -> Result:
        return op("Resize", x, None, None, sizes)

    text = "g (float[1,2] x) => (float[2,2] y) <int64[2] s = {2, 2}> { y = Expand(x, s) }"
    made = model(text)
    apply(rule("p (x, sizes) => (y) { y = Expand(x, sizes) }", resize), made)
    assert list(made.to_proto().graph.node[0].input) == ["x", "", "", "s"]


def test_a_rule_that_raises_leaves_the_match_alone_and_says_so() -> None:
    def broken(x: Value) -> Result:
        raise ValueError("oh no")

    made = model("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    changes, declined = apply(rule("p (x) => (y) { y = Neg(x) }", broken), made)
    assert not changes
    assert "oh no" in declined[0].what
