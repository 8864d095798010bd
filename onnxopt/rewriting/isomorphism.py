"""Whether two models are the same but for the names of inner values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxopt.graph import Array, Graph, Node, Value, schema_defaults
from onnxopt.verification.comparison import wide

CLOSE = 1e-5
"""Relative difference of constants that were computed and constants that a person wrote down."""


def difference(a: Graph, b: Graph) -> str:
    """How the structure of two graphs differs; empty if it does not.

    Operators, attributes (defaults filled in), wiring, and the values of constants.
    """
    if [v.name for v in a.outputs] != [v.name for v in b.outputs]:
        return "they have other outputs"
    if len(_working(a)) != len(_working(b)):
        return f"{_outline(a)} instead of {_outline(b)}"
    seen: dict[Value, Value] = {}
    for x, y in zip(a.outputs, b.outputs, strict=True):
        if found := _values(x, y, seen):
            return found
    return ""


def _working(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op != "Constant"]


def _outline(graph: Graph) -> str:
    return ", ".join(node.op for node in _working(graph)) or "nothing"


def _values(x: Value, y: Value, seen: dict[Value, Value]) -> str:
    if x in seen:
        return "" if seen[x] is y else f"'{x.name}' is read where '{y.name}' should be"
    seen[x] = y
    if x.omitted or y.omitted:
        return "" if x.omitted and y.omitted else f"an input '{x.name or y.name}' is omitted"
    if x.array is not None or y.array is not None:
        return _arrays(x.array, y.array, x.name)
    if x.producer is None or y.producer is None:
        return "" if x.name == y.name else f"'{x.name}' is read where '{y.name}' should be"
    return _nodes(x.producer, y.producer, x, y, seen)


def _nodes(a: Node, b: Node, x: Value, y: Value, seen: dict[Value, Value]) -> str:
    if (a.op, a.domain) != (b.op, b.domain):
        return f"{a.op} instead of {b.op} makes '{x.name}'"
    if a.outputs.index(x) != b.outputs.index(y) or len(a.inputs) != len(b.inputs):
        return f"{a.op} making '{x.name}' has other inputs or outputs"
    for name in sorted({**_attributes(a), **_attributes(b)}):
        ours, theirs = _attributes(a).get(name), _attributes(b).get(name)
        if ours != theirs and not _close(ours, theirs):
            return f"{a.op} making '{x.name}' has {name} = {ours} instead of {theirs}"
    for one, other in zip(a.inputs, b.inputs, strict=True):
        if found := _values(one, other, seen):
            return found
    return ""


def _close(a: Any, b: Any) -> bool:
    return isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=CLOSE)


def _attributes(node: Node) -> dict[str, Any]:
    return {**schema_defaults(node.op, node.domain, node.opset), **node.attrs}


def _arrays(a: Array | None, b: Array | None, name: str) -> str:
    if a is None or b is None:
        return f"'{name}' is a constant in one of them only"
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"'{name}' is {a.dtype}{list(a.shape)} instead of {b.dtype}{list(b.shape)}"
    if a.dtype.kind in "OSU":
        return "" if (a == b).all() else f"'{name}' is {a.tolist()} instead of {b.tolist()}"
    if not np.allclose(wide(a), wide(b), rtol=CLOSE, atol=CLOSE, equal_nan=True):
        return f"'{name}' is {a.tolist()} instead of {b.tolist()}"
    return ""
