"""Reshape and its kin: an axis is split, or several are merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxopt.graph import Node
from onnxopt.pruning.atoms import Axis, IntArray
from onnxopt.pruning.cut import Cut, replace_input, set_input
from onnxopt.pruning.follow.elementwise import unknown
from onnxopt.pruning.follow.sizes import adjust_target, check_target
from onnxopt.pruning.tracker import Tracker, is_labelled


def reshape(node: Node, t: Tracker) -> None:
    """Any operator that keeps the order of the elements."""
    data, output = node.inputs[0], node.outputs[0]
    old, new = t.shape(data), t.shape(output)
    if old is None or new is None or 0 in old:
        t.set(output, unknown([data], output, t))
        return
    labels: list[Axis] = [f"{node.label()} makes this axis"] * len(new)
    for sources, targets in regrouped(old, new):
        _follow_part(node, t, sources, targets, labels)
    t.set(output, labels)
    if node.op == "Reshape" and len(node.inputs) > 1:
        check_target(node, 1, t, _aligned(node, t))


def regrouped(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Axes of the old and of the new shape that hold the same part of the elements."""
    i = j = 0
    while i < len(old) or j < len(new):
        sources, targets = [], []
        left = right = 1
        if i < len(old):
            sources.append(i)
            left = old[i]
            i += 1
        if j < len(new):
            targets.append(j)
            right = new[j]
            j += 1
        while left != right:
            if left < right:
                sources.append(i)
                left *= old[i]
                i += 1
            else:
                targets.append(j)
                right *= new[j]
                j += 1
        yield sources, targets


def _follow_part(
    node: Node, t: Tracker, sources: list[int], targets: list[int], labels: list[Axis]
) -> None:
    data, output = node.inputs[0], node.outputs[0]
    old, new = t.shape(data) or (), t.shape(output) or ()
    own = list(t.axes(data))
    if sum(is_labelled(own[source]) for source in sources) > 1:
        _give_way(node, t, own, sources)
    if len(sources) == 1 and len(targets) == 1:
        labels[targets[0]] = own[sources[0]]
        return
    shape = [new[j] for j in targets]
    for position, source in enumerate(sources):
        label = own[source]
        if isinstance(label, str):
            for target in targets:
                if isinstance(labels[target], str):
                    labels[target] = label
            continue
        if not is_labelled(label):
            continue
        view = [1] * len(sources)
        view[position] = len(label)
        full = np.broadcast_to(label.reshape(view), [old[i] for i in sources]).reshape(shape)
        place = spread_on(node, t, full, targets)
        if not isinstance(labels[targets[place]], str):
            why = f"{node.label()} merges two axes that could both be cut"
            t.pin(label, why)
            t.pin(labels[targets[place]], why)
        labels[targets[place]] = np.moveaxis(full, place, -1).reshape(-1, shape[place])[0]


def _give_way(node: Node, t: Tracker, own: list[Axis], sources: list[int]) -> None:
    """Where axes are merged, those whose indices are all alike leave the choice to others."""
    why = f"{node.label()} merges this axis with another"
    for source in sources:
        if is_labelled(own[source]) and t.is_free(own[source]):
            t.pin(own[source], why)
            own[source] = why


def spread_on(node: Node, t: Tracker, full: IntArray, targets: list[int]) -> int:
    """On which of the new axes the atoms are; where on several, whole slices of one are joined.

    Slices of an axis that a product runs over as a batch are heads; without such an axis, that
    with the most indices leaves the most freedom.
    """
    varying = [k for k in range(full.ndim) if full.shape[k] > 1 and _varies(full, k)]
    if len(varying) <= 1:
        return varying[0] if varying else int(np.argmax(full.shape))
    heads = [k for k in varying if t.lookahead(node.outputs[0], targets[k])]
    place = heads[0] if heads else max(varying, key=lambda k: (full.shape[k], k))
    t.atoms.join_rows(np.moveaxis(full, place, 0).reshape(full.shape[place], -1))
    return place


def _varies(full: IntArray, axis: int) -> bool:
    return bool((full != full.take([0], axis)).any())


def _aligned(node: Node, t: Tracker) -> list[tuple[int, int]]:
    """Axes of the output with their places in the target, which Expand may have shorter."""
    rank = len(t.axes(node.outputs[0]))
    target = node.inputs[0 if node.op == "ConstantOfShape" else 1]
    length = sum(t.shape(target) or (rank,))
    return [(axis, axis - (rank - length)) for axis in range(rank)]


