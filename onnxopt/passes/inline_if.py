"""Replace an If whose condition is known by the branch that it always takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxopt.changes import Ledger, Numerics
from onnxopt.graph import Graph, Node, Value, detach, drop_detached, link, replace_uses
from onnxopt.model import Model
from onnxopt.rewriting.apply import can_rename


@dataclass(frozen=True)
class InlineIf:
    """The nodes of the branch keep their names; values get new ones where a name is taken."""

    name: ClassVar[str] = "inline-if"
    numerics: ClassVar[Numerics] = "exact"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        while self._inline_one(model, ledger):
            pass

    def _inline_one(self, model: Model, ledger: Ledger) -> bool:
        rewritable = set(model.graphs())
        for graph in rewritable_in_order(model, rewritable):
            for position, node in enumerate(graph.nodes):
                branch = _taken_branch(node)
                if branch is None or branch not in rewritable:
                    continue
                taken = "then" if branch is node.attrs["then_branch"] else "else"
                if ledger.grant(self.name, node.label(), f"always takes the {taken} branch"):
                    graph.nodes[position : position + 1] = _inline(node, branch, graph)
                    drop_detached(graph)
                    return True
        return False


def rewritable_in_order(model: Model, rewritable: set[Graph]) -> list[Graph]:
    return [graph for graph in model.graph.walk() if graph in rewritable]


def _taken_branch(node: Node) -> Graph | None:
    if node.op != "If" or not node.is_standard or not node.inputs:
        return None
    condition = node.inputs[0].array
    if condition is None or condition.size != 1:
        return None
    branch = node.attrs.get("then_branch" if bool(condition.ravel()[0]) else "else_branch")
    return branch if isinstance(branch, Graph) and not branch.inputs else None


def _inline(node: Node, branch: Graph, graph: Graph) -> list[Node]:
    """Move the branch's nodes and initializers into `graph`; returns what stands for the If."""
    _rename_clashing(branch, graph)
    results, outputs = list(branch.outputs), list(node.outputs)
    moved = list(branch.nodes)
    for constant in branch.initializers:
        constant.graph = graph
        graph.initializers.append(constant)
    branch.nodes.clear()
    node.attrs = {k: v for k, v in node.attrs.items() if v is not branch}
    detach(node)
    link(graph, moved)
    for inner in moved:
        for body in inner.bodies:
            body.parent = graph
    for result in results:
        if result.graph is graph and result not in graph.outputs:
            result.is_graph_output = False
    for output, result in zip(outputs, results, strict=True):
        if not output.omitted:
            moved.extend(_take_over(output, result, graph))
    return moved


def _take_over(output: Value, result: Value, graph: Graph) -> list[Node]:
    """Let the readers of an output of the If read the branch's result."""
    if not output.is_graph_output:
        replace_uses(output, result)
        return []
    producer = result.producer
    if producer is not None and producer.graph is graph and can_rename(result, output):
        producer.outputs[next(i for i, v in enumerate(producer.outputs) if v is result)] = output
        replace_uses(result, output)
        return []
    identity = Node("Identity", [result], [output], opset=graph.opsets.get("", 1))
    link(graph, [identity])
    return [identity]


def _rename_clashing(branch: Graph, graph: Graph) -> None:
    """A name of the branch that another graph has as well would now clash with it."""
    others: set[str] = set()
    inside = set(branch.walk())
    for other in graph.root.walk():
        if other not in inside:
            others |= _defined(other)
    for value in _values(branch):
        if value.name in others:
            value.name = branch.fresh_name(value.name)


def _values(graph: Graph) -> list[Value]:
    made = [value for node in graph.nodes for value in node.outputs if not value.omitted]
    return [*graph.initializers, *made]


def _defined(graph: Graph) -> set[str]:
    return {value.name for value in [*graph.inputs, *_values(graph)]}
