"""Every rule of ours passes every check that users' rules have to pass."""

from __future__ import annotations

import pytest

from onnxopt.rewriting.check import checks_of, run_check
from onnxopt.rewriting.rulebook import LoadedRule, load_folder, own_rules_folder

CASES = [
    pytest.param(rule, test, id=f"{rule.name}: {test}")
    for rule in load_folder(own_rules_folder())
    for test in checks_of(rule)
]


@pytest.mark.parametrize(("rule", "test"), CASES)
def test_rule_passes_its_checks(rule: LoadedRule, test: str) -> None:
    result = run_check(rule, test)
    assert result.passed, result.message
