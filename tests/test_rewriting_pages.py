"""The page about the rules is made from the rules."""

from __future__ import annotations

from onnxopt.rewriting.pages import main, readme
from onnxopt.rewriting.rulebook import load_folder, own_rules_folder


def test_the_page_is_up_to_date() -> None:
    assert main(["--check"]) == 0, "run: python -m onnxopt.rewriting.pages"


def test_the_page_names_every_rule_with_its_numerics() -> None:
    rules = load_folder(own_rules_folder())
    text = readme(rules)
    for rule in rules:
        assert f"| [{rule.name}]({rule.path.name}) | {rule.numerics} |" in text
