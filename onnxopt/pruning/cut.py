"""A cut: the indices of every value that stay, and the edits that carry it out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx.helper

from onnxopt.graph import Array, Constant, Node, Value
from onnxopt.pruning.tracker import Tracker


class Cut:
    """What is left of every axis when some atoms are removed.

    Args:
        dead: roots of the atoms that are removed; what layers cannot read without them goes too.
    """

    def __init__(self, tracker: Tracker, dead: Iterable[int]) -> None:
        self.tracker = tracker
        gone = set(dead)
        self._gone = np.array(sorted(gone.union(tracker.following(gone))), np.int64)

    def kept(self, value: Value, axis: int) -> Array | None:
        """For each index whether it stays; None if all do."""
        axes = self.tracker.labels.get(value)
        if axes is None or isinstance(axes[axis], str) or not len(self._gone):
            return None
        atoms = axes[axis]
        assert isinstance(atoms, np.ndarray)
        stays = np.isin(self.tracker.atoms.roots(atoms), self._gone, invert=True)
        return None if stays.all() else stays

    def size(self, value: Value, axis: int) -> int | None:
        """How many indices stay; None if all do."""
        stays = self.kept(value, axis)
        return None if stays is None else int(stays.sum())

    def cuts(self, value: Value) -> list[tuple[int, Array]]:
        """The axes that lose indices, with what stays of them."""
        axes = self.tracker.labels.get(value) or []
        found = ((axis, self.kept(value, axis)) for axis in range(len(axes)))
        return [(axis, stays) for axis, stays in found if stays is not None]


def replace_input(node: Node, index: int, array: Array) -> None:
    """Give the node a constant of its own in place of one that others may share."""
    graph = node.graph
    assert graph is not None
    old = node.inputs[index]
    node.inputs[index] = graph.add_initializer(array, f"{old.name}_kept")


def set_input(node: Node, index: int, array: Array, name: str) -> None:
    """Give the node a constant as its last input, which it may have had or not."""
    graph = node.graph
    assert graph is not None
    made = graph.add_initializer(array, name)
    if index < len(node.inputs):
        node.inputs[index] = made
    else:
        node.inputs.append(made)


def sliced(array: Array, cuts: Iterable[tuple[int, Array]]) -> Array:
    """What stays of an array."""
    for axis, stays in cuts:
        array = np.compress(stays, array, axis)
    return np.ascontiguousarray(array)


def slice_initializers(values: Iterable[Value], cut: Cut) -> None:
    """Cut the data of all initializers that lose indices."""
    for value in list(values):
        if isinstance(value, Constant) and value.graph is not None and (cuts := cut.cuts(value)):
            value.replace_data(sliced(value.data, cuts))
            if value.info is not None:  # before IR version 4 it is listed as an input too
                value.info = onnx.helper.make_tensor_value_info(
                    value.name, value.elem_type, value.dims
                )
