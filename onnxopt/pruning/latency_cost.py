"""What the layers of a model take by a profile, as a cost of the widths of its groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import onnx

from onnxopt.errors import UsageError
from onnxopt.graph import Node
from onnxopt.layer_shapes import MEASURED
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.costs import AxisSizes
from onnxopt.pruning.tables import LayerTerm, TableCost
from onnxopt.pruning.tracker import Role


class Layers(Protocol):
    """Layers by name of node, with their times: `latency.LayerLatency` is one."""

    @property
    def nodes(self) -> tuple[str, ...]: ...

    def whole(self, node: str) -> tuple[int, int]:
        """The channels in and out that it was measured with in the model."""

    def first(self, node: str) -> str:
        """The first node with the same layer, of which they have the times."""

    def us(self, node: str, inputs: int, outputs: int) -> float: ...

    @property
    def between(self) -> tuple[str, ...]:
        """Nodes that are no layers and take time as well."""

    def between_us(self, node: str, axis: int, share: float) -> float:
        """What one of these takes with an axis cut to a share."""


class NoLayers:
    """No layer whose times at other widths are known."""

    nodes: tuple[str, ...] = ()
    between: tuple[str, ...] = ()

    def whole(self, node: str) -> tuple[int, int]:
        raise AssertionError("there is none")

    def first(self, node: str) -> str:
        raise AssertionError("there is none")

    def us(self, node: str, inputs: int, outputs: int) -> float:
        raise AssertionError("there is none")

    def between_us(self, node: str, axis: int, share: float) -> float:
        raise AssertionError("there is none")


def has_timed_widths(proto: onnx.ModelProto) -> bool:
    """Whether a profile could know a layer of this model at several widths: one of float32."""
    stored = {t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    return any(
        node.op_type in MEASURED and len(node.input) > 1 and node.input[1] in stored
        for node in proto.graph.node
    )


def latency_cost(
    channels: Channels,
    groups: Sequence[ChannelGroup],
    layers: Layers,
    names: Mapping[str, str],
    whole_ms: float,
) -> TableCost:
    """The time in ms of all layers that were measured, and of what lies between them.

    What is cut on no axis takes what it takes.

    Args:
        names: what the profile calls the node that makes a value, by that value's name.
        whole_ms: the time of the model that was profiled.
    """
    sizes, known = AxisSizes(channels, groups, as_run=True), frozenset(layers.nodes)
    costs: dict[str, Callable[[int, int], float]] = {}
    terms, measured_ms = [], 0.0
    for node, name in _named(channels, names):
        if name in known:
            key = layers.first(name)
            cost = costs.setdefault(key, _milliseconds(layers, key))
            read, made = _channels(node)
            axes = (sizes.axes(node.inputs[0])[read], sizes.axes(node.outputs[0])[made])
            terms.append(LayerTerm(cost, axes, node.outputs[0].name))
            measured_ms += cost(*layers.whole(name))
    for term, full in _between(channels, sizes, layers, names):
        terms.append(term)
        measured_ms += term.cost(full, full)
    return TableCost(tuple(terms), "time", max(0.0, whole_ms - measured_ms))


def _between(
    channels: Channels, sizes: AxisSizes, layers: Layers, names: Mapping[str, str]
) -> Iterator[tuple[LayerTerm, int]]:
    """What lies between layers and becomes smaller with them, and its axis' whole size."""
    known = frozenset(layers.between)
    for node in channels.model.graph.nodes:
        name = names.get(node.outputs[0].name, "") if node.outputs else ""
        if name not in known:
            continue
        for place, axis in enumerate(sizes.axes(node.outputs[0])):
            if axis[0].multiplicity:
                whole = round(sizes.at_full(axis))
                cost = _between_ms(layers, name, place, whole)
                yield LayerTerm(cost, (axis, axis), node.outputs[0].name), whole
                break


def _between_ms(layers: Layers, name: str, axis: int, whole: int) -> Callable[[int, int], float]:
    return lambda inputs, outputs: layers.between_us(name, axis, outputs / whole) / 1000


def _milliseconds(layers: Layers, name: str) -> Callable[[int, int], float]:
    return lambda inputs, outputs: layers.us(name, inputs, outputs) / 1000


def _named(channels: Channels, names: Mapping[str, str]) -> Iterator[tuple[Node, str]]:
    """The nodes of the main graph that could be layers, with their names in the profile."""
    for node in channels.model.graph.nodes:
        if node.op in MEASURED and node.outputs[0].name in names:
            yield node, names[node.outputs[0].name]


def _channels(node: Node) -> tuple[int, int]:
    """The axes of the channels (features) of what a layer reads and makes."""
    return (1, 1) if "Conv" in node.op else (-1, -1)


def _roles(group: ChannelGroup) -> tuple[Role, ...]:
    return (*group.producers, *group.consumers)


def check_profile(
    channels: Channels, layers: Layers, names: Mapping[str, str], kernels: frozenset[str]
) -> None:
    """Check that a profile is of this model.

    Args:
        kernels: names of nodes whose kernels the profile knows.

    Raises:
        UsageError: a layer with channels to cut is not in it, or had other channels.
    """
    cut = {role.node.outputs[0].name for group in channels.groups for role in _roles(group)}
    fix = (
        "profile the model that is pruned, with --widths; where the rewriting without loss changes "
        "its layers, write that model first (`onnxopt optimize IN OUT`), and profile and prune OUT"
    )
    sizes = AxisSizes(channels, (), as_run=True)
    for node, name in _named(channels, names):
        if node.outputs[0].name not in cut:
            continue
        if name in layers.nodes:
            read, made = _channels(node)
            axes = (sizes.axes(node.inputs[0])[read], sizes.axes(node.outputs[0])[made])
            own = tuple(factor.constant // divisor for factor, divisor in axes)
            if own != layers.whole(name):
                reads, makes = layers.whole(name)
                raise UsageError(
                    f"the profile is of another model: the layer '{name}' has {own[0]} channels in "
                    f"and {own[1]} out, in the profile {reads} and {makes}",
                    fix,
                )
        elif name not in kernels:
            raise UsageError(
                f"the profile is of another model: it does not know the layer '{name}'", fix
            )
