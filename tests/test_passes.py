"""Each pass does what it says, no more, and the outputs stay the same."""

from __future__ import annotations

import judge
import numpy as np
import onnx
import pytest

from onnxopt.passes.deduplicate import Deduplicate
from onnxopt.passes.evaluate import LARGEST_RESULT_BYTES
from onnxopt.passes.fold_constants import FoldConstants
from onnxopt.passes.fold_shapes import FoldShapes
from onnxopt.passes.inline_if import InlineIf
from onnxopt.passes.protocol import Pass
from onnxopt.passes.remove_dead import RemoveDead
from onnxopt.passes.scalar_range import ScalarRange
from onnxopt.shapes import infer

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def after(text: str, *passes: Pass, opset: int = 17) -> onnx.ModelProto:
    """The result of the passes, checked against the model for equal outputs."""
    before = judge.model(HEAD.replace("17", str(opset)) + text)
    made, _ = judge.apply(before, *passes)
    judge.assert_same(before, made)
    return made


# --- dead code ---------------------------------------------------------------------------------


def test_what_nobody_reads_is_removed_with_all_that_only_it_needed() -> None:
    made = after(
        """g (float[2] x) => (float[2] y) <float[2] unused = {1, 2}, float[2] w = {3, 4}> {
            a = Exp(x)  b = Add(a, w)  y = Neg(x) }""",
        RemoveDead(),
    )
    assert judge.operators(made) == ["Neg"] and not made.graph.initializer


def test_unused_inputs_and_their_defaults_stay() -> None:
    made = after(
        "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Neg(x) }",
        RemoveDead(),
    )
    assert [i.name for i in made.graph.input] == ["x", "w"]
    assert [t.name for t in made.graph.initializer] == ["w"]


def test_a_custom_operator_is_not_dead_even_if_nobody_reads_it() -> None:
    proto = judge.model(
        '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]> '
        "g (float[2] x) => (float[2] y) { a = custom.Print(x)  y = Neg(x) }"
    )
    made, _ = judge.apply(proto, RemoveDead())
    assert judge.operators(made) == ["Print", "Neg"]


def test_a_value_that_only_a_body_reads_is_alive() -> None:
    made = after(
        """g (bool c, float[2] x) => (float[2] y) { a = Exp(x)  dead = Exp(a)
            y = If(c) <then_branch = t () => (float[2] p) { p = Neg(a)  q = Abs(a) },
                       else_branch = e () => (float[2] r) { r = Identity(x) }> }""",
        RemoveDead(),
    )
    assert judge.operators(made) == ["Exp", "If", "Neg", "Identity"]


# --- duplicates --------------------------------------------------------------------------------


def test_the_same_computation_is_done_once() -> None:
    made = after(
        """g (float[2] x) => (float[2] y) <float one = {1}, float uno = {1}> {
            a = Add(x, one)  b = Add(x, uno)  c = Exp(a)  d = Exp(b)  y = Mul(c, d) }""",
        Deduplicate(),
    )
    assert judge.operators(made) == ["Add", "Exp", "Mul"] and len(made.graph.initializer) == 1


@pytest.mark.parametrize(
    "pair",
    [
        "a = Add(x, w)  b = Add(w, x)",
        "a = Concat<axis = 0>(x, x)  b = Concat<axis = 1>(x, x)",
        "a = Clip(x, , lo)  b = Clip(x, lo)",
        "a = LeakyRelu<alpha = 0.1>(x)  b = LeakyRelu<alpha = 0.2>(x)",
    ],
)
def test_what_differs_in_inputs_or_attributes_is_kept_apart(pair: str) -> None:
    text = f"""g (float[2,2] x, float[2,2] w) => (float[M,N] a, float[P,Q] b)
        <float lo = {{0.5}}> {{ {pair} }}"""
    made = after(text, Deduplicate())
    assert len(made.graph.node) == 2


def test_random_operators_are_not_merged() -> None:
    proto = judge.model(
        HEAD
        + """g (float[9] x) => (float[9] y) {
        a = RandomNormalLike(x)  b = RandomNormalLike(x)  y = Sub(a, b) }"""
    )
    made, _ = judge.apply(proto, Deduplicate())
    assert judge.operators(made).count("RandomNormalLike") == 2


