"""Apply the rules of the rulebook, everywhere, until none fires any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from onnxopt.changes import Ledger, Numerics
from onnxopt.graph import Graph, Node, drop_detached
from onnxopt.model import Model
from onnxopt.rewriting.apply import describe, keeps_signature, put_in_place, reads_inside
from onnxopt.rewriting.match import Match, Pattern, arguments, find_match
from onnxopt.rewriting.rule import Result, Skip
from onnxopt.rewriting.rulebook import LoadedRule

MOST_SWEEPS = 100


@dataclass(frozen=True)
class ApplyRules:
    """Walk every graph in execution order and let each rule try each node, until nothing changes.

    Attributes:
        rules: in the order in which they are tried at a node.
        infer: fills in dtypes and shapes, called after each sweep that changed something.
    """

    rules: tuple[LoadedRule, ...]
    infer: Callable[[Model], None]
    name: ClassVar[str] = "rules"
    numerics: ClassVar[Numerics] = "rounding"

    @cached_property
    def by_root(self) -> dict[str, list[tuple[LoadedRule, Pattern]]]:
        found: dict[str, list[tuple[LoadedRule, Pattern]]] = {}
        for rule in self.rules:
            for pattern in rule.patterns:
                found.setdefault(pattern.root.op_type, []).append((rule, pattern))
        return found

    def __call__(self, model: Model, ledger: Ledger) -> None:
        for _ in range(MOST_SWEEPS):
            fired = [self._sweep(graph, ledger) for graph in model.graphs()]
            if not any(fired):
                return
            self.infer(model)
        raise AssertionError("rules undo each other: they never come to rest")

    def _sweep(self, graph: Graph, ledger: Ledger) -> bool:
        order: list[Node] = []
        fired = False
        for node in graph.nodes:
            if node.graph is None:
                continue
            new = self._rewrite(node, ledger)
            if new is None:
                order.append(node)
            else:
                fired = True
                order.extend(new)
        if fired:
            graph.nodes[:] = order
            drop_detached(graph)
        return fired

    def _rewrite(self, node: Node, ledger: Ledger) -> list[Node] | None:
        """The nodes that stand in place of `node` if a rule fires, else None."""
        candidates = self.by_root.get(node.op)
        if candidates is None or not node.is_standard:
            return None
        site = node.label()
        for rule, pattern in candidates:
            match = find_match(pattern, rule.parameters, node, sole=rule.rule.reuse == "sole")
            if match is None:
                continue
            if isinstance(match, Skip):
                ledger.decline(rule.name, site, match.why)
                continue
            result = _rewritten(rule, match)
            if isinstance(result, Skip):
                ledger.decline(rule.name, site, result.why)
            elif ledger.grant(rule.name, site, describe(result), rule.numerics):
                return put_in_place(match, result)
        return None


def _rewritten(rule: LoadedRule, match: Match) -> Result:
    """What the rule makes of the match; one that raises has a bug, and leaves it alone."""
    try:
        result = rule.rule.rewrite(**arguments(match, rule.parameters))
    except Exception as error:
        return Skip(f"the rule failed: {type(error).__name__}: {error}")
    if not isinstance(result, Skip) and not keeps_signature(match, result):
        return Skip("a graph output needs a node that makes it")
    if rule.rule.reuse == "sole" and not isinstance(result, Skip) and reads_inside(match, result):
        return Skip("what is made inside is needed by the result too")
    return result
