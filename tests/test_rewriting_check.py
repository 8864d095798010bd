"""The checks of rules find what is wrong with a rule, and say so in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxopt.errors import UsageError
from onnxopt.rewriting.check import check_rules, checks_of, run_check
from onnxopt.rewriting.rulebook import load_file, own_rules_folder

BUGS = {
    "a Slice backwards is removed": (
        "remove_noop_slice.py",
        "any(step != 1 for step",
        "any(step == 0 for step",
    ),
    "the start of a Slice is ignored": (
        "remove_noop_slice.py",
        "if start != 0 and not",
        "if start > 0 and not",
    ),
    "a constant enlarges the shape": (
        "remove_noop_arithmetic.py",
        "if not keeps_shape(x, k.shape):",
        "if False:",
    ),
    "pads that add up to nothing are removed": (
        "remove_noop_pad.py",
        "any(widths)",
        "sum(widths)",
    ),
    "Dropout that trains is removed": (
        "remove_dropout.py",
        "training is not None and not all_equal(training, 0)",
        "False",
    ),
    "a Cast that loses something is removed": (
        "merge_casts.py",
        "if not loses_nothing(x.dtype, middle)",
        "if False",
    ),
    "permutations are composed the wrong way round": (
        "merge_transposes.py",
        "[first[axis] for axis in second]",
        "[second[axis] for axis in first]",
    ),
    "a summand enlarges the product": (
        "merge_matmul_add.py",
        "if not broadcasts_to(b, c.outputs[0]):",
        "if False:",
    ),
    "the beta of nothing is kept": ("merge_gemm_add.py", ' if name != "beta"', ""),
    "padding counts that did not count": (
        "fold_pad_into_average_pool.py",
        'if any(own.pads) and not attr(y, "count_include_pad")',
        "if False",
    ),
    "constants that cancel are merged": (
        "merge_offsets.py",
        "if (first * second < 0).any()",
        "if False",
    ),
    "a crop is removed": ("remove_noop_resize.py", "not in ALIGNED", "in ()"),
    "ends the wrong way round are ignored": (
        "remove_noop_clip.py",
        "last[0] <= first[0] <= first[1] <= last[1]",
        "last[0] <= first[0] and first[1] <= last[1]",
    ),
    "the rank of a constant is ignored": (
        "move_binary_before_reshape.py",
        "k.ndim > min(rank, inner)",
        "False",
    ),
    "the code raises": ("remove_noop_tile.py", "return x if", "return x.nothing if"),
    "an example does not fire": (
        "remove_noop_tile.py",
        "int64[2] r = {{1, 1}}",
        "int64[2] r = {{1, 2}}",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_rule_fails_its_checks(bug: str, tmp_path: Path) -> None:
    file, right, wrong = BUGS[bug]
    text = (own_rules_folder() / file).read_text()
    assert text.count(right) == 1
    (tmp_path / file).write_text(text.replace(right, wrong))
    rule = load_file(tmp_path / file)
    assert any(not run_check(rule, test).passed for test in checks_of(rule))


RULE = '''"""Turn Neg into Abs."""
from onnxopt.rewriting.rule import Example, Result, Rule, Value, op

def rewrite(x: Value) -> Result:
    return op("Abs", x)

MODEL = """<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y)"""

rule = Rule(
    pattern="p (x) => (y) { y = Neg(x) }",
    rewrite=rewrite,
    numerics="exact",
    examples=(Example(MODEL + "{ y = Neg(x) }", MODEL + "{ y = Abs(x) }"),),
)
'''


def failures(folder: Path) -> dict[str, str]:
    return {r.test: r.message for r in check_rules(folder) if not r.passed}


def test_a_rule_that_changes_the_function_fails_on_its_own_example(tmp_path: Path) -> None:
    (tmp_path / "turn_neg.py").write_text(RULE)
    found = failures(tmp_path)
    assert "'y' is not the same bit for bit" in found["example 1 keeps its outputs"]
    assert "example 1 is rewritten as it says" not in found


def test_a_result_of_another_structure_is_named(tmp_path: Path) -> None:
    (tmp_path / "turn_neg.py").write_text(RULE.replace("y = Abs(x) }", "y = Exp(x) }"))
    message = failures(tmp_path)["example 1 is rewritten as it says"]
    assert message == "the result is not 'after': Abs instead of Exp makes 'y'"


def test_a_rule_that_fires_again_on_its_result_fails(tmp_path: Path) -> None:
    twice = RULE.replace("y = Neg(x) }", "y = Exp(x) }").replace(
        'op("Abs", x)', 'op("Exp", x) if x.rank == 3 else op("Abs", op("Exp", x))'
    )
    (tmp_path / "turn_neg.py").write_text(twice)
    assert failures(tmp_path)


def test_an_example_that_is_no_text_or_does_not_run_fails(tmp_path: Path) -> None:
    (tmp_path / "turn_neg.py").write_text(
        RULE.replace('MODEL + "{ y = Neg(x)', 'MODEL + "{ y = Neg x')
    )
    assert "not ONNX text" in failures(tmp_path)["example 1 is rewritten as it says"]
    (tmp_path / "turn_neg.py").write_text(RULE.replace("float[N] x", "string[N] x"))
    assert failures(tmp_path)["example 1 keeps its outputs"]


def test_a_rule_without_a_page_or_an_example_that_fires_fails(tmp_path: Path) -> None:
    (tmp_path / "turn_neg.py").write_text(RULE.replace('"""Turn Neg into Abs."""', ""))
    assert "it has a page" in failures(tmp_path)
    (tmp_path / "turn_neg.py").write_text(RULE.replace('MODEL + "{ y = Abs(x) }"', "None"))
    assert "an example fires" in failures(tmp_path)


def test_a_folder_without_rules_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        check_rules(tmp_path)
