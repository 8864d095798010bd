"""Sink and hoist Transposes to where they cancel: the layout of each value, chosen by a cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxopt.changes import Ledger, Numerics, weakest
from onnxopt.graph import Graph, Node
from onnxopt.model import Model
from onnxopt.passes.layout.permutation import Perm, identity, is_reshape, permuted
from onnxopt.passes.layout.region import Region
from onnxopt.passes.layout.rewrite import carry_out
from onnxopt.passes.layout.views import View, Views, transpose_perm
from onnxopt.shapes import infer

FIRST_OPSET_OF_RESHAPE_INPUT = 5
MOST_SWEEPS = 1000


@dataclass(frozen=True)
class CancelTransposes:
    """Move Transposes along the graph where that leaves fewer of them, or of smaller tensors.

    For each Transpose in turn, all nodes that could work on the layout before it (sinking) or
    behind it (hoisting) form a region. A minimum cut says which of them should, so that the whole
    region needs the fewest Transposes; only then is anything moved. Each step lowers their number
    or size, so the pass comes to rest.
    """

    name: ClassVar[str] = "cancel-transposes"
    numerics: ClassVar[Numerics] = "rounding"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        for _ in range(MOST_SWEEPS):
            changed = [self._settle(graph, ledger) for graph in model.graphs()]
            if not any(changed):
                return
            infer(model)
        raise AssertionError("Transposes never come to rest")

    def _settle(self, graph: Graph, ledger: Ledger) -> bool:
        """Work on one graph until it comes to rest; whether anything changed."""
        refused: set[str] = set()
        for sweep in range(MOST_SWEEPS):
            if not self._improve(graph, ledger, refused) and not self._reshape(graph, ledger):
                return sweep > 0
        raise AssertionError("Transposes never come to rest")

    def _improve(self, graph: Graph, ledger: Ledger, refused: set[str]) -> bool:
        """One sweep over the Transposes; whether anything was moved."""
        moved = False
        views: Views | None = None
        for node in [node for node in graph.nodes if node.op == "Transpose"]:
            if transpose_perm(node) is None or node.label() in refused:
                continue
            views = views or Views.of(graph)
            if self._move(views, node, ledger, refused):
                moved, views = True, None
        if moved:
            graph.sort()
        return moved

    def _move(self, views: Views, node: Node, ledger: Ledger, refused: set[str]) -> bool:
        """Sink or hoist one Transpose if that is worth it."""
        site = node.label()
        view = views.of_value[node.outputs[0]]
        stopped: dict[str, None] = {}
        for layout in (identity(len(view.perm)), view.perm):
            region = Region.around(views, view.root, layout)
            chosen = region.best()
            if not region.cost(chosen).is_below(region.cost_now()):
                stopped |= dict.fromkeys(stop.op for stop in region.stopped_at)
                continue
            numerics = weakest(switch.numerics for switch in chosen.values())
            if not ledger.grant(self.name, site, _describe(view, len(chosen)), numerics):
                refused.add(site)
                return False
            carry_out(views, region.layouts, chosen)
            return True
        ledger.decline(self.name, site, _why_not(list(stopped)))
        return False

    def _reshape(self, graph: Graph, ledger: Ledger) -> bool:
        """Turn Transposes that only move axes of size 1 into Reshapes, which copy nothing."""
        done = False
        for node in graph.nodes:
            perm = transpose_perm(node)
            target = None if perm is None else _target(node, perm)
            if target is None or node.opset < FIRST_OPSET_OF_RESHAPE_INPUT:
                continue
            what = "only axes of size 1 move: replaced by Reshape"
            if ledger.grant(self.name, node.label(), what, "exact"):
                shape = np.array(target, np.int64)
                node.op = "Reshape"
                node.attrs.clear()
                base = f"{node.outputs[0].name}_shape"
                node.inputs.append(graph.add_initializer(shape, base))
                done = True
        return done


def _describe(view: View, count: int) -> str:
    if not count:
        return "merged with the Transposes before it"
    return f"moved past {count} node{'s' if count > 1 else ''} to where Transposes cancel"


def _why_not(stopped: list[str]) -> str:
    if not stopped:
        return "no Transpose would be saved"
    return f"no Transpose would be saved: {', '.join(sorted(stopped)[:4])} cannot change layout"


def _target(node: Node, perm: Perm) -> list[int] | None:
    """The shape for a Reshape that does what this Transpose does, if one can."""
    shape = node.inputs[0].shape
    if shape is None or not is_reshape(perm, shape):
        return None
    target: list[int] = []
    for place, axis in enumerate(perm):
        size = shape[axis]
        target.append(size if isinstance(size, int) else 0 if axis == place else -1)
    return target if target.count(-1) <= 1 and 0 not in permuted(shape, perm) else None
