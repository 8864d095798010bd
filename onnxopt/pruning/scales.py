"""Scales of BatchNormalizations, from the model as it was before these were folded away.

What a BatchNormalization multiplies a channel with says how much the channel counts (Liu et al.,
"Learning efficient convolutional networks through network slimming", ICCV 2017, section 3). The
lossless rewriting folds it into the weights before it, where it cannot be told from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxopt.graph import Array, Constant, Node
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.tracker import is_labelled

Scales: TypeAlias = Mapping[tuple[str, int], Array]
"""For axes of weights, by name and number, the scale of each index; NaN where there is none."""

BATCHNORM = "BatchNormalization"


def find_scales(
    channels: Channels, unfolded: onnx.ModelProto, feeds: Mapping[str, Any]
) -> dict[tuple[str, int], Array]:
    """The scales of the groups of channels: sums of sizes over all that a channel passes.

    Channels are followed through both models. A value that both have under one name is the same in
    both, so what lives at one place of it there and here is the same channel.

    Args:
        channels: of the rewritten model.
        unfolded: the same model, rewritten alike but for its BatchNormalizations.
        feeds: inputs of the model.
    """
    before = Channels(unfolded, feeds)
    sizes = _sizes(before)
    there: dict[int, set[int]] = defaultdict(set)
    for here, other in _places(channels, before):
        there[here].add(other)
    found: dict[tuple[str, int], Array] = {}
    for group in channels.groups:
        of_unit = {unit: [sizes[o] for o in there[unit] if o in sizes] for unit in group.units}
        for role in group.producers:
            roots = _roots(channels, channels.tracker.axes(role.weight)[role.axis])
            scales = found.setdefault((role.weight.name, role.axis), np.full(len(roots), np.nan))
            for unit, each in of_unit.items():
                if each:
                    scales[roots == unit] = sum(each)
    return found


def scales_of(scales: Scales, channels: Channels, group: ChannelGroup) -> Array | None:
    """The scale of each unit of a group [units]; None if some of them have none."""
    for role in group.producers:
        found = scales.get((role.weight.name, role.axis))
        if found is None:
            continue
        roots = _roots(channels, channels.tracker.axes(role.weight)[role.axis])
        chosen: Array = np.array([found[roots == unit][0] for unit in group.units])
        if np.isfinite(chosen).all():
            return chosen
    return None


def _sizes(channels: Channels) -> dict[int, float]:
    """For the root of each channel the sum of the sizes of its scales."""
    found: dict[int, float] = defaultdict(float)
    for node in _batchnorms(channels):
        label = channels.tracker.axes(node.inputs[0])[1]
        scale = node.inputs[1].array
        if is_labelled(label) and scale is not None:
            roots = _roots(channels, label)
            for root, size in zip(roots.tolist(), np.abs(scale).tolist(), strict=True):
                found[root] += size
    return found


def _batchnorms(channels: Channels) -> Iterator[Node]:
    for graph in channels.model.graph.walk():
        yield from (n for n in graph.nodes if n.op == BATCHNORM and n.is_standard)


def _places(here: Channels, there: Channels) -> Iterator[tuple[int, int]]:
    """The roots of what is at one place of a value that both models compute."""
    named = {
        v.name: axes for v, axes in there.tracker.labels.items() if not isinstance(v, Constant)
    }
    for value, axes in here.tracker.labels.items():
        others = named.get(value.name, [])
        if isinstance(value, Constant) or len(others) != len(axes):
            continue
        for a, b in zip(axes, others, strict=True):
            if is_labelled(a) and is_labelled(b) and len(a) == len(b):
                yield from zip(_roots(here, a).tolist(), _roots(there, b).tolist(), strict=True)


def _roots(channels: Channels, label: Axis) -> Array:
    assert not isinstance(label, str)
    return channels.tracker.atoms.roots(label)
