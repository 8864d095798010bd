"""The runner: right, never larger, idempotent, and wrong rewrites are found and taken back."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import judge
import onnx
import pytest

from onnxopt.errors import BadModelError, UnverifiableError, UsageError
from onnxopt.model import load
from onnxopt.optimizer import SMALLEST_GROWTH_BYTES, Options, explain, optimize
from onnxopt.passes.remove_dead import RemoveDead

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


@pytest.mark.parametrize("file", judge.TINY_MODELS, ids=lambda f: f.stem)
def test_every_kind_of_model_is_optimized_right_and_a_second_run_changes_nothing(
    file: Path,
) -> None:
    proto = load(file)
    result = optimize(proto)
    assert result.report.verdict is not None and result.report.verdict.passed
    assert not result.report.withdrawn
    assert not any("failed" in note for note in result.report.notes)
    assert result.model.ByteSize() <= proto.ByteSize() + SMALLEST_GROWTH_BYTES
    again = optimize(result.model)
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(
        deterministic=True
    )
    assert not again.report.changes


@pytest.mark.parametrize("file", judge.TINY_MODELS, ids=lambda f: f.stem)
def test_the_signature_and_all_around_it_stay(file: Path) -> None:
    before = load(file)
    after = optimize(before, Options(verify=False)).model
    given = {t.name for t in before.graph.initializer}
    inputs = [i for i in before.graph.input if i.name not in given or before.ir_version >= 4]
    still = {i.name: i for i in after.graph.input}
    assert all(still[i.name] == i for i in inputs)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)
    assert list(after.functions) == list(before.functions)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert (after.ir_version, after.doc_string) == (before.ir_version, before.doc_string)
    onnx.checker.check_model(after, full_check=True)


@pytest.mark.parametrize("name", ["digits_resnet", "digits_transformer"])
def test_trained_models_get_smaller_and_stay_right(name: str) -> None:
    proto = load(judge.REPOSITORY / "models" / f"{name}.onnx")
    result = optimize(proto)
    assert result.report.verdict is not None and result.report.verdict.passed
    assert len(result.model.graph.node) < len(proto.graph.node)
    assert result.model.ByteSize() < proto.ByteSize()


WRONG_RULE = textwrap.dedent('''
    """A wrong rule: Abs is not the identity."""
    from onnxopt.rewriting.rule import Result, Rule, Value


    def rewrite(x: Value) -> Result:
        return x


    rule = Rule(
        pattern="p (x) => (y) { y = Abs(x) }",
        rewrite=rewrite,
        numerics="exact",
        reuse="any",
        examples=(),
    )
    ''')


def chain(*operators: str) -> onnx.ModelProto:
    """The operators one after the other on x, under the names v1, v2, ... and y at the end."""
    names = [f"v{i}" for i in range(1, len(operators))] + ["y"]
    lines = [f"{n} = {op}({p})" for n, op, p in zip(names, operators, ["x", *names], strict=False)]
    return judge.model(HEAD + "g (float[2,5] x) => (float[2,5] y) { " + "  ".join(lines) + " }")


def test_a_wrong_rewrite_is_found_and_taken_back_and_the_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG_RULE)
    proto = chain("Identity", "Sin", "Abs", "Identity", "Exp", "Neg", "Identity")
    result = optimize(proto, Options(rules_dirs=(tmp_path,)))
    assert judge.operators(result.model) == ["Sin", "Abs", "Exp", "Neg"]
    assert [change.by for change in result.report.withdrawn] == ["wrong"]
    assert result.report.verdict is not None and result.report.verdict.passed
    judge.assert_same(proto, result.model)


def test_a_rule_that_is_wrong_again_and_again_is_taken_back_altogether(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG_RULE)
    lines = " ".join(f"y{i} = Abs(x{i})" for i in range(8))
    inputs, outputs = (", ".join(f"float[9] {n}{i}" for i in range(8)) for n in "xy")
    proto = judge.model(HEAD + f"g ({inputs}) => ({outputs}) {{ {lines} }}")
    result = optimize(proto, Options(rules_dirs=(tmp_path,)))
    assert judge.operators(result.model) == ["Abs"] * 8
    assert 0 < len(result.report.withdrawn) < 8
    judge.assert_same(proto, result.model)


def test_a_rule_that_makes_a_model_that_does_not_load_is_taken_back(tmp_path: Path) -> None:
    broken = WRONG_RULE.replace("return x", 'return op("NoSuchOperator", x)')
    broken = broken.replace("Rule, Value", "Rule, Value, op")
    (tmp_path / "broken.py").write_text(broken)
    result = optimize(chain("Sin", "Abs", "Identity", "Exp"), Options(rules_dirs=(tmp_path,)))
    assert judge.operators(result.model) == ["Sin", "Abs", "Exp"]
    assert [change.by for change in result.report.withdrawn] == ["broken"]


def test_a_rule_that_raises_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(WRONG_RULE.replace("return x", "return 1 / 0"))
    proto = chain("Sin", "Abs", "Identity", "Exp")
    result = optimize(proto, Options(rules_dirs=(tmp_path,)))
    assert judge.operators(result.model) == ["Sin", "Abs", "Exp"]


def test_a_pass_that_raises_is_left_out_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: RemoveDead, model: object, ledger: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(RemoveDead, "__call__", fail)
    result = optimize(chain("Identity", "Sin", "Abs"))
    assert judge.operators(result.model) == ["Sin", "Abs"]
    assert any("remove-dead failed" in note for note in result.report.notes)


def test_skip_and_only_choose_rules_and_passes() -> None:
    proto = chain("Identity", "Sin", "Identity", "Abs")
    assert "Identity" in judge.operators(optimize(proto, Options(skip=("remove-identity",))).model)
    assert "Identity" in judge.operators(optimize(proto, Options(only=("deduplicate",))).model)
    only = optimize(proto, Options(only=("remove-identity",)))
    assert {change.by for change in only.report.changes} == {"remove-identity"}


def test_an_unknown_rule_name_is_a_usage_error_with_the_closest_names() -> None:
    with pytest.raises(UsageError, match="did you mean remove-identity"):
        optimize(chain("Sin"), Options(skip=("remove-identty",)))


def test_explain_says_why_a_rewrite_was_not_made() -> None:
    reasons = explain(chain("Identity"))
    assert [change.by for change in reasons] == ["remove-identity"]
    assert "graph output" in reasons[0].what


def test_set_shape_fixes_the_input_and_lets_shapes_be_folded() -> None:
    proto = judge.model(
        HEAD
        + """g (float[N,3] x) => (float[M,K] y) <float one = {1}> {
        s = Shape(x)  c = ConstantOfShape(s)  z = Exp(c)  y = Add(z, x) }"""
    )
    free, fixed = optimize(proto), optimize(proto, Options(set_shapes={"x": (2, 3)}))
    assert len(fixed.model.graph.node) < len(free.model.graph.node)
    dims = fixed.model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [2, 3]


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        ({"nope": (1,)}, "no input 'nope'"),
        ({"x": (1,)}, "has 2 dimensions, not 1"),
        ({"x": (2, 6)}, "fixed dimension of 5, not 6"),
    ],
)
def test_a_shape_that_does_not_fit_is_a_usage_error(
    shapes: Mapping[str, tuple[int, ...]], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        optimize(chain("Sin"), Options(set_shapes=shapes))


def test_frozen_inputs_leave_the_signature_and_count_as_constants() -> None:
    proto = judge.tiny("overridable_weights")
    given = {t.name for t in proto.graph.initializer}
    kept = optimize(proto).model
    frozen = optimize(proto, Options(freeze_inputs=True)).model
    assert given & {i.name for i in kept.graph.input}
    assert not given & {i.name for i in frozen.graph.input}
    assert len(frozen.graph.node) <= len(kept.graph.node)
    assert any("--freeze-inputs" in note for note in optimize(proto).report.notes)


def custom() -> onnx.ModelProto:
    return judge.model(
        '<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]> '
        "g (float[2] x) => (float[2] y) { a = my.domain.Twist(x)  b = Identity(a)  y = Neg(b) }"
    )


def test_a_model_that_cannot_run_here_is_refused_unless_that_is_allowed() -> None:
    with pytest.raises(UnverifiableError):
        optimize(custom())
    result = optimize(custom(), Options(allow_unverified=True))
    assert judge.operators(result.model) == ["Twist", "Neg"]
    assert result.report.verdict is None and result.report.verification == "impossible"
    assert any("NOT VERIFIED" in note for note in result.report.notes)


def test_a_model_with_wrong_types_is_a_bad_model() -> None:
    proto = judge.model(
        HEAD + "g (float[2] x, int64[2] n) => (float[2] y) { a = Add(x, n)  y = Neg(a) }"
    )
    with pytest.raises(BadModelError):
        optimize(proto)


def test_growth_is_kept_within_the_promise_and_may_be_allowed() -> None:
    lines = "".join(
        f"c{i} = ConstantOfShape<value = float[1] {{{i}.0}}>(s)  y{i} = Mul(x, c{i})  "
        for i in range(1, 41)
    )
    outputs = ", ".join(f"float[1000] y{i}" for i in range(1, 41))
    proto = judge.model(
        HEAD + f"g (float[1000] x) => ({outputs}) <int64[1] s = {{1000}}> {{ {lines} }}"
    )
    kept = optimize(proto).model
    assert kept.ByteSize() <= proto.ByteSize() + SMALLEST_GROWTH_BYTES
    grown = optimize(proto, Options(allow_growth=100.0)).model
    assert "ConstantOfShape" not in judge.operators(grown)


def test_the_report_tells_cost_before_and_after() -> None:
    report = optimize(chain("Identity", "Sin", "Identity", "Abs")).report
    assert (report.before.nodes, report.after.nodes) == (4, 2)
    assert report.verification == "verified"


def test_the_models_given_are_not_changed() -> None:
    proto = load(judge.REPOSITORY / "models" / "digits_resnet.onnx")
    before = proto.SerializeToString(deterministic=True)
    optimize(proto)
    assert proto.SerializeToString(deterministic=True) == before


def test_what_a_rewrite_still_needs_is_not_computed_twice_nor_named_twice() -> None:
    proto = judge.model(
        HEAD
        + """g (float[2,3] x) => (float[2,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
        [gemm] a = Gemm(x, w)  [add] y = Add(a, a) }"""
    )
    made = optimize(proto).model
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)
    assert judge.operators(made) == ["Gemm", "Add"]
