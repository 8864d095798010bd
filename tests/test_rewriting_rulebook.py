"""Rule files: what is loaded, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxopt.errors import UsageError
from onnxopt.rewriting.rulebook import load_file, load_folder, load_rules, own_rules_folder

RULE = '''"""Turn Neg into Abs.

A page.
"""
from onnxopt.rewriting.rule import Result, Rule, Value, op

def rewrite(x: Value) -> Result:
    return op("Abs", x)

rule = Rule(pattern="p (x) => (y) { y = Neg(x) }", rewrite=rewrite, numerics="lossy", examples=())
'''


def test_a_rule_has_the_name_of_its_file_and_the_page_of_its_docstring(tmp_path: Path) -> None:
    (tmp_path / "turn_neg.py").write_text(RULE)
    (rule,) = load_folder(tmp_path)
    assert (rule.name, rule.summary, rule.numerics) == ("turn-neg", "Turn Neg into Abs.", "lossy")
    assert rule.source == RULE


def test_rules_of_a_folder_come_after_ours_sorted_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text(RULE)
    (tmp_path / "a.py").write_text(RULE)
    (tmp_path / "_shared.py").write_text("no rule")
    ours = len(load_folder(own_rules_folder()))
    assert [rule.name for rule in load_rules([tmp_path])[ours:]] == ["a", "b"]


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "remove_identity.py").write_text(RULE)
    with pytest.raises(UsageError, match="two rules named 'remove-identity'"):
        load_rules([tmp_path])


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        load_folder(tmp_path / "missing")
    with pytest.raises(UsageError, match="holds no rules"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("rule = Rule", "other = Rule", "defines no"),
        ("import Result", "import Nothing", "fails: ImportError"),
        ("y = Neg(x)", "y = Neg x", "not ONNX text"),
        ("x: Value", "x: int", "must be a Value, Array, Node or Graph"),
        ("x: Value", "u: Value", "asks for 'u', which is not in the pattern"),
    ],
)
def test_a_file_that_is_no_rule_is_refused_with_a_reason(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(RULE.replace(old, new))
    with pytest.raises(UsageError, match=reason):
        load_file(file)
