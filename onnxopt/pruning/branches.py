"""Which nodes are there for one value alone, what they read, and what depends on it."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from onnxopt.graph import Constant, Graph, Node, Value
from onnxopt.verification.reach import VALUE_BLIND


class Flow:
    """Who reads what in a main graph. What a body reads, the node that holds it reads.

    Attributes:
        outputs: of the graph.
        place: of each node in the order in which they run.
    """

    def __init__(self, graph: Graph) -> None:
        self.nodes = list(graph.nodes)
        self.outputs = frozenset(graph.outputs)
        self.place = {node: number for number, node in enumerate(self.nodes)}
        self._readers: dict[Value, dict[Node, None]] = {}
        self._fixed: set[Value] = set()
        for node in self.nodes:
            reads = list(node.reads())
            for value in reads:
                self._readers.setdefault(value, {})[node] = None
            if not node.is_random and (_is_blind(node) or all(map(self.is_fixed, reads))):
                self._fixed.update(node.outputs)

    def readers(self, value: Value) -> Collection[Node]:
        """The nodes of the main graph that read it, each once, in order."""
        return self._readers.get(value, {}).keys()

    def is_fixed(self, value: Value) -> bool:
        """It follows from initializers, overridable or not, and from shapes alone."""
        return value.omitted or isinstance(value, Constant) or value in self._fixed

    def after(self, values: Iterable[Value], end: Node) -> set[Value]:
        """All that is computed from these values before `end`, not from their shapes alone."""
        found: set[Value] = set()
        pending = list(values)
        while pending:
            for node in self.readers(pending.pop()):
                if _is_blind(node) or self.place[node] >= self.place[end]:
                    continue
                new = [v for v in node.outputs if not v.omitted and v not in found]
                found.update(new)
                pending.extend(new)
        return found

    def only_for(self, value: Value) -> list[Node]:
        """The nodes that nothing needs but what reads `value`, in order.

        Each of their results is read by one of them, or is `value` itself. They are post-dominated
        by the node that makes `value`.
        """
        found: set[Node] = set()
        seen: set[Node] = set()
        pending: list[int] = []

        def visit(values: Iterable[Value]) -> None:
            for item in values:
                maker = item.producer
                if maker in self.place and maker not in seen:
                    seen.add(maker)
                    heapq.heappush(pending, -self.place[maker])

        visit([value])
        while pending:  # the last first: whether its readers are among them is known
            node = self.nodes[-heapq.heappop(pending)]
            if all(v is value or self._stays_in(v, found) for v in node.outputs):
                found.add(node)
                visit(node.reads())
        return sorted(found, key=self.place.__getitem__)

    def _stays_in(self, value: Value, nodes: Collection[Node]) -> bool:
        return value not in self.outputs and all(node in nodes for node in self.readers(value))

    def outside(self, nodes: Collection[Node]) -> Iterator[Value]:
        """What nodes read that they do not make, each once; constants and shapes are left out."""
        inside = set(nodes)
        reads = dict.fromkeys(value for node in nodes for value in node.reads())
        for value in reads:
            if value.producer not in inside and not self.is_fixed(value):
                yield value

    def twins(self, value: Value) -> list[Value]:
        """The value, and others that the same operator makes of the same inputs.

        Quantized models dequantize a value once for each node that reads it.
        """
        made = value.producer
        if made is None or not made.is_standard or made.is_random or made.bodies:
            return [value]
        number = next(i for i, v in enumerate(made.outputs) if v is value)
        source = next((v for v in made.inputs if not self.is_fixed(v)), None)
        others = () if source is None else self.readers(source)
        return [n.outputs[number] for n in others if n is made or _are_alike(n, made)]


def _is_blind(node: Node) -> bool:
    return node.is_standard and node.op in VALUE_BLIND and not node.is_random


def _are_alike(one: Node, other: Node) -> bool:
    return (
        (one.op, one.domain, one.attrs) == (other.op, other.domain, other.attrs)
        and len(one.inputs) == len(other.inputs)
        and len(one.outputs) == len(other.outputs)
        and all(_are_same(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))
    )


def _are_same(one: Value, other: Value) -> bool:
    if one is other:
        return True
    first, second = one.array, other.array
    if first is None or second is None or first.dtype != second.dtype:
        return False
    return np.array_equal(first, second)
