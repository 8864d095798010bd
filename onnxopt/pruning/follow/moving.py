"""Operators that keep the axes of a value: Transpose, Concat, pooling, resizing."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Node, Value
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.follow.elementwise import unknown
from onnxopt.pruning.follow.sizes import adjust_target, check_target
from onnxopt.pruning.tracker import Tracker, one_of


def transpose(node: Node, t: Tracker) -> None:
    axes = t.axes(node.inputs[0])
    perm = node.attr("perm") or range(len(axes))[::-1]
    t.set(node.outputs[0], [axes[int(p)] for p in perm])


def concat(node: Node, t: Tracker) -> None:
    concat_axes(node, list(node.inputs), t)


def concat_axes(node: Node, values: list[Value], t: Tracker) -> None:
    """The labels of the output, which joins these values."""
    parts = [t.axes(value) for value in values]
    rank = len(parts[0])
    along = int(node.attr("axis")) % max(rank, 1)
    labels: list[Axis] = []
    output = node.outputs[0]
    if any(t.shape(value) is None for value in values):
        t.set(output, unknown(values, output, t))
        return
    for axis in range(rank):
        if axis != along:
            labels.append(one_of([p[axis] for p in parts], t))
        elif all(isinstance(p[axis], str) for p in parts):
            labels.append(parts[0][axis])
        else:
            sizes = [(t.shape(value) or (0,) * rank)[axis] for value in values]
            joined = [t.as_atoms(p[axis], n) for p, n in zip(parts, sizes, strict=True)]
            labels.append(np.concatenate(joined))
    t.set(node.outputs[0], labels)


def pooling(node: Node, t: Tracker) -> None:
    """[N, C, *spatial]: channels stay, the rest moves."""
    axes = t.axes(node.inputs[0])
    last = bool(node.attr("channels_last"))
    channels = len(axes) - 1 if last else 1
    why = f"{node.label()} moves over this axis"
    made = [a if i in (0, channels) else why for i, a in enumerate(axes)]
    for axis in axes:
        if not any(axis is kept for kept in made):
            t.pin(axis, why)
    if node.output(1) is not None:
        t.pin(axes[channels], f"{node.label()} tells indices that count all channels")
    for output in node.outputs:
        if not output.omitted:
            t.set(output, made)


def resize(node: Node, t: Tracker) -> None:
    """Axes that keep their size pass."""
    data, output = node.inputs[0], node.outputs[0]
    old, new = t.shape(data), t.shape(output)
    if old is None or new is None:
        t.set(output, unknown([data], output, t))
        return
    why = f"{node.label()} moves over this axis"
    crops = node.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    labels: list[Axis] = []
    for axis, label in enumerate(t.axes(data)):
        moves = old[axis] != new[axis] or crops
        labels.append(why if moves else label)
        if moves:
            t.pin(label, why)
    t.set(output, labels)
    if node.op == "Resize" and node.input(3) is not None:
        check_target(node, 3, t, _resized(node, len(labels)))
        for axis, _ in _resized(node, len(labels)):
            if node.attr("keep_aspect_ratio_policy") not in (None, "stretch"):
                t.pin(labels[axis], f"{node.label()} keeps the ratio of its axes")


def _resized(node: Node, rank: int) -> list[tuple[int, int]]:
    axes = [int(a) % rank for a in node.attr("axes") or range(rank)]
    return [(axis, place) for place, axis in enumerate(axes)]


def adjust_resize(node: Node, cut: Cut) -> None:
    if node.op == "Resize" and node.input(3) is not None:
        adjust_target(node, 3, cut, _resized(node, len(cut.tracker.axes(node.inputs[0]))))


FOLLOW = {
    "Transpose": transpose,
    "Concat": concat,
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
        + ("QLinearAveragePool", "QLinearGlobalAveragePool", "Crop", "ImageScaler"),
        pooling,
    ),
    **dict.fromkeys(("Resize", "Upsample"), resize),
}

ADJUST = {"Resize": adjust_resize}
