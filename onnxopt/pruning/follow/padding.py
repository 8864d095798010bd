"""Pad on the axes that could be cut, which adds or crops channels."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Array, Node
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.follow.sizes import Entry, entries, set_in_input
from onnxopt.pruning.tracker import Tracker


def pad(node: Node, t: Tracker) -> None:
    """What is added on a cut axis are channels like others, without weights."""
    axes = list(t.axes(node.inputs[0]))
    amounts = _amounts(node, t)
    mode = node.attr("mode") or "constant"
    for axis, label in enumerate(axes):
        if isinstance(label, str):
            continue
        before, after = (None, None) if amounts is None else amounts.get(axis, (0, 0, 0))[:2]
        if not isinstance(before, int) or not isinstance(after, int):
            axes[axis] = f"{node.label()} pads by amounts that are computed"
            t.pin(label, str(axes[axis]))
            continue
        if (before or after) and mode != "constant":
            t.pin(label, f"{node.label()} repeats what is on this axis")
        label = label[max(-before, 0) : len(label) - max(-after, 0)]
        added = [t.atoms.fresh(max(n, 0)) for n in (before, after)]
        axes[axis] = np.concatenate([added[0], label, added[1]])
    t.set(node.outputs[0], axes)


def _amounts(node: Node, t: Tracker) -> dict[int, tuple[Entry, Entry, int]] | None:
    """For each axis what is added before and after it, and its place; None if not known."""
    rank = len(t.axes(node.inputs[0]))
    axes = list(range(rank))
    pads: list[Entry] | None
    if node.opset < 11:
        pads = [int(n) for n in node.attr("pads") or node.attr("paddings")]
    else:
        pads = entries(node.inputs[1], t)
        if (given := node.input(3)) is not None:
            if given.array is None:
                return None
            axes = [int(a) % rank for a in given.array]
    if pads is None or len(pads) != 2 * len(axes):
        return None
    half = len(axes)
    return {axis: (pads[i], pads[i + half], i) for i, axis in enumerate(axes)}


def adjust_pad(node: Node, cut: Cut) -> None:
    t = cut.tracker
    amounts = _amounts(node, t) or {}
    half = len(amounts)
    numbers: dict[int, tuple[int, int]] = {}
    for axis, (before, after, place) in amounts.items():
        for old, index, last in ((before, place, False), (after, place + half, True)):
            if isinstance(old, int) and old != 0:
                value = node.outputs[0] if old > 0 else node.inputs[0]
                numbers[index] = (old, _left(cut.kept(value, axis), old, last))
    if node.opset >= 11:
        set_in_input(node, 1, numbers, 2 * half)
        return
    name = "pads" if "pads" in node.attrs else "paddings"
    made = list(node.attr(name))
    for index, (_, number) in numbers.items():
        made[index] = number
    node.attrs[name] = made


def _left(stays: Array | None, amount: int, last: bool) -> int:
    """What is left of an amount that is added, or cropped if it is negative."""
    if stays is None:
        return amount
    count = abs(amount)
    kept = int((stays[len(stays) - count :] if last else stays[:count]).sum())
    return kept if amount > 0 else -kept


FOLLOW = {"Pad": pad}

ADJUST = {"Pad": adjust_pad}