def test_two_graph_outputs_of_one_computation_keep_their_names() -> None:
    made = after(
        "g (float[2] x) => (float[2] y, float[2] z) { y = Exp(x)  z = Exp(x) }", Deduplicate()
    )
    assert judge.operators(made) == ["Exp", "Identity"]
    again, ledger = judge.apply(made, Deduplicate())
    assert again == made and not ledger.changes


def test_equal_bytes_of_other_type_or_shape_are_not_equal_initializers() -> None:
    made = after(
        """g (float[2] x, int32[1] n) => (float[2] y, int32[1] m, float[1,2] z)
        <float[1] a = {1.0}, int32[1] b = {1065353216}, float[2] c = {1, 2}, float[1,2] d = {1, 2}>
        { e = Add(x, a)  y = Mul(e, c)  m = Add(n, b)  z = Mul(x, d) }""",
        Deduplicate(),
    )
    assert len(made.graph.initializer) == 4


def test_minus_zero_and_zero_are_different_initializers() -> None:
    proto = judge.model(
        HEAD
        + """g (float[1] x) => (float[1] y, float[1] z)
        <float[1] p = {0.0}, float[1] n = {-0.0}> { y = Div(x, p)  z = Div(x, n) }"""
    )
    made, _ = judge.apply(proto, Deduplicate())
    judge.assert_same(proto, made, feeds={"x": np.ones(1, np.float32)})


def test_a_body_uses_what_was_computed_before_it_but_not_after() -> None:
    made = after(
        """g (bool c, float[2] x) => (float[2] y, float[2] z) { a = Exp(x)
            y = If(c) <then_branch = t () => (float[2] p) { q = Exp(x)  p = Neg(q) },
                       else_branch = e () => (float[2] r) { s = Abs(x)  r = Neg(s) }>
            b = Abs(x)  z = Add(a, b) }""",
        Deduplicate(),
    )
    assert judge.operators(made) == ["Exp", "If", "Neg", "Abs", "Neg", "Abs", "Add"]


# --- constants ---------------------------------------------------------------------------------


def test_what_depends_on_constants_only_becomes_an_initializer() -> None:
    made = after(
        """g (float[2] x) => (float[2] y) <float[2] w = {1, 4}> {
            two = Constant<value_float = 2.0>()
            r = Sqrt(w)  s = Mul(r, two)  y = Add(x, s) }""",
        FoldConstants(),
        RemoveDead(),
    )
    assert judge.operators(made) == ["Add"]
    assert [t.name for t in made.graph.initializer] == ["s"]


def test_random_results_are_never_constants() -> None:
    proto = judge.model(
        HEAD
        + """g (float[2] x) => (float[2] y) {
        r = RandomNormal<shape = [2], seed = 1.0>()  y = Add(x, r) }"""
    )
    made, ledger = judge.apply(proto, FoldConstants())
    assert made == proto and not ledger.changes


def test_a_large_result_of_small_inputs_stays_computed() -> None:
    text = """g (float[64,64] x) => (float[64,64] y) <int64[2] s = {64, 64}> {
        c = ConstantOfShape<value = float[1] {0.5}>(s)  y = Mul(x, c) }"""
    proto = judge.model(HEAD + text)
    made, ledger = judge.apply(proto, FoldConstants())
    assert judge.operators(made) == ["ConstantOfShape", "Mul"]
    assert any("would add" in change.what for change in ledger.declined)


def test_what_a_large_result_needs_is_still_folded() -> None:
    made = after(
        """g (float[64,64] x) => (float[64,64] y) <int64[1] s = {64}> {
            t = Concat<axis = 0>(s, s)
            c = ConstantOfShape<value = float[1] {0.5}>(t)  y = Mul(x, c) }""",
        FoldConstants(),
        RemoveDead(),
    )
    assert judge.operators(made) == ["ConstantOfShape", "Mul"]


