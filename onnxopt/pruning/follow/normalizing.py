"""Normalizations and reductions: over the cut axis they change what stays, elsewhere they pass."""

from __future__ import annotations

from onnxopt.graph import Node
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.follow.elementwise import broadcast_axes
from onnxopt.pruning.tracker import Tracker, is_labelled


def per_channel(node: Node, t: Tracker) -> None:
    """BatchNormalization, InstanceNormalization: X [N, C, ...], parameters [C]."""
    axes = t.axes(node.inputs[0])
    for value in node.inputs[1:]:
        if not value.omitted:
            t.unite(axes[1], t.axes(value)[0])
    if node.op == "InstanceNormalization":
        for axis in axes[2:]:
            t.atoms.mark_changed(axis, f"{node.label()} normalizes over this axis")
    for output in node.outputs[:1]:
        t.set(output, axes)
    for output in node.outputs[1:]:
        if not output.omitted:
            t.set(output, [axes[1]])


def over_last_axes(node: Node, t: Tracker) -> None:
    """LayerNormalization and its kin; scale and bias line up with the last axes."""
    data = node.inputs[0]
    axes = list(t.axes(data))
    count = 2 if node.op.startswith("Skip") else 1
    if count == 2:
        axes = broadcast_axes(node.inputs[:2], node.outputs[0], t)
    start = int(node.attr("axis") if node.attr("axis") is not None else -1) % len(axes)
    for axis in axes[start:]:
        t.atoms.mark_changed(axis, f"{node.label()} normalizes over this axis")
    for value in node.inputs[count:]:
        if not value.omitted:
            own = t.axes(value)
            for a, b in zip(axes[len(axes) - len(own) :], own, strict=True):
                if not isinstance(b, str) and len(b) > 1:
                    t.unite(a, b)
    for place, output in enumerate(node.outputs):
        if not output.omitted:
            rank = t.rank(output)
            is_full = place == 0 or (count == 2 and place == 3)
            t.set(output, axes if is_full else [f"{node.label()} reduces"] * (rank or 0))


def in_groups(node: Node, t: Tracker) -> None:
    """GroupNormalization: whole groups leave, and the statistics of the others stay."""
    axes = t.axes(node.inputs[0])
    groups = int(node.attr("num_groups"))
    label = axes[1]
    if groups == 1:
        t.atoms.mark_changed(label, f"{node.label()} normalizes over this axis")
    else:
        t.join_blocks(label, groups)
    for value in node.inputs[1:]:
        own = t.axes(value)[0]
        if isinstance(own, str) or isinstance(label, str) or len(own) == len(label):
            t.unite(label, own)
        else:  # one parameter for each group, before opset 21
            t.unite(label.reshape(groups, -1)[:, 0], own)
    t.set(node.outputs[0], axes)


def adjust_groups(node: Node, cut: Cut) -> None:
    stays = cut.kept(node.inputs[0], 1)
    groups = int(node.attr("num_groups"))
    if stays is not None and groups > 1:
        node.attrs["num_groups"] = groups * int(stays.sum()) // len(stays)


def along_axis(node: Node, t: Tracker) -> None:
    """Softmax and others that work along one axis."""
    axes = t.axes(node.inputs[0])
    chosen = node.attr("axis")
    default = 1 if node.opset < 13 and node.op in ("Softmax", "LogSoftmax", "Hardmax") else -1
    start = int(default if chosen is None else chosen) % max(len(axes), 1)
    flattens = default == 1
    for axis in axes[start:] if flattens else axes[start : start + 1]:
        t.atoms.mark_changed(axis, f"{node.label()} works along this axis")
    for output in node.outputs:
        t.set(output, axes)


def over_channels(node: Node, t: Tracker) -> None:
    """LRN."""
    axes = t.axes(node.inputs[0])
    t.atoms.mark_changed(axes[1], f"{node.label()} normalizes over this axis")
    t.set(node.outputs[0], axes)


SUMS = frozenset(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"))
"""Zeros do not change these: see `follow.silence`."""


def reduce(node: Node, t: Tracker) -> None:
    """Sums and means over a cut axis change; sizes and places of others do not."""
    data = node.inputs[0]
    axes = t.axes(data)
    chosen = node.attr("axes")
    if (given := node.input(1)) is not None:
        chosen = t.integers(given)
        if chosen is None:
            t.pin_value(data, f"{node.label()} computes its axes")
            chosen = range(len(axes))
    empty = chosen is None or len(chosen) == 0
    if empty and node.attr("noop_with_empty_axes"):
        t.set(node.outputs[0], axes)
        return
    reduced = set(range(len(axes))) if empty else {int(a) % len(axes) for a in chosen}
    _reduced(node, t, axes, reduced, bool(node.attr("keepdims")))


def _reduced(node: Node, t: Tracker, axes: list[Axis], reduced: set[int], keep: bool) -> None:
    labels: list[Axis] = []
    for axis, label in enumerate(axes):
        if axis not in reduced:
            labels.append(label)
            continue
        if is_labelled(label) and node.op not in SUMS:
            t.atoms.mark_changed(label, f"{node.label()} reduces over this axis")
        if keep:
            labels.append(f"{node.label()} reduces over this axis")
    t.set(node.outputs[0], labels)


def positions(node: Node, t: Tracker) -> None:
    """ArgMax and ArgMin tell indices: these must not move."""
    axes = t.axes(node.inputs[0])
    chosen = int(node.attr("axis") or 0) % len(axes)
    t.pin(axes[chosen], f"{node.label()} tells indices along this axis")
    _reduced(node, t, axes, {chosen}, bool(node.attr("keepdims")))


FOLLOW = {
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), per_channel),
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
        + ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
        over_last_axes,
    ),
    "GroupNormalization": in_groups,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum"), along_axis),
    "LRN": over_channels,
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1")
        + ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
        reduce,
    ),
    **dict.fromkeys(("ArgMax", "ArgMin"), positions),
}

ADJUST = {"GroupNormalization": adjust_groups}
