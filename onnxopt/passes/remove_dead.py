"""Remove nodes whose outputs nobody reads, and initializers that no node reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxopt.changes import Ledger, Numerics
from onnxopt.graph import Constant, Graph, Node, detach, drop_detached
from onnxopt.model import Model

KNOWN_DOMAINS = ("", "ai.onnx.ml", "com.microsoft")
"""Their operators do nothing but compute. A custom one might (print, count), and stays."""


@dataclass(frozen=True)
class RemoveDead:
    """Graph inputs stay, used or not; so do defaults of inputs that a caller may override."""

    name: ClassVar[str] = "remove-dead"
    numerics: ClassVar[Numerics] = "exact"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        for graph in reversed(list(model.graphs())):
            self._remove_nodes(graph, ledger)
        for graph in model.graphs():
            self._remove_initializers(graph, ledger)

    def _remove_nodes(self, graph: Graph, ledger: Ledger) -> None:
        for node in reversed(graph.nodes):
            if _is_dead(node) and ledger.grant(
                self.name, node.label(), "removed: nothing reads it"
            ):
                detach(node)
        drop_detached(graph)

    def _remove_initializers(self, graph: Graph, ledger: Ledger) -> None:
        kept: list[Constant] = []
        for constant in graph.initializers:
            site = f"initializer '{constant.name}'"
            if (
                constant.is_used
                or constant.overridable
                or constant.name in graph.root.protected
                or not ledger.grant(self.name, site, "removed: nothing reads it")
            ):
                kept.append(constant)
        graph.initializers[:] = kept


def _is_dead(node: Node) -> bool:
    known = node.domain in KNOWN_DOMAINS or node.domain == "ai.onnx"
    return known and not any(value.is_used for value in node.outputs)
