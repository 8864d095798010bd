"""Compute shapes, as far as they are known, when the model is optimized and not when it runs.

Shape, Gather, Concat and their like are evaluated on dimensions that may be symbols. What comes out
in numbers becomes an initializer. A Reshape or Expand whose target still holds symbols gets a
constant one where 0 (copy this dimension) and one -1 (the rest) can say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from onnxopt.changes import Ledger, Numerics
from onnxopt.graph import Array, Graph, Node, Shape, Value, drop_detached
from onnxopt.model import Model
from onnxopt.passes.shape_values import ShapeValues
from onnxopt.rewriting.apply import use_instead
from onnxopt.shapes import dimension_names

Entries: TypeAlias = tuple[int | str | None, ...]


@dataclass(frozen=True)
class FoldShapes:
    """
    Attributes:
        infer: fills in dtypes and shapes; called again after each round that changed something.
    """

    infer: Callable[[Model], None]
    name: ClassVar[str] = "fold-shapes"
    numerics: ClassVar[Numerics] = "exact"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        while True:
            values = ShapeValues()
            changed = [self._graph(graph, values, ledger) for graph in model.graphs()]
            if not any(changed):
                return
            self.infer(model)

    def _graph(self, graph: Graph, values: ShapeValues, ledger: Ledger) -> bool:
        order: list[Node] = []
        changed = False
        for node in graph.nodes:
            new = self._fold(node, values, ledger)
            if new is not None:
                changed = True
                order.extend(new)
                continue
            changed |= self._constant_target(node, values, ledger)
            order.append(node)
        graph.nodes[:] = order
        drop_detached(graph)
        return changed

    def _fold(self, node: Node, values: ShapeValues, ledger: Ledger) -> list[Node] | None:
        """Replace a node that makes known numbers by an initializer."""
        if len(node.outputs) != 1 or node.op in ("Constant", "Identity") or not node.is_standard:
            return None
        output = node.outputs[0]
        array = values.array(output)
        if array is None or output.is_graph_output:
            return None
        if not ledger.grant(self.name, node.label(), f"always makes {array.tolist()}"):
            return None
        graph = node.graph
        assert graph is not None
        return use_instead(output, graph.adopt_initializer(output.name, array), node)

    def _constant_target(self, node: Node, values: ShapeValues, ledger: Ledger) -> bool:
        """Give a Reshape or Expand a constant target."""
        if node.op not in ("Reshape", "Expand") or not node.is_standard or len(node.inputs) < 2:
            return False
        target = node.inputs[1]
        if target.array is not None:
            return False
        entries = values.entries(target)
        if entries is None:
            return False
        data = node.inputs[0]
        made = _reshape_target(node, data, entries)
        if node.op == "Expand":
            made = _expand_target(data.shape, entries)
        if made is None:
            ledger.decline(
                self.name, node.label(), f"its target {_shown(entries, node)} is not constant"
            )
            return False
        what = f"the target {_shown(entries, node)} is always {made.tolist()}"
        if not ledger.grant(self.name, node.label(), what):
            return False
        graph = node.graph
        assert graph is not None
        node.inputs[1] = graph.add_initializer(made, f"{node.outputs[0].name}_shape")
        return True


def _shown(entries: Entries, node: Node) -> str:
    named = {} if node.graph is None else dimension_names(node.graph.root)
    texts = ("?" if e is None else named.get(e, str(e)) for e in entries)
    return "[" + ", ".join(texts) + "]"


def _reshape_target(node: Node, data: Value, entries: Entries) -> Array | None:
    """Copies become 0 and one unknown -1; None if that does not say the same."""
    if node.attr("allowzero") and (0 in entries or any(not isinstance(e, int) for e in entries)):
        return None
    made: list[int] = []
    for position, entry in enumerate(entries):
        if isinstance(entry, int):
            made.append(entry)
        elif _copies(data.shape, position, entry):
            made.append(0)
        else:
            made.append(-1)
    # With a 0 among the numbers (a copy, or an empty tensor) -1 stays right only if it was there.
    if made.count(-1) > 1:
        return None
    unknown = any(not isinstance(e, int) for e in entries)
    if unknown and -1 in made and any(e == 0 for e in entries):
        return None
    return np.array(made, np.int64)


def _copies(shape: Shape | None, position: int, entry: str | None) -> bool:
    return (
        entry is not None
        and shape is not None
        and position < len(shape)
        and shape[position] == entry
    )


def _expand_target(shape: Shape | None, entries: Entries) -> Array | None:
    """Where the target only repeats a dimension of the data, 1 says the same."""
    if shape is None:
        return None
    made: list[int] = []
    for back in range(len(entries), 0, -1):
        entry = entries[-back]
        if isinstance(entry, int):
            made.append(entry)
        elif entry is not None and back <= len(shape) and shape[-back] == entry:
            made.append(1)
        else:
            return None
    return np.array(made, np.int64)
