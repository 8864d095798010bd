"""Compute once, with ONNX Runtime, what depends on constants only, where that makes no large file.

Nodes are evaluated in waves, all that are ready in one session with optimizations off: the engine
and the kernels that would compute them in the model. Each result that the rest of the model reads
is weighed: the bytes it adds against those of the nodes and initializers that it frees. Results
that free as much as they add are always taken. Of the others those below a small size are taken
all together or not at all, so that a second run, which sees only what the first one left, decides
the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from onnxopt.changes import Ledger, Numerics
from onnxopt.graph import Array, Constant, Graph, Node, Value, Variable, detach, drop_detached
from onnxopt.model import Model
from onnxopt.passes.evaluate import evaluate
from onnxopt.rewriting.apply import use_instead

NEVER_FOLDED = frozenset(("DequantizeLinear", "Constant", "Identity"))
"""DequantizeLinear of a weight is how quantized models say that it is quantized. Constant
and Identity have their own handling."""

SMALL_GROWTH_BYTES = 4096
"""A result that adds at most this may be taken although it frees less; a large mask may not."""

NODE_BYTES = 64
"""What a node takes in the file, about, without its attributes' tensors."""


@dataclass(frozen=True)
class FoldConstants:
    """
    Attributes:
        growth_bytes: what all small results together may add to the file.
        largest_growth_bytes: what one result may add.
    """

    growth_bytes: int = 65536
    largest_growth_bytes: int = SMALL_GROWTH_BYTES
    name: ClassVar[str] = "fold-constants"
    numerics: ClassVar[Numerics] = "rounding"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        for graph in model.graphs():
            self._constants_to_initializers(graph, ledger)
            if not _must_stay_node(graph):
                self._fold(graph, ledger)

    def _constants_to_initializers(self, graph: Graph, ledger: Ledger) -> None:
        for node in graph.nodes:
            if node.op != "Constant" or not node.is_standard or not node.outputs:
                continue
            output = node.outputs[0]
            array = output.array
            if array is None or output.is_graph_output or _must_stay_node(graph):
                continue
            if ledger.grant(self.name, node.label(), "becomes an initializer"):
                use_instead(output, graph.adopt_initializer(output.name, array), node)
        drop_detached(graph)

    def _fold(self, graph: Graph, ledger: Ledger) -> None:
        region = _Region(graph)
        region.grow(ledger, self.name)
        if not region.results:
            return
        chosen = self._choose(region, ledger)
        order: list[Node] = []
        for node in graph.nodes:
            if node not in chosen:
                order.append(node)
                continue
            what = "computed now: it depends on constants only"
            if ledger.grant(self.name, node.label(), what, _numerics(node)):
                order.extend(_replace(node, region.results, graph))
            else:
                order.append(node)
        graph.nodes[:] = order
        drop_detached(graph)

    def _choose(self, region: _Region, ledger: Ledger) -> set[Node]:
        """The nodes whose results become initializers, by the bytes that these add and free."""
        chosen: set[Node] = set()
        needed: set[Node] = set()
        small: list[tuple[Node, int]] = []
        for node in reversed(region.order):
            outside = any(
                v.is_graph_output or any(c not in region.nodes or c in needed for c in v.consumers)
                for v in node.outputs
            )
            if not outside:
                continue
            growth = region.growth(node)
            if growth <= 0:
                chosen.add(node)
            elif growth <= self.largest_growth_bytes:
                small.append((node, growth))
                chosen.add(node)
            else:
                needed.add(node)
                why = f"the result would add {growth:,} bytes to the file"
                ledger.decline(self.name, node.label(), why)
        total = sum(growth for _, growth in small)
        if total > self.growth_bytes:
            for node, growth in small:
                chosen.discard(node)
                why = f"with others like it the result ({growth:,} bytes more) is too large"
                ledger.decline(self.name, node.label(), why)
        return chosen


