"""LSTM, GRU and RNN: one hidden unit is its rows in all gates and its column in R."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Node
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.tracker import Tracker

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(node: Node, t: Tracker) -> None:
    """X [S, B, I], W [D, G H, I], R [D, G H, H], B [D, 2 G H], states [D, B, H], P [D, 3 H].

    Both directions lose the same units, since their weights lie in one array.
    """
    gates = _GATES[node.op]
    x, w, r = node.inputs[0], node.inputs[1], node.inputs[2]
    data, weight, recurrence = t.axes(x), t.axes(w), t.axes(r)
    t.unite(data[2], weight[2])
    hidden = recurrence[2]
    for axis in (weight[1], recurrence[1]):
        hidden = _unite_gates(t, hidden, axis, gates)
    for place, count in ((3, 2 * gates), (7, 3)):
        if (value := node.input(place)) is not None:
            hidden = _unite_gates(t, hidden, t.axes(value)[1], count)
    for place in (5, 6):
        if (value := node.input(place)) is not None:
            hidden = t.unite(hidden, t.axes(value)[2])
    t.role(node, w, 2, "in")
    t.role(node, w, 1, "out")
    t.role(node, r, 2, "in")
    _set_outputs(node, t, data, hidden)


def _unite_gates(t: Tracker, hidden: Axis, axis: Axis, count: int) -> Axis:
    if isinstance(axis, str):
        t.pin(hidden, axis)
        return axis
    if isinstance(hidden, str):
        t.pin(axis, hidden)
        return hidden
    t.unite(np.tile(hidden, count), axis)
    return hidden


def _set_outputs(node: Node, t: Tracker, data: list[Axis], hidden: Axis) -> None:
    why = f"{node.label()} has one of it for each direction"
    batch_first = bool(node.attr("layout"))
    steps, batch = (data[1], data[0]) if batch_first else (data[0], data[1])
    full = [batch, steps, why, hidden] if batch_first else [steps, why, batch, hidden]
    last = [batch, why, hidden] if batch_first else [why, batch, hidden]
    for place, output in enumerate(node.outputs):
        if not output.omitted:
            t.set(output, full if place == 0 else last)


def adjust_hidden(node: Node, cut: Cut) -> None:
    size = cut.size(node.inputs[2], 2)
    if size is not None:
        node.attrs["hidden_size"] = size


FOLLOW = dict.fromkeys(_GATES, recurrent)

ADJUST = dict.fromkeys(_GATES, adjust_hidden)
