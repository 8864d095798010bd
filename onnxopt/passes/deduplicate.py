"""Compute once what is computed twice, and keep equal initializers once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxopt.changes import Ledger, Numerics
from onnxopt.graph import Constant, Graph, Node, Value, detach, drop_detached, replace_uses
from onnxopt.model import Model
from onnxopt.rewriting.apply import use_instead

Table = dict[Hashable, Node]
CHEAP = frozenset(("Identity", "Constant"))
"""Where both results are graph outputs, one stays as an Identity: no gain over these."""


@dataclass(frozen=True)
class Deduplicate:
    """Two nodes are the same if operator, attributes and inputs are, and nothing in them is random.

    A body may use what the graphs around it have computed before.
    """

    name: ClassVar[str] = "deduplicate"
    numerics: ClassVar[Numerics] = "exact"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        rewritable = set(model.graphs())
        self._initializers(model.graph, {}, rewritable, ledger)
        self._nodes(model.graph, {}, rewritable, ledger)

    def _initializers(
        self,
        graph: Graph,
        outer: dict[Hashable, Constant],
        rewritable: set[Graph],
        ledger: Ledger,
    ) -> None:
        known = dict(outer)
        kept: list[Constant] = []
        for constant in graph.initializers:
            key = _content(constant)
            first = known.get(key) if key is not None else None
            site = f"initializer '{constant.name}'"
            if first is None or not ledger.grant(self.name, site, f"equal to '{first.name}'"):
                kept.append(constant)
                if key is not None:
                    known.setdefault(key, constant)
                continue
            replace_uses(constant, first)
        graph.initializers[:] = kept
        for node in graph.nodes:
            for body in node.bodies:
                if body in rewritable:
                    self._initializers(body, known, rewritable, ledger)

    def _nodes(self, graph: Graph, outer: Table, rewritable: set[Graph], ledger: Ledger) -> None:
        known = dict(outer)
        order: list[Node] = []
        for node in graph.nodes:
            for body in node.bodies:
                if body in rewritable:
                    self._nodes(body, known, rewritable, ledger)
            key = _signature(node)
            first = known.setdefault(key, node) if key is not None else node
            if first is node or not _can_merge(node, first):
                order.append(node)
            elif ledger.grant(self.name, node.label(), f"the same as {first.label()}"):
                order.extend(_merge(node, first))
            else:
                order.append(node)
        graph.nodes[:] = order
        drop_detached(graph)


def _content(constant: Constant) -> Hashable | None:
    """Equal for equal data; None where the initializer must stay itself."""
    if (
        constant.is_sparse
        or constant.overridable
        or constant.is_graph_output
        or constant.graph is None
        or constant.name in constant.graph.root.protected
    ):
        return None
    data = constant.data
    if data.dtype == object:
        return constant.elem_type, constant.dims, tuple(data.ravel().tolist())
    raw = data.tobytes()
    digest = raw if len(raw) <= 64 else hashlib.sha256(raw).digest()
    return constant.elem_type, constant.dims, digest


def _signature(node: Node) -> Hashable | None:
    """Equal for nodes that compute the same; None for those that are never merged."""
    known = node.is_standard or node.domain in ("ai.onnx.ml", "com.microsoft")
    if not known or node.is_random or node.bodies:
        return None
    inputs = tuple(None if value.omitted else value for value in node.inputs)
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    outputs = tuple(not value.omitted for value in node.outputs)
    attrs = tuple(sorted((name, _frozen(value)) for name, value in node.attrs.items()))
    return node.domain, node.op, inputs, outputs, attrs


def _frozen(value: Any) -> Hashable:
    if hasattr(value, "SerializeToString"):
        return "message", value.SerializeToString(deterministic=True)
    if isinstance(value, list):
        return "list", tuple(_frozen(item) for item in value)
    return type(value).__name__, repr(value)


def _can_merge(node: Node, first: Node) -> bool:
    outputs = [value for value in node.outputs if value.is_graph_output]
    if not outputs:
        return True
    if len(node.outputs) > 1 or node.op in CHEAP:
        return False
    return True


def _merge(node: Node, first: Node) -> list[Node]:
    if len(node.outputs) == 1:
        return use_instead(node.outputs[0], first.outputs[0], node)
    pairs: list[tuple[Value, Value]] = list(zip(node.outputs, first.outputs, strict=True))
    for old, new in pairs:
        if not old.omitted:
            replace_uses(old, new)
    detach(node)
    return []
