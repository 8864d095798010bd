"""Why the branch that a sum reads is none that could be taken out of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from onnxopt.graph import Node, Value
from onnxopt.pruning.branch_kind import is_layer
from onnxopt.pruning.branches import Flow

Shape = Callable[[Value], tuple[int, ...] | None]

KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Their operators do nothing but compute; one of another domain might keep a state."""


def unequal(entry: Value, branch: Value, add: Node, shape: Shape) -> str | None:
    shapes = [shape(value) for value in (entry, branch, add.outputs[0])]
    if None in shapes:
        return "its shapes are not known"
    if len(set(shapes)) == 1:
        return _broadcast(entry, branch)
    return f"the shapes differ: {shapes[0]} of '{entry.name}', {shapes[1]} of '{branch.name}'"


def _broadcast(one: Value, other: Value) -> str | None:
    """Of equal shapes in that run, but one may be broadcast to the other in another run."""
    pairs = zip(one.shape or (), other.shape or (), strict=False)
    if any(1 in pair and any(isinstance(d, str) for d in pair) for pair in pairs):
        shapes = f"{one.shape} of '{one.name}', {other.shape} of '{other.name}'"
        return f"the shapes may differ in other runs: {shapes}"
    return None


def elsewhere(value: Value, nodes: Sequence[Node], flow: Flow) -> str | None:
    """Who needs an inner value besides these nodes."""
    if value in flow.outputs:
        return f"'{value.name}' inside of the branch is an output of the model"
    other = next((node for node in flow.readers(value) if node not in nodes), None)
    if other is None:
        return None
    return f"'{value.name}' inside of the branch is also read by {other.label()}"


def why_not(
    branch: Value, nodes: Sequence[Node], twins: Sequence[Value], later: set[Value], flow: Flow
) -> str | None:
    """What is wrong with a branch of these nodes."""
    if branch.producer not in nodes:
        return _partly(branch, nodes, flow)
    for value in flow.outside(nodes):
        if value in later and value not in twins:
            return elsewhere(value, nodes, flow) or _partly(value, nodes, flow)
    allowed = {*twins, *(value for node in nodes for value in node.outputs)}
    for node in nodes:
        for each in _with_bodies(node):
            if each.is_random or (not each.is_standard and "Dropout" in each.op):
                return f"{each.label()} in the branch is random"
            if each.domain not in KNOWN_DOMAINS or _is_function(each):
                return f"{each.label()} in the branch is of a kind that is not known"
        captured = (value for body in node.bodies for value in body.captured())
        for value in captured:
            if not flow.is_fixed(value) and value not in allowed:
                return f"a body of {node.label()} in the branch reads '{value.name}' from outside"
    if not any(is_layer(node) for node in nodes):
        return "there is no layer in the branch, only arithmetic"
    return None


def _partly(value: Value, nodes: Sequence[Node], flow: Flow) -> str:
    """An inner value is read by the branch alone, but what else its node makes is not."""
    maker = value.producer
    assert maker is not None
    found = (elsewhere(other, nodes, flow) for other in maker.outputs if other is not value)
    return next(filter(None, found), f"{maker.label()} inside of the branch is needed elsewhere")


def _with_bodies(node: Node) -> Iterator[Node]:
    yield node
    yield from (inner for body in node.bodies for graph in body.walk() for inner in graph.nodes)


def _is_function(node: Node) -> bool:
    assert node.graph is not None
    return node.graph.root.is_function(node)
