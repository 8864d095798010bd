"""The checks of rules find what is wrong with a rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxopt.rewriting.check import check_rules
from onnxopt.rewriting.rulebook import own_rules_folder

# What is changed in which rule, so that it is wrong. Most are mistakes that simplifiers have made.
BUGS = {
    "the bias is not scaled": (
        "fold_batchnorm_into_conv.py",
        "else absorb(c, affine)",
        "else absorb(c, type(affine)(affine.gain, affine.offset * 0))",
    ),
}


def messages(folder: Path) -> list[str]:
    return [f"{r.test}: {r.message}" for r in check_rules(folder) if not r.passed]


@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_rule_fails_its_checks(bug: str, tmp_path: Path) -> None:
    file, right, wrong = BUGS[bug]
    text = (own_rules_folder() / file).read_text()
    assert text.count(right) == 1
    (tmp_path / file).write_text(text.replace(right, wrong))
    assert messages(tmp_path)