def test_a_result_that_replaces_as_large_an_initializer_is_folded() -> None:
    weights = ", ".join(str(i % 7) for i in range(64 * 64))
    made = after(
        f"""g (float[3,64] x) => (float[3,64] y) <float[64,64] w = {{{weights}}}> {{
            t = Transpose<perm = [1, 0]>(w)  y = MatMul(x, t) }}""",
        FoldConstants(),
        RemoveDead(),
    )
    assert judge.operators(made) == ["MatMul"]


def test_small_results_are_taken_all_or_none() -> None:
    lines = "".join(
        f"c{i} = ConstantOfShape<value = float[1] {{{i}.0}}>(s)  y{i} = Mul(x, c{i})  "
        for i in range(1, 9)
    )
    outputs = ", ".join(f"float[200] y{i}" for i in range(1, 9))
    text = f"g (float[200] x) => ({outputs}) <int64[1] s = {{200}}> {{ {lines} }}"
    for allowed, left in ((4000, 8), (9000, 0)):
        made = after(text, FoldConstants(growth_bytes=allowed))
        assert judge.operators(made).count("ConstantOfShape") == left


def test_nothing_huge_is_ever_computed() -> None:
    count = LARGEST_RESULT_BYTES  # times four bytes
    proto = judge.model(
        HEAD
        + f"""g (float[1] x) => (float y) <int64[1] s = {{{count}}}> {{
        c = ConstantOfShape<value = float[1] {{1.0}}>(s)
        t = ReduceSum<keepdims = 0>(c)  y = Add(x, t) }}"""
    )
    made, ledger = judge.apply(proto, FoldConstants())
    assert judge.operators(made) == ["ConstantOfShape", "ReduceSum", "Add"]
    assert any("would take" in change.what for change in ledger.declined)


def test_a_dequantized_weight_stays_quantized() -> None:
    made = after(
        """g (float[2] x) => (float[2] y) <int8[2] w = {1, -2}, float s = {0.5}, int8 z = {0}> {
            d = DequantizeLinear(w, s, z)  y = Mul(x, d) }""",
        FoldConstants(),
    )
    assert judge.operators(made) == ["DequantizeLinear", "Mul"]


def test_a_graph_output_that_is_constant_keeps_its_name_through_an_identity() -> None:
    made = after(
        """g (float[2] x) => (float[2] y, float[2] c) <float[2] w = {1, 4}> {
            c = Sqrt(w)  y = Add(x, c) }""",
        FoldConstants(),
    )
    assert [o.name for o in made.graph.output] == ["y", "c"]
    again, ledger = judge.apply(made, FoldConstants())
    assert again == made and not ledger.changes


def test_several_outputs_of_one_node_are_folded_together() -> None:
    made = after(
        """g (float[2] x) => (float[2] y, float[1] b)
        <float[3] w = {1, 4, 9}, int64[2] n = {2, 1}> {
            a, b = Split<axis = 0>(w, n)  y = Add(x, a) }""",
        FoldConstants(),
    )
    assert judge.operators(made) in (["Identity", "Add"], ["Add", "Identity"])


def test_strings_booleans_and_empty_tensors_are_folded_alike() -> None:
    made = after(
        """g (string[2] x, bool[2] p) => (string[4] y, bool[2] q, float[0] e)
        <string[1] s = {"a"}, bool[2] t = {1, 0}, float[0] w = {}> {
            u = Concat<axis = 0>(s, s)  y = Concat<axis = 0>(x, u)
            n = Not(t)  q = And(p, n)  f = Exp(w)  e = Neg(f) }""".replace(
            "string[2] x, ", ""
        ).replace("y = Concat<axis = 0>(x, u)", "y = Concat<axis = 0>(u, u)"),
        FoldConstants(),
        RemoveDead(),
    )
    assert judge.operators(made).count("Not") == 0


# --- shapes ------------------------------------------------------------------------------------


def folded(text: str, opset: int = 17) -> onnx.ModelProto:
    return after(text, FoldConstants(), FoldShapes(infer), RemoveDead(), opset=opset)


