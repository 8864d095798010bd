"""What the tests of matching and applying share: models from text, rules from two lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import onnx.parser

from onnxopt.changes import Change, Ledger
from onnxopt.graph import Graph, Node, Value
from onnxopt.model import Model
from onnxopt.passes.apply_rules import ApplyRules
from onnxopt.rewriting.match import Match, Pattern, compile_pattern, find_match, parameters
from onnxopt.rewriting.rule import Result, Rule, Skip
from onnxopt.rewriting.rulebook import LoadedRule
from onnxopt.shapes import infer

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def model(text: str, head: str = HEAD) -> Model:
    made = Model.from_proto(onnx.parser.parse_model(head + text))
    infer(made)
    return made


def rule(
    pattern: str | tuple[str, ...],
    rewrite: Callable[..., Result],
    reuse: Literal["sole", "any"] = "sole",
) -> LoadedRule:
    made = Rule(pattern, rewrite, numerics="exact", examples=(), reuse=reuse)
    return LoadedRule("tested", made, "A rule of a test.", Path("tested.py"))


def apply(tested: LoadedRule, to: Model) -> tuple[list[Change], list[Change]]:
    """What it did and what it declined; the result must hang together as a model."""
    ledger = Ledger()
    ApplyRules((tested,), infer)(to, ledger)
    Model.from_proto(to.to_proto())
    return ledger.changes, ledger.declined


def match(
    pattern: str, rewrite: Callable[..., Any], to: Graph, root: str, *, sole: bool = True
) -> Match | Skip | None:
    """The pattern at the node that makes the value `root`."""
    compiled: Pattern = compile_pattern(pattern, "tested")
    wanted = parameters(Rule(pattern, rewrite, "exact", ()), "tested")
    return find_match(compiled, wanted, made_by(to, root), sole=sole)


def made_by(graph: Graph, name: str) -> Node:
    return next(n for g in graph.walk() for n in g.nodes for v in n.outputs if v.name == name)


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def names(values: list[Value]) -> list[str]:
    return [value.name for value in values]
