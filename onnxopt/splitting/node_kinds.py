"""What nodes of a model are to cuts: constant, needed, random; what they make and hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx

from onnxopt.cost import constant_bytes
from onnxopt.graph import Constant, Graph, Node, Value
from onnxopt.graph_protos import bodies
from onnxopt.verification.reach import is_random


def made(node: Node) -> list[Value]:
    return [value for value in node.outputs if not value.omitted]


def inside(node: Node) -> Iterator[Node]:
    """It, and all nodes in its bodies."""
    yield node
    for body in node.bodies:
        yield from (inner for graph in body.walk() for inner in graph.nodes)


def stored_bytes(node: Node) -> int:
    """Bytes of the tensor that a Constant node holds."""
    tensor = node.attrs.get("value")
    if node.op != "Constant" or not isinstance(tensor, onnx.TensorProto):
        return 0
    return constant_bytes(Constant("", tensor))


def constant_values(graph: Graph, functions: Iterable[onnx.FunctionProto]) -> frozenset[Value]:
    """What nodes of the main graph make of constants alone, the same in each run."""
    found: set[Value] = set()
    for node in graph.nodes:
        known = (isinstance(value, Constant) or value in found for value in node.reads())
        if all(known) and not draws(node, functions):
            found.update(made(node))
    return frozenset(found)


def needed_nodes(graph: Graph) -> set[Node]:
    """The nodes that an output needs."""
    live: set[Node] = set()
    waiting = [value.producer for value in graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in live:
            live.add(node)
            waiting += [value.producer for value in node.reads()]
    return live


def draws(node: Node, functions: Iterable[onnx.FunctionProto]) -> bool:
    """Two runs of it may differ."""
    if any(inner.is_random for inner in inside(node)):
        return True
    local = {(f.domain, f.name) for f in functions if _draws_inside(f.node)}
    return bool(local) and any((inner.domain, inner.op) in local for inner in inside(node))


def _draws_inside(nodes: Sequence[onnx.NodeProto]) -> bool:
    return any(map(is_random, nodes)) or any(_draws_inside(body.node) for body in bodies(*nodes))
