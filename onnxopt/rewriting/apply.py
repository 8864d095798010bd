"""The one file that edits the graph for rules: puts a rule's description in place of its match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from onnxopt.graph import (
    Constant,
    Graph,
    Node,
    Value,
    Variable,
    detach,
    link,
    replace_uses,
)
from onnxopt.rewriting.match import Match
from onnxopt.rewriting.rule import Op, Operand


def describe(result: Value | np.ndarray | Op) -> str:
    """What became of a match, for the report."""
    if isinstance(result, Value):
        return f"replaced by '{result.name}'"
    if isinstance(result, Op):
        return f"replaced by {result.op_type}"
    return "replaced by a constant"


def keeps_signature(match: Match, result: Value | np.ndarray | Op) -> bool:
    """The graph output can take over: only an Identity of what it already reads cannot change."""
    output = match.root.outputs[0]
    if not output.is_graph_output or not isinstance(result, Value):
        return True
    return match.root.op != "Identity" or can_rename(result, output)


def can_rename(value: Value, output: Value) -> bool:
    """The node that makes `value` can make the graph output `output` instead."""
    return (
        value.producer is not None
        and value.graph is output.graph
        and not value.is_graph_output
        and isinstance(value, Variable)
    )


def reads_inside(match: Match, result: Value | np.ndarray | Op) -> bool:
    """The description still needs what a node inside the match makes: its work would stay."""
    inner = {value for node in match.nodes[1:] for value in node.outputs}
    return isinstance(result, Op) and not inner.isdisjoint(_values(result))


def put_in_place(match: Match, result: Value | np.ndarray | Op) -> list[Node]:
    """Let `result` make what the match's root made, and detach what is no longer used.

    Returns:
        the new nodes, in order, to stand where the root stood.
    """
    root, graph = match.root, match.root.graph
    assert graph is not None
    output = root.outputs[0]
    if isinstance(result, Value):
        new = use_instead(output, result, root)
    elif isinstance(result, Op):
        new = _make(match, graph, result, output)
    else:
        new = _use_constant(output, np.asarray(result), root, graph)
    _detach_unused(match.nodes)
    return new


def use_instead(output: Value, value: Value, root: Node) -> list[Node]:
    """Let every reader of `output`, which `root` makes, read `value`; detaches `root`.

    A graph output keeps its name: the node that makes `value` makes it under that name, or, where
    it cannot (an input, an initializer, another output, a value from outside), an Identity does.

    Returns:
        that Identity, or nothing.
    """
    graph = root.graph
    assert graph is not None
    if not output.is_graph_output:
        replace_uses(output, value)
        detach(root)
        return []
    name, opset = root.name, graph.opsets.get("", 1)
    detach(root)
    if can_rename(value, output):
        producer = value.producer
        assert producer is not None
        index = next(i for i, v in enumerate(producer.outputs) if v is value)
        producer.outputs[index] = output
        replace_uses(value, output)
        return []
    identity = Node("Identity", [value], [output], name=name, opset=opset)
    link(graph, [identity])
    return [identity]


def _use_constant(output: Value, array: np.ndarray, root: Node, graph: Graph) -> list[Node]:
    if output.is_graph_output:
        constant: Constant = graph.add_initializer(array, f"{output.name}_value")
    else:
        constant = graph.adopt_initializer(output.name, array)
    return use_instead(output, constant, root)


def _detach_unused(nodes: list[Node]) -> None:
    for node in nodes:
        if node.graph is not None and not any(value.is_used for value in node.outputs):
            detach(node)


@dataclass
class _Builder:
    """Makes the nodes of a description; lends them names of the nodes that go."""

    graph: Graph
    base: str
    lenders: list[Node]
    leaving: frozenset[Node]
    kept: frozenset[Value]
    made: list[Node] = field(default_factory=list)

    def build(self, wanted: Op, output: Value | None) -> Value:
        inputs = [self._operand(item, wanted, i) for i, item in enumerate(wanted.inputs)]
        lender = self._lender(wanted)
        if output is None:
            output = self.graph.new_value(f"{self.base}_{wanted.op_type}")
        node = Node(
            wanted.op_type,
            inputs,
            [output],
            wanted.attrs,
            name=lender.name if lender is not None else "",
            domain=wanted.domain,
            opset=self.graph.opsets.get(wanted.domain, 1),
            source=lender.source if lender is not None and lender.op == wanted.op_type else None,
        )
        self.made.append(node)
        return output

    def _operand(self, item: Operand, wanted: Op, index: int) -> Value:
        if item is None:
            return Variable("")
        if isinstance(item, Value):
            return item
        if isinstance(item, Op):
            return self.build(item, None)
        old = self._predecessor(wanted, index)
        if old is None:
            return self.graph.add_initializer(item, f"{self.base}_{wanted.op_type}_{index}")
        if self._is_free(old):
            return self.graph.replace_initializer(old, item)
        return self.graph.add_initializer(item, old.name)

    def _predecessor(self, wanted: Op, index: int) -> Constant | None:
        """The initializer in the same place of a node like it: a new one takes over its name."""
        for node in self.lenders:
            old = node.input(index) if node.op == wanted.op_type else None
            if isinstance(old, Constant):
                return old
        return None

    def _is_free(self, old: Constant) -> bool:
        return (
            old.graph is self.graph
            and not old.overridable
            and not old.is_graph_output
            and old.name not in self.graph.root.protected
            and old in self.graph.initializers
            and old not in self.kept
            and all(consumer in self.leaving for consumer in old.consumers)
        )

    def _lender(self, wanted: Op) -> Node | None:
        same = [node for node in self.lenders if node.op == wanted.op_type]
        found = next(iter(same or self.lenders), None)
        if found is not None:
            self.lenders.remove(found)
        return found


def _make(match: Match, graph: Graph, result: Op, output: Value) -> list[Node]:
    kept = frozenset(_values(result))
    leaving = [node for node in _leaving(match) if kept.isdisjoint(node.outputs)]
    builder = _Builder(graph, output.name, leaving, frozenset(leaving), kept)
    root = match.root
    # The root gives its output to the new node; its inputs stay until the description is built.
    index = next(i for i, v in enumerate(root.outputs) if v is output)
    root.outputs[index] = Variable("")
    builder.build(result, output)
    detach(root)
    link(graph, builder.made)
    return builder.made


def _values(wanted: Op) -> Iterator[Value]:
    """The values of the graph that a description goes on reading."""
    for item in wanted.inputs:
        if isinstance(item, Value):
            yield item
        elif isinstance(item, Op):
            yield from _values(item)


def _leaving(match: Match) -> Iterator[Node]:
    """The nodes that go with this match: the root, and those read from nowhere else."""
    inside = set(match.nodes)
    for node in match.nodes:
        used = any(
            v.is_graph_output or any(c not in inside for c in v.consumers) for v in node.outputs
        )
        if node is match.root or not used:
            yield node