def test_the_shape_of_a_static_value_is_a_constant() -> None:
    made = folded("""g (float[2,3,4] x) => (float[A,B] y) <int64[1] zero = {0}, int64[1] m = {-1}> {
        s = Shape(x)  n = Gather<axis = 0>(s, zero)  t = Concat<axis = 0>(n, m)
        y = Reshape(x, t) }""")
    assert judge.operators(made) == ["Reshape"]


def test_flattening_behind_a_dynamic_batch_becomes_a_constant_reshape() -> None:
    made = folded(
        """g (float[N,3,4] x) => (float[A,B] y) <int64 zero = {0}, int64[1] axes = {0}> {
        s = Shape(x)  n = Gather<axis = 0>(s, zero)  u = Unsqueeze(n, axes)
        m = Constant<value_ints = [12]>()  t = Concat<axis = 0>(u, m)  y = Reshape(x, t) }"""
    )
    assert judge.operators(made) == ["Reshape"]
    assert list(onnx.numpy_helper.to_array(made.graph.initializer[0])) == [0, 12]


def test_a_dynamic_dimension_in_another_place_becomes_minus_one() -> None:
    made = folded("""g (float[3,N] x) => (float[A,B] y) <int64[1] one = {1}> {
        s = Shape(x)  n = Gather<axis = 0>(s, one)
        m = Constant<value_ints = [3]>()  t = Concat<axis = 0>(n, m)  y = Reshape(x, t) }""")
    assert judge.operators(made) == ["Reshape"]


def test_two_dynamic_dimensions_that_are_not_copies_stay_computed() -> None:
    made = folded("""g (float[M,N] x) => (float[A,B] y) <int64[2] flip = {1, 0}> {
        s = Shape(x)  t = Gather<axis = 0>(s, flip)  y = Reshape(x, t) }""")
    assert judge.operators(made) == ["Shape", "Gather", "Reshape"]


def test_dimensions_of_two_inputs_with_one_name_are_not_believed_equal() -> None:
    made = folded("""g (float[N,2] x, float[N,2] w) => (float[A,B] y, float[C,D] z)
        <int64[1] zero = {0}, int64[1] two = {2}> {
        s = Shape(w)  n = Gather<axis = 0>(s, zero)  m = Neg(n)  z = Exp(w)
        t = Concat<axis = 0>(n, two)  y = Reshape(x, t) }""")
    # -1 says the same without believing; 0 would not.
    targets = [onnx.numpy_helper.to_array(t).tolist() for t in made.graph.initializer]
    assert [-1, 2] in targets


def test_expanding_to_ones_and_own_dimensions_needs_no_shape() -> None:
    made = folded("""g (float[N,3] x) => (float[A,B,C] y) <int64[1] two = {2}> {
        s = Shape(x)  t = Concat<axis = 0>(two, s)  y = Expand(x, t) }""")
    assert judge.operators(made) == ["Expand"]


def test_shape_with_start_and_end_slices_as_the_operator_does() -> None:
    made = folded("""g (float[2,3,4,5] x) => (float[A,B] y) <int64[1] m = {-1}> {
        s = Shape<start = -3, end = -2>(x)  t = Concat<axis = 0>(s, m)  y = Reshape(x, t) }""")
    assert judge.operators(made) == ["Reshape"]


def test_arithmetic_on_dimensions_is_done_now() -> None:
    made = folded(
        """g (float[8,6] x) => (float[A,B] y)
        <int64 zero = {0}, int64 two = {2}, int64[1] axes = {0}, int64[1] m = {-1}> {
        s = Shape(x)  n = Gather<axis = 0>(s, zero)  h = Div(n, two)  p = Mul(h, h)
        q = Sub(p, two)  r = Mod(q, h)  k = Add(r, h)  u = Unsqueeze(k, axes)
        t = Concat<axis = 0>(u, m)  y = Reshape(x, t) }""".replace("float[8,6]", "float[8,6]")
    )
    assert judge.operators(made) == ["Reshape"]


