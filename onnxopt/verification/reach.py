"""Which values of a model depend on which: on the inputs' values, on random operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx

from onnxopt.graph_protos import bodies

VALUE_BLIND = frozenset(
    ("Shape", "Size", "ConstantOfShape", "EyeLike", "SequenceLength", "OptionalHasElement")
    + ("RandomNormalLike", "RandomUniformLike", "Constant", "SequenceEmpty")
)
"""Operators whose result depends at most on the shape of what they read."""

_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
    + ("Multinomial", "Bernoulli")
)


def reached(graph: onnx.GraphProto, start: Iterable[str], *, shapes: bool = False) -> set[str]:
    """Names of all values, in bodies too, that depend on the values named in `start`.

    Args:
        shapes: count dependence through a shape as well.
    """
    found = set(start)
    _spread(graph, found, lambda node: not shapes and node.op_type in VALUE_BLIND)
    return found


def random_values(graph: onnx.GraphProto) -> set[str]:
    """Names of all values that random operators make or reach. Functions must be inlined."""
    found: set[str] = set()
    _sow(graph, found)
    if found:
        _spread(graph, found, lambda node: False)
    return found


def is_random(node: onnx.NodeProto) -> bool:
    """Two runs of it may differ: a random operator, or dropout that may be in training mode."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Dropout":
        return len(node.input) > 2 and bool(node.input[2])
    return node.op_type in _RANDOM


def _sow(graph: onnx.GraphProto, found: set[str]) -> None:
    for node in graph.node:
        if is_random(node):
            found.update(name for name in node.output if name)
        for body in bodies(node):
            _sow(body, found)


def _spread(
    graph: onnx.GraphProto, found: set[str], stops: Callable[[onnx.NodeProto], bool]
) -> None:
    """Add all that `found` reaches.

    Sweeps until nothing is new: loops carry values back, and nodes may be unsorted.
    """
    while True:
        before = len(found)
        _sweep(graph, found, stops)
        if len(found) == before:
            return


def _sweep(
    graph: onnx.GraphProto, found: set[str], stops: Callable[[onnx.NodeProto], bool]
) -> None:
    for node in graph.node:
        if stops(node):
            continue
        hit = not found.isdisjoint(node.input)
        for body in bodies(node):
            if hit:
                found.update(value.name for value in body.input)
            _sweep(body, found, stops)
            if any(value.name in found for value in body.output):
                found.update(value.name for value in body.input)
                hit = True
        if hit:
            found.update(name for name in node.output if name)