@dataclass
class _Region:
    """The nodes of a graph that depend on constants only, with their results."""

    graph: Graph
    nodes: set[Node] = field(default_factory=set)
    order: list[Node] = field(default_factory=list)
    results: dict[Value, Array] = field(default_factory=dict)

    def grow(self, ledger: Ledger, name: str) -> None:
        """Evaluate wave after wave until nothing more is ready."""
        waiting = [node for node in self.graph.nodes if _may_fold(node)]
        while True:
            ready = [node for node in waiting if self._is_ready(node)]
            if not ready:
                break
            found, refused = evaluate(ready, self.results)
            for node, why in refused.items():
                ledger.decline(name, node.label(), why)
            for node in ready:
                if node not in refused:
                    self.nodes.add(node)
            self.results.update(found)
            done = set(ready)
            waiting = [node for node in waiting if node not in done]
        self.order = [node for node in self.graph.nodes if node in self.nodes]

    def _is_ready(self, node: Node) -> bool:
        return all(
            value.omitted or value in self.results or value.array is not None
            for value in node.inputs
        )

    def growth(self, node: Node) -> int:
        """Bytes that the file grows by if the results of `node` become initializers."""
        added = sum(
            self.results[value].nbytes + len(value.name) + 16
            for value in node.outputs
            if not value.omitted and value.is_used
        )
        cone = self._cone(node)
        freed = sum(NODE_BYTES + _attribute_bytes(member) for member in cone)
        constants = {v for member in cone for v in member.inputs if isinstance(v, Constant)}
        for constant in constants:
            protected = constant.overridable or constant.is_graph_output
            if not protected and all(c in cone for c in constant.consumers):
                freed += constant.size_bytes + len(constant.name) + 16
        return added - freed

    def _cone(self, node: Node) -> set[Node]:
        """`node` and the nodes of the region that only it needs."""
        cone = {node}
        stack = [node]
        while stack:
            for value in stack.pop().inputs:
                producer = value.producer
                if producer is None or producer in cone or producer not in self.nodes:
                    continue
                if all(not v.is_graph_output for v in producer.outputs) and all(
                    c in cone for v in producer.outputs for c in v.consumers
                ):
                    cone.add(producer)
                    stack.append(producer)
        return cone


def _numerics(node: Node) -> Numerics:
    """ONNX Runtime computes chains of float16 operators in float32 and rounds only at their end."""
    kinds = {value.dtype for value in (*node.inputs, *node.outputs) if not value.omitted}
    half = any(kind is not None and kind.kind in "fV" and kind.itemsize == 2 for kind in kinds)
    return "rounding" if half else "exact"


def _must_stay_node(graph: Graph) -> bool:
    """Before IR version 4 an initializer must be a graph input, which a body cannot add."""
    return graph.parent is not None and 0 < graph.root.ir_version < 4


def _attribute_bytes(node: Node) -> int:
    return node.source.ByteSize() if node.source is not None else 0


def _may_fold(node: Node) -> bool:
    """Standard, deterministic, all outputs plain tensors; not what says a weight is quantized."""
    if not node.is_standard or node.is_random or node.bodies or node.op in NEVER_FOLDED:
        return False
    outputs = [value for value in node.outputs if not value.omitted]
    return bool(outputs) and all(
        isinstance(v, Variable) and v.dtype is not None and v.dtype.kind in "fiubcSUO"
        for v in outputs
    )


def _replace(node: Node, results: dict[Value, Array], graph: Graph) -> list[Node]:
    """Put initializers in the place of what the node makes."""
    used = [value for value in node.outputs if not value.omitted and value.is_used]
    if len(used) == 1 and len(node.outputs) == 1:
        return use_instead(used[0], _initializer(used[0], results, graph), node)
    new: list[Node] = []
    outputs = [(value, _initializer(value, results, graph)) for value in used]
    opset = graph.opsets.get("", 1)
    detach(node)
    for value, constant in outputs:
        stand_in = Node("Identity", [constant], [value], opset=opset)
        stand_in.graph = graph
        new.extend(use_instead(value, constant, stand_in))
    return new


def _initializer(value: Value, results: dict[Value, Array], graph: Graph) -> Constant:
    array = np.ascontiguousarray(results[value]) if results[value].ndim else results[value]
    if value.is_graph_output:
        return graph.add_initializer(array, f"{value.name}_value")
    return graph.adopt_initializer(value.name, array)
