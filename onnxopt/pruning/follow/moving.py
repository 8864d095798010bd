"""Operators that move, pick or join parts of a value along its axes."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Array, Node
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut, replace_input
from onnxopt.pruning.follow.elementwise import unknown
from onnxopt.pruning.tracker import Tracker, is_labelled, one_of


def transpose(node: Node, t: Tracker) -> None:
    axes = t.axes(node.inputs[0])
    perm = node.attr("perm") or range(len(axes))[::-1]
    t.set(node.outputs[0], [axes[int(p)] for p in perm])


def concat(node: Node, t: Tracker) -> None:
    parts = [t.axes(value) for value in node.inputs]
    rank = len(parts[0])
    along = int(node.attr("axis")) % max(rank, 1)
    labels: list[Axis] = []
    for axis in range(rank):
        if axis != along:
            labels.append(one_of([p[axis] for p in parts], t))
        elif all(isinstance(p[axis], str) for p in parts):
            labels.append(parts[0][axis])
        else:
            sizes = [(t.shape(value) or (0,) * rank)[axis] for value in node.inputs]
            joined = [t.as_atoms(p[axis], n) for p, n in zip(parts, sizes, strict=True)]
            labels.append(np.concatenate(joined))
    t.set(node.outputs[0], labels)


def split(node: Node, t: Tracker) -> None:
    data = node.inputs[0]
    axes = t.axes(data)
    along = int(node.attr("axis") or 0) % max(len(axes), 1)
    start = 0
    for output in node.outputs:
        shape = t.shape(output)
        if shape is None:
            t.set(output, unknown([data], output, t))
            continue
        label = axes[along]
        part = label if isinstance(label, str) else label[start : start + shape[along]]
        start += shape[along]
        t.set(output, [*axes[:along], part, *axes[along + 1 :]])


def adjust_split(node: Node, cut: Cut) -> None:
    """State the size of each part."""
    t = cut.tracker
    rank = len(t.axes(node.inputs[0]))
    along = int(node.attr("axis") or 0) % rank
    if cut.kept(node.inputs[0], along) is None:
        return
    sizes = []
    for output in node.outputs:
        size = cut.size(output, along)
        sizes.append((t.shape(output) or ())[along] if size is None else size)
    node.attrs.pop("num_outputs", None)
    if node.opset < 13:
        node.attrs["split"] = sizes
        return
    assert node.graph is not None
    made = node.graph.add_initializer(np.array(sizes, np.int64), "split_sizes")
    if len(node.inputs) > 1:
        node.inputs[1] = made
    else:
        node.inputs.append(made)


def _slices(node: Node, t: Tracker) -> dict[int, slice] | None:
    """What Slice takes of each axis; None if that depends on data."""
    rank = len(t.axes(node.inputs[0]))
    if node.opset < 10:
        starts, ends = np.array(node.attr("starts")), np.array(node.attr("ends"))
        axes = list(node.attr("axes") or range(len(starts)))
        steps = np.ones(len(starts), np.int64)
    else:
        found = [None if v.omitted else t.integers(v) for v in node.inputs[1:]]
        if any(a is None and not v.omitted for a, v in zip(found, node.inputs[1:], strict=True)):
            return None
        starts, ends = found[0], found[1]
        if starts is None or ends is None:
            return None
        given_axes = found[2] if len(found) > 2 else None
        given_steps = found[3] if len(found) > 3 else None
        listed = range(len(starts)) if given_axes is None else given_axes
        axes = [int(a) for a in listed]
        steps = np.ones(len(starts), np.int64) if given_steps is None else given_steps
    return {
        int(a) % rank: _slice(int(b), int(e), int(s))
        for a, b, e, s in zip(axes, starts, ends, steps, strict=True)
    }


def _slice(start: int, end: int, step: int) -> slice:
    """As ONNX means it: far negative ends with a negative step go to the very start."""
    return slice(start, None if step < 0 and end < -(2**30) else end, step)


def slice_(node: Node, t: Tracker) -> None:
    data = node.inputs[0]
    axes = list(t.axes(data))
    taken = _slices(node, t)
    for axis, label in enumerate(axes):
        if taken is None:
            axes[axis] = f"{node.label()} takes a part that depends on data"
        elif axis not in taken or isinstance(label, str):
            continue
        elif taken[axis].step != 1:
            axes[axis] = f"{node.label()} skips along this axis"
        else:
            axes[axis] = label[taken[axis]]
            continue
        t.pin(label, str(axes[axis]))
    t.set(node.outputs[0], axes)


def adjust_slice(node: Node, cut: Cut) -> None:
    """New bounds on a cut axis: what stays of a run of indices is a run of indices."""
    data = node.inputs[0]
    for axis, part in (_slices(node, cut.tracker) or {}).items():
        stays = cut.kept(data, axis)
        if stays is not None:
            first, last, _ = part.indices(len(stays))
            start = int(stays[:first].sum())
            _set_bounds(node, axis, start, start + int(stays[first:last].sum()), cut.tracker)


def _set_bounds(node: Node, axis: int, start: int, end: int, t: Tracker) -> None:
    rank = len(t.axes(node.inputs[0]))
    if node.opset < 10:
        axes = [int(a) % rank for a in node.attr("axes") or range(len(node.attr("starts")))]
        for name, number in (("starts", start), ("ends", end)):
            numbers = list(node.attr(name))
            numbers[axes.index(axis)] = number
            node.attrs[name] = numbers
        return
    given = node.input(3)
    listed = None if given is None else t.integers(given)
    axes = list(range(rank)) if listed is None else [int(a) % rank for a in listed]
    for index, number in ((1, start), (2, end)):
        made = np.array(t.integers(node.inputs[index]), np.int64)
        made[axes.index(axis)] = number
        replace_input(node, index, made)


def pad(node: Node, t: Tracker) -> None:
    """Zeros that are added on a cut axis are channels like others, without weights."""
    data = node.inputs[0]
    axes = list(t.axes(data))
    amounts = _pads(node, t)
    mode = node.attr("mode") or "constant"
    for axis, label in enumerate(axes):
        if isinstance(label, str):
            continue
        if amounts is None:
            why = f"{node.label()} pads by amounts that depend on data"
            t.pin(label, why)
            axes[axis] = why
            continue
        before, after = amounts.get(axis, (0, 0))
        if (before or after) and mode != "constant":
            t.pin(label, f"{node.label()} repeats what is on this axis")
        label = label[max(-before, 0) : len(label) - max(-after, 0)]
        axes[axis] = _surrounded(t, label, max(before, 0), max(after, 0))
    t.set(node.outputs[0], axes)


def _surrounded(t: Tracker, label: Array, before: int, after: int) -> Array:
    return np.concatenate([t.atoms.fresh(before), label, t.atoms.fresh(after)])


def _pads(node: Node, t: Tracker) -> dict[int, tuple[int, int]] | None:
    rank = len(t.axes(node.inputs[0]))
    if node.opset < 11:
        pads, axes = node.attr("pads") or node.attr("paddings"), list(range(rank))
    else:
        pads = t.integers(node.inputs[1])
        given = node.input(3)
        found = None if given is None else t.integers(given)
        if pads is None or (given is not None and found is None):
            return None
        axes = list(range(rank)) if found is None else [int(a) % rank for a in found]
    half = len(axes)
    return {axis: (int(pads[i]), int(pads[i + half])) for i, axis in enumerate(axes)}


def adjust_pad(node: Node, cut: Cut) -> None:
    t = cut.tracker
    output = node.outputs[0]
    amounts = _pads(node, t) or {}
    changed = False
    for axis, (before, after) in list(amounts.items()):
        stays = cut.kept(output, axis)
        if stays is None or before < 0 or after < 0:
            continue
        amounts[axis] = (int(stays[:before].sum()), int(stays[len(stays) - after :].sum()))
        changed = True
    if not changed:
        return
    made = [a for a, _ in amounts.values()] + [b for _, b in amounts.values()]
    if node.opset < 11:
        node.attrs["pads"] = made
    else:
        replace_input(node, 1, np.array(made, np.int64))


def gather(node: Node, t: Tracker) -> None:
    data, picks = node.inputs[0], node.inputs[1]
    axes = t.axes(data)
    along = int(node.attr("axis") or 0) % max(len(axes), 1)
    rank = t.rank(picks)
    numbers = t.integers(picks)
    label = axes[along]
    if rank is None:
        t.set(node.outputs[0], unknown([data], node.outputs[0], t))
        return
    made: list[Axis] = [f"{node.label()} picks along this axis"] * rank
    if isinstance(label, str):
        made = [label] * rank
    elif numbers is None or picks.array is None or rank != 1:
        t.pin(label, f"{node.label()} picks along this axis")
    else:
        made = [label[numbers]]
    for axis in t.axes(picks):
        t.pin(axis, f"{node.label()} reads '{picks.name}' as indices")
    t.set(node.outputs[0], [*axes[:along], *made, *axes[along + 1 :]])


def adjust_gather(node: Node, cut: Cut) -> None:
    along = int(node.attr("axis") or 0) % len(cut.tracker.axes(node.inputs[0]))
    stays = cut.kept(node.inputs[0], along)
    numbers = node.inputs[1].array
    if stays is None or numbers is None:
        return
    places = np.cumsum(stays) - 1
    picks = np.where(numbers < 0, numbers + len(stays), numbers)
    replace_input(node, 1, places[picks[stays[picks]]].astype(numbers.dtype))


def pooling(node: Node, t: Tracker) -> None:
    """[N, C, *spatial]: channels stay, the rest moves."""
    data = node.inputs[0]
    axes = t.axes(data)
    why = f"{node.label()} moves over this axis"
    for axis in axes[2:]:
        t.pin(axis, why)
    for output in node.outputs:
        if not output.omitted:
            t.set(output, [*axes[:2], *[why] * (len(axes) - 2)])


def resize(node: Node, t: Tracker) -> None:
    """Axes that keep their size pass."""
    data, output = node.inputs[0], node.outputs[0]
    old, new = t.shape(data), t.shape(output)
    if old is None or new is None:
        t.set(output, unknown([data], output, t))
        return
    why = f"{node.label()} moves over this axis"
    labels: list[Axis] = []
    for axis, label in enumerate(t.axes(data)):
        if old[axis] == new[axis]:
            labels.append(label)
        else:
            t.pin(label, why)
            labels.append(why)
    t.set(output, labels)
    sizes = node.input(3)
    if sizes is not None and sizes.array is None and node.op == "Resize":
        for label in labels:
            if is_labelled(label):
                t.pin(label, f"{node.label()} computes its sizes")


def adjust_resize(node: Node, cut: Cut) -> None:
    sizes = node.input(3)
    if node.op != "Resize" or sizes is None or sizes.array is None:
        return
    rank = len(cut.tracker.axes(node.inputs[0]))
    axes = [int(a) % rank for a in node.attr("axes") or range(rank)]
    made = np.array(sizes.array, np.int64)
    for axis, stays in cut.cuts(node.outputs[0]):
        if axis in axes:
            made[axes.index(axis)] = int(stays.sum())
    replace_input(node, 3, made)


FOLLOW = {
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "Gather": gather,
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
        + ("QLinearAveragePool", "QLinearGlobalAveragePool"),
        pooling,
    ),
    **dict.fromkeys(("Resize", "Upsample"), resize),
}

ADJUST = {
    "Split": adjust_split,
    "Slice": adjust_slice,
    "Pad": adjust_pad,
    "Gather": adjust_gather,
    "Resize": adjust_resize,
}