@pytest.mark.parametrize("steps", ["1", "2", "-1", "-2"])
@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 99), (-2, -1), (3, -99), (-1, 0)])
def test_slices_of_shapes_follow_the_operator(start: int, end: int, steps: str) -> None:
    proto = judge.model(
        HEAD
        + f"""g (float[2,3,5,7] x) => (int64[K] y)
        <int64[1] a = {{{start}}}, int64[1] b = {{{end}}}, int64[1] c = {{0}},
         int64[1] d = {{{steps}}}, int64[1] one = {{1}}> {{
        s = Shape(x)  t = Slice(s, a, b, c, d)  y = Mul(t, one) }}"""
    )
    made, _ = judge.apply(proto, FoldShapes(infer), RemoveDead())
    judge.assert_same(proto, made)


# --- If ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("condition", "expected"), [(1, "Neg"), (0, "Abs")])
def test_an_if_with_a_known_condition_becomes_its_branch(condition: int, expected: str) -> None:
    made = after(
        f"""g (float[2] x) => (float[2] y) <bool c = {{{condition}}}> {{ a = Exp(x)
            b = If(c) <then_branch = t () => (float[2] p) {{ p = Neg(a) }},
                       else_branch = e () => (float[2] p2) {{ q = Abs(a)  p2 = Identity(q) }}>
            y = Relu(b) }}""",
        InlineIf(),
    )
    assert "If" not in judge.operators(made) and expected in judge.operators(made)


def test_names_of_a_branch_that_are_taken_elsewhere_are_changed() -> None:
    made = after(
        """g (bool d, float[2] x) => (float[2] y) <bool c = {1}> {
            b = If(c) <then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Mul(x, w) },
                       else_branch = e () => (float[2] q) { q = Abs(x) }>
            k = If(d) <then_branch = t2 () => (float[2] p) <float[2] w = {3, 4}> { p = Mul(x, w) },
                       else_branch = e2 () => (float[2] q) { q = Neg(x) }>
            y = Add(b, k) }""",
        InlineIf(),
    )
    assert judge.operators(made).count("If") == 1


def test_graph_outputs_of_an_inlined_if_keep_their_names() -> None:
    made = after(
        """g (float[2] x) => (float[2] y, float[2] z, float[2] u) <bool c = {1}> {
            y, z, u = If(c) <
                then_branch = t () => (float[2] p, float[2] r, float[2] i) {
                    p = Neg(x)  r = Exp(p)  i = Identity(x) },
                else_branch = e () => (float[2] q, float[2] s, float[2] j) {
                    q = Abs(x)  s = Exp(q)  j = Neg(x) }> }""",
        InlineIf(),
    )
    assert "If" not in judge.operators(made)


def test_nested_ifs_are_inlined_one_after_the_other() -> None:
    made = after(
        """g (float[2] x) => (float[2] y) <bool c = {1}, bool d = {0}> {
            y = If(c) <then_branch = t () => (float[2] p) {
                    p = If(d) <then_branch = t2 () => (float[2] k) { k = Neg(x) },
                               else_branch = e2 () => (float[2] m) { m = Exp(x) }> },
                else_branch = e () => (float[2] q) { q = Abs(x) }> }""",
        InlineIf(),
    )
    assert judge.operators(made) == ["Exp"]


def test_an_unknown_condition_is_left_alone() -> None:
    made = after(
        """g (bool c, float[2] x) => (float[2] y) {
            y = If(c) <then_branch = t () => (float[2] p) { p = Neg(x) },
                       else_branch = e () => (float[2] q) { q = Abs(x) }> }""",
        InlineIf(),
    )
    assert judge.operators(made) == ["If", "Neg", "Abs"]


# --- Range -------------------------------------------------------------------------------------


def test_constants_of_one_element_become_scalars_for_range() -> None:
    proto = judge.model(
        HEAD
        + """g (int64[1] x) => (int64[N] y) <int64[1] a = {1}, int64 d = {2}> {
        r = Range(a, x, d)  y = Neg(r) }""".replace("Range(a, x, d)", "Range(a, e, d)").replace(
            "<int64[1] a = {1},", "<int64[1] a = {1}, int64 e = {9},"
        )
    )
    made, ledger = judge.apply(proto, ScalarRange())
    assert len(ledger.changes) == 1
    shapes = {t.name: list(t.dims) for t in made.graph.initializer}
    assert shapes[made.graph.node[0].input[0]] == []
