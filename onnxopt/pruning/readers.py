"""The layers that read a group of channels, and which of their rows are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.layer import Layer
from onnxopt.pruning.stepper import weights_of
from onnxopt.pruning.tracker import Role

WIDEST_ROWS = 2600
"""Rows of moments [k, k] above which only the channels are looked at, not their taps."""

WIDEST_MEASURED = 6000
"""Rows of moments above which a layer is not looked at."""


@dataclass(frozen=True)
class Look:
    """How the rows of a layer are looked at.

    Attributes:
        groups: of the layer.
        k: rows of each.
        block: of so many rows side by side only the middle one is looked at: of a wide layer a
            channel's taps, or what Flatten makes of its positions.
    """

    groups: int
    k: int
    block: int

    @property
    def seen(self) -> int:
        """Rows of the moments of one group."""
        return self.k // self.block

    def shown(self, rows: Array) -> Array:
        """[n, groups k] as [n, groups seen]."""
        if self.block == 1:
            return rows
        return rows.reshape(len(rows), -1, self.block)[:, :, self.block // 2]


@dataclass(frozen=True)
class Reader:
    """A layer that contracts channels of a group, with the rows that each unit takes."""

    layer: Layer
    rows: Sequence[Sequence[Array]]
    look: Look


def readers(group: ChannelGroup, layers: Sequence[Layer], channels: Channels) -> list[Reader]:
    """The layers that can be refitted when the group is cut."""
    by_weight: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in layer.weights:
            by_weight.setdefault(name, []).append(layer)
    found: dict[Layer, list[list[Array]]] = {}
    looks: dict[Layer, Look] = {}
    for role in group.consumers:
        for layer in by_weight.get(role.weight.name, ()):
            roots = input_roots(layer, role, channels, group)
            if roots is not None:
                rows = layer.unit_rows(roots, group.units)
                found[layer] = _together(found[layer], rows) if layer in found else rows
                looks[layer] = _look(layer, roots, channels)
    return [
        Reader(layer, rows, looks[layer])
        for layer, rows in found.items()
        if looks[layer].seen <= WIDEST_MEASURED
    ]


def _look(layer: Layer, roots: Array, channels: Channels) -> Look:
    groups, rows, _ = layer.matrix(weights_of(channels.proto, layer.parameters)).shape
    k, block = rows - 1, 1
    if k > WIDEST_ROWS:
        block = layer.taps if layer.spatial else _run_length(roots) if type(layer) is Layer else 1
    return Look(groups, k, block)


def _run_length(roots: Array) -> int:
    """The size of the blocks that channels side by side come in."""
    changes = np.flatnonzero(np.diff(roots)) + 1
    return int(np.gcd.reduce(np.append(changes, len(roots))))


def _together(
    first: Sequence[Sequence[Array]], second: Sequence[Sequence[Array]]
) -> list[list[Array]]:
    """The rows that a unit takes on either of two axes."""
    return [
        [np.union1d(a, b) for a, b in zip(one, two, strict=True)]
        for one, two in zip(first, second, strict=True)
    ]


def input_roots(layer: Layer, role: Role, channels: Channels, group: ChannelGroup) -> Array | None:
    """The root of each channel that the layer reads or, if it chooses, that it is given."""
    tracker = channels.tracker
    source = None if group.is_read else tracker.sources.get((role.weight, role.axis))
    if source is not None:
        label: Axis = source
    elif layer.spatial and layer.groups > 1:
        label = tracker.axes(role.node.inputs[0])[1]
    else:
        label = tracker.axes(role.weight)[role.axis]
    if isinstance(label, str):
        return None
    return layer.spread(tracker.atoms.roots(label), role.weight.name, role.axis)
