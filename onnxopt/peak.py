"""Memory of activations: of all of them, and of those alive at once as the nodes run in order."""

from __future__ import annotations

from math import prod

from onnxopt.graph import Graph, Node, Value, Variable
from onnxopt.macs import assumed_sizes

VIEWS = frozenset(("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"))
"""Operators whose result shares the memory of their first input."""


def value_bytes(value: Value) -> int:
    """Memory of an activation, symbolic dimensions counted as 1; 0 if nothing is known of it."""
    sizes = assumed_sizes(value)
    if sizes is None or value.dtype is None or not isinstance(value, Variable):
        return 0
    return prod(sizes) * int(value.dtype.itemsize)


def activations(graph: Graph) -> list[Value]:
    """The values of a graph that need memory of their own while it runs; bodies not included."""
    made = [v for n in graph.nodes if not _is_free(n) for v in n.outputs if not v.omitted]
    return [*graph.inputs, *made]


def _is_free(node: Node) -> bool:
    return node.op == "Constant" or (node.op in VIEWS and isinstance(node.inputs[0], Variable))


def peak_bytes(graph: Graph) -> int:
    """Most bytes alive at once: each from its making to its last use, outputs to the end.

    A body counts with its own peak while its node runs.
    """
    buffers = _buffers(graph)
    last = _last_uses(graph, buffers)
    dying: dict[int, list[Value]] = {}
    for value, index in last.items():
        dying.setdefault(index, []).append(value)
    live = sum(value_bytes(value) for value in graph.inputs) if graph.parent is None else 0
    peak = live
    for index, node in enumerate(graph.nodes):
        if not _is_free(node):
            live += sum(value_bytes(value) for value in node.outputs if not value.omitted)
        inner = max((peak_bytes(body) for body in node.bodies), default=0)
        peak = max(peak, live + inner)
        live -= sum(value_bytes(value) for value in dying.get(index, ()))
    return peak


def _buffers(graph: Graph) -> dict[Value, Value]:
    """For each value of the graph the one whose memory it uses."""
    buffers: dict[Value, Value] = {value: value for value in activations(graph)}
    for node in graph.nodes:
        if node.op in VIEWS and node.inputs[0] in buffers:
            buffers[node.outputs[0]] = buffers[node.inputs[0]]
    return buffers


def _last_uses(graph: Graph, buffers: dict[Value, Value]) -> dict[Value, int]:
    """The node at which each buffer is used last; buffers that are outputs never die."""
    last: dict[Value, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in (*node.reads(), *node.outputs):
            if value in buffers:
                last[buffers[value]] = index
    for value in graph.outputs:
        last.pop(buffers.get(value, value), None)
    return last