def adjust_reshape(node: Node, cut: Cut) -> None:
    """New sizes in the target of Reshape or Expand, and numbers where it would copy another."""
    place = 0 if node.op == "ConstantOfShape" else 1
    if len(node.inputs) <= place:  # before opset 5 the target is an attribute
        return
    if node.op == "Reshape" and node.inputs[place].array is not None:
        _spell_out_copies(node, cut)
    adjust_target(node, place, cut, _aligned(node, cut.tracker))


def _spell_out_copies(node: Node, cut: Cut) -> None:
    """0 copies the size at the same place of the input, which may lose other indices."""
    target = node.inputs[1].array
    assert target is not None
    made = np.array(target).ravel()
    shape = cut.tracker.shape(node.outputs[0]) or ()
    for axis in np.flatnonzero(made == 0).tolist():
        if not node.attr("allowzero") and cut.size(node.inputs[0], axis) != cut.size(
            node.outputs[0], axis
        ):
            made[axis] = shape[axis]
    if not np.array_equal(made, target.ravel()):
        replace_input(node, 1, made.astype(target.dtype))


def adjust_squeeze(node: Node, cut: Cut) -> None:
    """State which axes go: an axis of which one index is left must not go too."""
    data = node.inputs[0]
    if not cut.cuts(data) or node.input(1) is not None or node.attr("axes"):
        return
    axes = [i for i, size in enumerate(cut.tracker.shape(data) or ()) if size == 1]
    if node.opset < 13:
        node.attrs["axes"] = axes
        return
    set_input(node, 1, np.array(axes, np.int64), "axes")


def expand(node: Node, t: Tracker) -> None:
    """Broadcast to a target; what is repeated has as many indices as anyone wants."""
    data, output = node.inputs[0], node.outputs[0]
    old, new = t.shape(data), t.shape(output)
    if old is None or new is None:
        t.set(output, unknown([data], output, t))
        return
    own = t.axes(data)
    missing = len(new) - len(old)
    labels: list[Axis] = []
    for axis, size in enumerate(new):
        place = axis - missing
        same = place >= 0 and old[place] == size
        labels.append(own[place] if same else t.repeated(size))
    t.set(output, labels)
    check_target(node, 1, t, _aligned(node, t))


def constant_of_shape(node: Node, t: Tracker) -> None:
    output = node.outputs[0]
    shape = t.shape(output)
    if shape is None:
        t.set(output, unknown([], output, t))
        return
    labels: list[Axis] = [t.repeated(size) for size in shape]
    t.set(output, labels)
    check_target(node, 0, t, _aligned(node, t))


def tile(node: Node, t: Tracker) -> None:
    data, output = node.inputs[0], node.outputs[0]
    old, new = t.shape(data), t.shape(output)
    if old is None or new is None:
        t.set(output, unknown([data], output, t))
        return
    why = f"{node.label()} repeats along this axis"
    pairs = zip(t.axes(data), old, new, strict=True)
    t.set(output, [_tiled(label, size, made, why) for label, size, made in pairs])


def _tiled(label: Axis, size: int, made: int, why: str) -> Axis:
    if size == made:
        return label
    return why if isinstance(label, str) or size == 1 else np.tile(label, made // max(size, 1))


def depth_to_space(node: Node, t: Tracker) -> None:
    """[N, C, H, W] to [N, C / b^2, H b, W b]: the b^2 parts of a channel leave together."""
    data = node.inputs[0]
    label, block = t.axes(data)[1], int(node.attr("blocksize"))
    if isinstance(label, str):
        made: Axis = label
    elif node.attr("mode") == "CRD":
        t.join_blocks(label, len(label) // block**2)
        made = label.reshape(-1, block**2)[:, 0]
    else:
        made = t.join_across(label, block**2)
    _set_spatial(node, t, made)


def space_to_depth(node: Node, t: Tracker) -> None:
    """[N, C, H, W] to [N, b^2 C, H / b, W / b]: each channel is seen b^2 times."""
    label, block = t.axes(node.inputs[0])[1], int(node.attr("blocksize"))
    _set_spatial(node, t, label if isinstance(label, str) else np.tile(label, block**2))


def _set_spatial(node: Node, t: Tracker, made: Axis) -> None:
    axes = t.axes(node.inputs[0])
    why = f"{node.label()} moves over this axis"
    for axis in axes[2:]:
        t.pin(axis, why)
    t.set(node.outputs[0], [axes[0], made, *[why] * (len(axes) - 2)])


FOLLOW = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    "Expand": expand,
    "ConstantOfShape": constant_of_shape,
    "Tile": tile,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}

ADJUST = {
    **dict.fromkeys(("Reshape", "Expand", "ConstantOfShape"), adjust_reshape),
    "Squeeze": adjust_squeeze,
}
