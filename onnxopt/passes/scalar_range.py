"""Give Range scalars where it has constants of one element.

Exporters hand it tensors of shape [1], which ONNX Runtime runs as long as it does not see their
shape when it loads the model. Folding shows it the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxopt.changes import Ledger, Numerics
from onnxopt.graph import Graph, Node
from onnxopt.model import Model


@dataclass(frozen=True)
class ScalarRange:
    """Start, limit and step of a Range become scalars."""

    name: ClassVar[str] = "scalar-range"
    numerics: ClassVar[Numerics] = "exact"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        for graph in model.graphs():
            for node in graph.nodes:
                if node.op == "Range" and node.is_standard:
                    self._scalars(node, graph, ledger)

    def _scalars(self, node: Node, graph: Graph, ledger: Ledger) -> None:
        for index, value in enumerate(list(node.inputs)):
            array = value.array
            if array is None or array.ndim == 0 or array.size != 1:
                continue
            if ledger.grant(self.name, node.label(), f"'{value.name}' becomes a scalar"):
                node.inputs[index] = graph.add_initializer(array.reshape(()), value.name)
