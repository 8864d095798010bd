"""Operators that pick parts of a value along its axes: Split, Slice, Gather and its kin."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Node
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut, replace_input, set_input
from onnxopt.pruning.follow.elementwise import unknown
from onnxopt.pruning.follow.reshaping import spread_on
from onnxopt.pruning.follow.sizes import Entry, entries, set_in_input
from onnxopt.pruning.tracker import Tracker


def split(node: Node, t: Tracker) -> None:
    data = node.inputs[0]
    axes = t.axes(data)
    along = int(node.attr("axis") or 0) % max(len(axes), 1)
    sizes = node.input(1)
    if sizes is not None and sizes.array is None:
        t.pin(axes[along], f"{node.label()} computes its sizes")
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
    along = int(node.attr("axis") or 0) % max(len(t.axes(node.inputs[0])), 1)
    if not cut.cuts(node.inputs[0]) or cut.kept(node.inputs[0], along) is None:
        return
    sizes = []
    for output in node.outputs:
        size = cut.size(output, along)
        sizes.append((t.shape(output) or ())[along] if size is None else size)
    node.attrs.pop("num_outputs", None)
    if node.opset < 13:
        node.attrs["split"] = sizes
        return
    set_input(node, 1, np.array(sizes, np.int64), "split_sizes")


Bounds = dict[int, tuple[Entry, Entry, int, int]]
"""For each axis start, end, step, and the place of the axis in the lists of the node."""


def _bounds(node: Node, t: Tracker) -> Bounds | None:
    """What Slice takes of each axis; None if the axes depend on data."""
    rank = len(t.axes(node.inputs[0]))
    starts: list[Entry] | None
    ends: list[Entry] | None
    if node.opset < 10:
        starts, ends = [int(n) for n in node.attr("starts")], [int(n) for n in node.attr("ends")]
        axes, steps = node.attr("axes"), None
    else:
        starts, ends = entries(node.inputs[1], t), entries(node.inputs[2], t)
        given = [None if (v := node.input(i)) is None else (v, v.array) for i in (3, 4)]
        if any(pair is not None and pair[1] is None for pair in given):
            return None
        axes, steps = (None if pair is None else pair[1] for pair in given)
    if starts is None or ends is None or len(starts) != len(ends):
        return None
    listed = range(len(starts)) if axes is None else [int(a) % rank for a in axes]
    taken = [1] * len(starts) if steps is None else [int(s) for s in steps]
    places = zip(listed, starts, ends, taken, strict=True)
    return {axis: (b, e, s, place) for place, (axis, b, e, s) in enumerate(places)}


def slice_(node: Node, t: Tracker) -> None:
    axes = list(t.axes(node.inputs[0]))
    taken = _bounds(node, t)
    for axis, label in enumerate(axes):
        if taken is None:
            axes[axis] = f"{node.label()} takes a part that depends on data"
        elif axis not in taken or isinstance(label, str):
            continue
        else:
            start, end, step, _ = taken[axis]
            if isinstance(start, int) and isinstance(end, int) and step == 1:
                axes[axis] = label[start:end]
                continue
            why = "skips along this axis" if step != 1 else "takes a part that is computed"
            axes[axis] = f"{node.label()} {why}"
        t.pin(label, str(axes[axis]))
    t.set(node.outputs[0], axes)


def adjust_slice(node: Node, cut: Cut) -> None:
    """New bounds on a cut axis: what stays of a run of indices is a run of indices."""
    data = node.inputs[0]
    if not (cuts := cut.cuts(data)):
        return
    bounds = _bounds(node, cut.tracker) or {}
    starts: dict[int, tuple[int, int]] = {}
    ends: dict[int, tuple[int, int]] = {}
    for axis, stays in cuts:
        if axis in bounds:
            start, end, _, place = bounds[axis]
            assert isinstance(start, int) and isinstance(end, int)
            first, last, _ = slice(start, end).indices(len(stays))
            low = int(stays[:first].sum())
            starts[place] = (start, low)
            ends[place] = (end, low + int(stays[first:last].sum()))
    for index, name, numbers in ((1, "starts", starts), (2, "ends", ends)):
        if node.opset >= 10:
            set_in_input(node, index, numbers, len(bounds))
            continue
        made = list(node.attr(name))
        for place, (_, number) in numbers.items():
            made[place] = number
        node.attrs[name] = made


def gather(node: Node, t: Tracker) -> None:
    """With constant indices what is picked keeps its atoms; others keep the axis as it is."""
    data, picks = node.inputs[0], node.inputs[1]
    axes = t.axes(data)
    along = int(node.attr("axis") or 0) % max(len(axes), 1)
    rank, label, why = t.rank(picks), axes[along], f"{node.label()} picks along this axis"
    for axis in t.axes(picks):
        t.pin(axis, f"{node.label()} reads '{picks.name}' as indices")
    if rank is None:
        t.set(node.outputs[0], unknown([data], node.outputs[0], t))
        return
    made: list[Axis] = [label if isinstance(label, str) else why] * rank
    if picks.array is None:
        t.pin(label, why)
        for made_axis in range(len(axes)):
            if made_axis != along:
                t.role(node, data, made_axis, "out")
    elif not isinstance(label, str):
        full = label[picks.array]
        if rank == 0:
            t.pin(full.reshape(1), why)
        else:
            place = spread_on(node, t, full, [along + i for i in range(rank)])
            made[place] = np.moveaxis(full, place, -1).reshape(-1, full.shape[place])[0]
    t.set(node.outputs[0], [*axes[:along], *made, *axes[along + 1 :]])


def adjust_gather(node: Node, cut: Cut) -> None:
    along = int(node.attr("axis") or 0) % max(len(cut.tracker.axes(node.inputs[0])), 1)
    numbers = node.inputs[1].array
    if numbers is None or (stays := cut.kept(node.inputs[0], along)) is None:
        return
    for axis in range(numbers.ndim):
        left = cut.kept(node.outputs[0], along + axis)
        if left is not None:
            numbers = np.compress(left, numbers, axis)
    places = np.cumsum(stays) - 1
    picks = np.where(numbers < 0, numbers + len(stays), numbers)
    replace_input(node, 1, np.asarray(places[picks], numbers.dtype))


def gather_elements(node: Node, t: Tracker) -> None:
    """Data and indices lose the same indices of all axes but the one that is picked along."""
    data, picks = node.inputs[0], node.inputs[1]
    axes, own = t.axes(data), t.axes(picks)
    along = int(node.attr("axis") or 0) % max(len(axes), 1)
    shapes = t.shape(data), t.shape(picks)
    if shapes[0] is None or shapes[1] is None:
        t.set(node.outputs[0], unknown([data, picks], node.outputs[0], t))
        return
    made: list[Axis] = []
    for axis, (a, b) in enumerate(zip(axes, own, strict=True)):
        if axis != along:
            made.append(t.unite(a, b))
            continue
        why = f"{node.label()} picks along this axis"
        t.pin(a, why)
        t.pin(b, why)
        made.append(why)
    t.set(node.outputs[0], made)


def gather_nd(node: Node, t: Tracker) -> None:
    """Axes behind those that the indices name pass."""
    data, picks = node.inputs[0], node.inputs[1]
    shape = t.shape(picks)
    why = f"{node.label()} picks along this axis"
    t.pin_value(picks, why)
    if shape is None:
        t.set(node.outputs[0], unknown([data], node.outputs[0], t))
        return
    axes = t.axes(data)
    first = int(node.attr("batch_dims") or 0) + shape[-1]
    for axis in axes[:first]:
        t.pin(axis, why)
    made: list[Axis] = [why] * (len(shape) - 1)
    t.set(node.outputs[0], [*made, *axes[first:]])


FOLLOW = {
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
}

ADJUST = {"Split": adjust_split, "Slice": adjust_slice, "Gather": adjust_gather}
