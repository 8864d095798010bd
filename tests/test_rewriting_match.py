"""Where a pattern fits and where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import match, model

from onnxopt.errors import UsageError
from onnxopt.rewriting.match import Match, compile_pattern, expand_root, parameters
from onnxopt.rewriting.rule import Array, Graph, Node, Result, Rule, Skip, Value


def take_x(x: Value) -> Result:
    return x


def take_nothing() -> Result:
    return Skip("only looking")


def take_constant(x: Value, k: Array) -> Result:
    return x


def take_optional(x: Value, W: Value, b: Value | None) -> Result:
    return x


PLAIN = "g (float[N,2] x, float[N,2] z) => (float[N,2] y)"


def bound(found: Match | Skip | None) -> dict[str, str]:
    assert isinstance(found, Match), found
    return {name: value.name for name, value in found.values.items() if value is not None}


@pytest.mark.parametrize("text", ["{ a = Neg(x) y = Add(a, z) }", "{ a = Neg(x) y = Add(z, a) }"])
def test_operands_of_commutative_operators_match_in_either_order(text: str) -> None:
    graph = model(PLAIN + text).graph
    found = match("p (u, w) => (y) { a = Neg(u) y = Add(a, w) }", take_nothing, graph, "y")
    assert bound(found) == {"u": "x", "w": "z", "a": "a", "y": "y"}


def test_operands_of_sub_match_in_their_order_only() -> None:
    graph = model(PLAIN + "{ a = Neg(x) y = Sub(z, a) }").graph
    assert match("p (u, w) => (y) { a = Neg(u) y = Sub(a, w) }", take_nothing, graph, "y") is None


def test_a_wrong_first_choice_of_operands_is_taken_back() -> None:
    graph = model(PLAIN + "{ a = Neg(x) b = Neg(z) c = Exp(b) y = Add(b, a) }").graph
    found = match(
        "p (u, w) => (y) { a = Neg(u) b = Neg(w) y = Add(a, b) }", take_nothing, graph, "y"
    )
    assert isinstance(found, Skip)  # 'b' is also needed elsewhere, in whichever order
    found = match("p (v) => (y) { n = Neg(v) y = Add(n, v) }", take_nothing, graph, "y", sole=False)
    assert found is None
    graph = model(PLAIN + "{ a = Neg(x) b = Neg(a) y = Mul(b, a) }").graph
    found = match("p (v) => (y) { n = Neg(v) y = Mul(v, n) }", take_nothing, graph, "y")
    assert bound(found) == {"v": "a", "n": "b", "y": "y"}


def test_a_violated_constraint_tries_the_other_order() -> None:
    graph = model(PLAIN + "<float k = {2}> { y = Mul(k, x) }").graph
    found = match("p (x, k) => (y) { y = Mul(x, k) }", take_constant, graph, "y")
    assert bound(found)["k"] == "k"


def test_a_repeated_name_must_be_the_same_value() -> None:
    pattern = "p (v) => (y) { y = Add(v, v) }"
    assert isinstance(
        match(pattern, take_nothing, model(PLAIN + "{ y = Add(x, x) }").graph, "y"), Match
    )
    assert match(pattern, take_nothing, model(PLAIN + "{ y = Add(x, z) }").graph, "y") is None


def test_a_repeated_inner_name_must_be_made_by_the_same_node() -> None:
    pattern = "p (v) => (y) { a = Neg(v) y = Mul(a, a) }"
    same = model(PLAIN + "{ a = Neg(x) y = Mul(a, a) }").graph
    twins = model(PLAIN + "{ a = Neg(x) b = Neg(x) y = Mul(a, b) }").graph
    assert isinstance(match(pattern, take_nothing, same, "y"), Match)
    assert match(pattern, take_nothing, twins, "y") is None


CONV = "g (float[N,1,4] x, float[2,1,3] W, float[2] b) => (float[N,2,2] y)"


def test_an_optional_input_may_be_absent_or_present() -> None:
    pattern = "p (x, W, b) => (y) { y = Conv(x, W, b) }"
    with_bias = model(CONV + "{ y = Conv(x, W, b) }").graph
    without = model(CONV + "{ y = Conv(x, W) }").graph
    omitted = model(CONV + '{ y = Conv(x, W, "") }').graph
    assert bound(match(pattern, take_optional, with_bias, "y"))["b"] == "b"
    for graph in (without, omitted):
        found = match(pattern, take_optional, graph, "y")
        assert isinstance(found, Match)
        assert found.values["b"] is None


def test_without_an_input_that_the_rewrite_needs_nothing_matches() -> None:
    def take_bias(x: Value, b: Value) -> Result:
        return x

    graph = model(CONV + "{ y = Conv(x, W) }").graph
    found = match("p (x, W, b) => (y) { y = Conv(x, W, b) }", take_bias, graph, "y")
    assert found is None


def test_more_inputs_than_the_pattern_has_do_not_match() -> None:
    graph = model(CONV + "{ y = Conv(x, W, b) }").graph
    assert match("p (x, W) => (y) { y = Conv(x, W) }", take_x, graph, "y") is None


DROPOUT = "g (float[N,2] x) => (float[N,2] y)"


def test_outputs_that_the_pattern_does_not_name_may_not_be_used() -> None:
    pattern = "p (x) => (y) { y = Dropout(x) }"
    unused = model(DROPOUT + "{ y, m = Dropout(x) }").graph
    used = model(DROPOUT + "{ d, m = Dropout(x) f = Cast<to = 1>(m) y = Mul(d, f) }").graph
    assert isinstance(match(pattern, take_x, unused, "y"), Match)
    assert match(pattern, take_x, used, "d") is None


def test_an_output_of_the_graph_counts_as_used() -> None:
    text = "g (float[N,2] x) => (float[N,2] y, bool[N,2] m) { y, m = Dropout(x) }"
    assert match("p (x) => (y) { y = Dropout(x) }", take_x, model(text).graph, "y") is None


def test_an_inner_value_that_is_read_elsewhere_is_a_reason_to_skip_unless_it_may() -> None:
    graph = model(PLAIN + "{ a = Neg(x) y = Exp(a) b = Abs(a) }").graph
    pattern = "p (x) => (y) { a = Neg(x) y = Exp(a) }"
    assert match(pattern, take_x, graph, "y") == Skip("'a' is also needed elsewhere")
    assert isinstance(match(pattern, take_x, graph, "y", sole=False), Match)


def test_an_inner_value_that_is_an_output_of_the_graph_is_a_reason_to_skip() -> None:
    text = "g (float[N] x) => (float[N] y, float[N] a) { a = Neg(x) y = Exp(a) }"
    found = match("p (x) => (y) { a = Neg(x) y = Exp(a) }", take_x, model(text).graph, "y")
    assert found == Skip("'a' is also needed elsewhere")


def test_an_inner_value_that_a_body_captures_is_a_reason_to_skip() -> None:
    text = """g (float[N] x, bool c) => (float[N] y, float[N] w) {
        a = Neg(x)
        y = Exp(a)
        w = If (c) <
            then_branch = t () => (float[N] u) { u = Abs(a) },
            else_branch = e () => (float[N] v) { v = Abs(x) }>
    }"""
    found = match("p (x) => (y) { a = Neg(x) y = Exp(a) }", take_x, model(text).graph, "y")
    assert found == Skip("'a' is also needed elsewhere")


def test_a_pattern_does_not_reach_out_of_a_body() -> None:
    text = """g (float[N] x, bool c) => (float[N] w) {
        a = Neg(x)
        w = If (c) <
            then_branch = t () => (float[N] u) { u = Exp(a) },
            else_branch = e () => (float[N] v) { v = Abs(x) }>
    }"""
    pattern = "p (x) => (y) { a = Neg(x) y = Exp(a) }"
    assert match(pattern, take_x, model(text).graph, "u", sole=False) is None


def test_an_attribute_in_the_pattern_must_be_equal_with_its_default_filled_in() -> None:
    graph = model("g (float[N,2] x) => (float[N,2] y) { y = Softmax(x) }").graph
    assert isinstance(
        match("p (x) => (y) { y = Softmax<axis = -1>(x) }", take_x, graph, "y"), Match
    )
    assert match("p (x) => (y) { y = Softmax<axis = 1>(x) }", take_x, graph, "y") is None


def test_an_initializer_that_callers_may_override_is_not_a_constant() -> None:
    text = "g (float[N,2] x, float[2] k = {1, 2}) => (float[N,2] y) { y = Mul(x, k) }"
    found = match("p (x, k) => (y) { y = Mul(x, k) }", take_constant, model(text).graph, "y")
    assert isinstance(found, Skip)


def test_an_initializer_that_is_also_an_input_is_a_constant_before_ir_version_4() -> None:
    text = "g (float[N,2] x, float[2] k = {1, 2}) => (float[N,2] y) { y = Mul(x, k) }"
    old = model(text, '<ir_version: 3, opset_import: ["" : 8]> ').graph
    assert isinstance(match("p (x, k) => (y) { y = Mul(x, k) }", take_constant, old, "y"), Match)


def test_what_a_constant_node_makes_is_a_constant() -> None:
    graph = model(PLAIN + "{ k = Constant<value_floats = [1.0, 2.0]>() y = Mul(x, k) }").graph
    found = match("p (x, k) => (y) { y = Mul(x, k) }", take_constant, graph, "y")
    assert isinstance(found, Match)


def test_operators_of_other_domains_do_not_match() -> None:
    head = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> '
    graph = model("g (float[N] x) => (float[N] y) { y = com.microsoft.Gelu(x) }", head).graph
    assert match("p (x) => (y) { y = Gelu(x) }", take_x, graph, "y") is None


def test_versions_before_the_oldest_one_do_not_match() -> None:
    head = '<ir_version: 3, opset_import: ["" : 6]> '
    graph = model("g (float[N] x) => (float[N] y) { y = Neg(x) }", head).graph
    assert match("p (x) => (y) { y = Neg(x) }", take_x, graph, "y") is None


def test_the_name_of_a_family_matches_each_of_its_operators() -> None:
    graph = model(PLAIN + "{ a = Flatten(x) b = Exp(a) y = Neg(b) }").graph
    pattern = "p (x) => (y) { a = AnyReshape(x, s) y = AnyUnary(a) }"

    def take(x: Value, s: Value | None) -> Result:
        return x

    roots = expand_root(compile_pattern(pattern, "tested"))
    assert "Exp" in [root.root.op_type for root in roots]
    assert bound(match(pattern, take, graph, "b"))["a"] == "a"
    assert match(pattern, take, graph, "y") is None


def test_a_pattern_may_name_several_outputs_of_a_node() -> None:
    graph = model(DROPOUT + "{ d, m = Dropout(x) f = Cast<to = 1>(m) y = Mul(d, f) }").graph
    pattern = "p (x) => (y) { d, m = Dropout(x) f = Cast(m) y = Mul(d, f) }"
    assert bound(match(pattern, take_x, graph, "y"))["m"] == "m"


@pytest.mark.parametrize("text", ["p (x) => (y) { y = }", "p (x) => (y) { z = Neg(x) }"])
def test_a_pattern_that_makes_no_sense_is_the_users_mistake(text: str) -> None:
    with pytest.raises(UsageError, match="tested"):
        compile_pattern(text, "tested")


def test_parameters_say_what_they_ask_of_a_value() -> None:
    def rewrite(x: Value, W: Array | None, c: Node, graph: Graph) -> Result:
        return x

    found = parameters(Rule("", rewrite, "exact", ()), "tested")
    assert {name: (p.kind, p.optional) for name, p in found.items()} == {
        "x": (Value, False),
        "W": (np.ndarray, True),
        "c": (Node, False),
        "graph": (Graph, False),
    }


def test_a_parameter_of_another_kind_is_the_users_mistake() -> None:
    def rewrite(x: int) -> Result:
        return Skip("never")

    with pytest.raises(UsageError, match="parameter 'x'"):
        parameters(Rule("", rewrite, "exact", ()), "tested")
