"""If, Loop and Scan: what a body reads from outside keeps its atoms; what is carried stays."""

from __future__ import annotations

from collections.abc import Callable

from onnxopt.graph import Node
from onnxopt.pruning.tracker import Tracker, one_of

Follow = Callable[[Node, Tracker], None]


def follow_bodies(node: Node, t: Tracker, follow: Follow) -> None:
    for body in node.bodies:
        for inner in body.nodes:
            follow(inner, t)
    if node.op == "If":
        _join_branches(node, t)
        return
    why = f"{node.label()} carries it"
    for value in (*node.inputs, *(v for body in node.bodies for v in body.outputs)):
        if not value.omitted:
            t.pin_value(value, why)
    for output in node.outputs:
        if not output.omitted:
            t.set(output, [why] * (t.rank(output) or 0))


def _join_branches(node: Node, t: Tracker) -> None:
    for place, output in enumerate(node.outputs):
        branches = [t.axes(body.outputs[place]) for body in node.bodies]
        rank = t.rank(output)
        if any(len(axes) != (rank or 0) for axes in branches):
            why = f"{node.label()} has branches of different shapes"
            for body in node.bodies:
                t.pin_value(body.outputs[place], why)
            t.set(output, [why] * (rank or 0))
            continue
        t.set(output, [one_of([axes[i] for axes in branches], t) for i in range(rank or 0)])
