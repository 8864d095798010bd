"""Channel groups of a model: what can be removed together, what cannot, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnxopt.graph import Constant, Graph, Node, Value, constant_value, detach, drop_detached
from onnxopt.model import Model
from onnxopt.pruning.cut import Cut, slice_initializers
from onnxopt.pruning.follow import ADJUST, follow
from onnxopt.pruning.follow.heads import runs_as_batch
from onnxopt.pruning.follow.sizes import pin_sizes_that_are_read
from onnxopt.pruning.instance import Instance, run_instance
from onnxopt.pruning.tracker import Role, Tracker
from onnxopt.shapes import infer


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one kind: any of them may be removed, each with all that hangs on it.

    Attributes:
        name: the node that makes them first.
        units: for each channel the root of its atoms.
        producers, consumers: axes of weights that make and that contract them.
        changed: where removing one changes the values of others ("" if the cut is exact).
    """

    name: str
    units: tuple[int, ...]
    producers: tuple[Role, ...]
    consumers: tuple[Role, ...]
    changed: str = ""

    @property
    def exact(self) -> bool:
        return not self.changed


@dataclass(frozen=True)
class Declined:
    """Channels that cannot be removed, and why."""

    node: str
    channels: int
    reason: str


class Channels:
    """The channels of one model.

    Args:
        proto: the model, with its weights in initializers; it is not changed.
        feeds: inputs to run it with once, for shapes.

    Raises:
        RunError, UnverifiableError: ONNX Runtime cannot run it on these inputs.
    """

    def __init__(
        self, proto: onnx.ModelProto, feeds: Mapping[str, Any], ignore: Iterable[str] = ()
    ) -> None:
        self.proto = proto
        self.instance: Instance = run_instance(proto, feeds)
        self.ignore = frozenset(ignore)
        self.model, self.tracker = _labelled(proto, self.instance, self.ignore)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """In the order in which the nodes make them."""
        return _groups(self.model, self.tracker)

    @cached_property
    def declined(self) -> tuple[Declined, ...]:
        return _declined(self.tracker)

    def emptied(self, dead: Iterable[int]) -> Iterator[frozenset[int]]:
        """The units on each axis that would have no index left."""
        gone = frozenset(dead)
        for axes in self.tracker.labels.values():
            for label in axes:
                if not isinstance(label, str) and len(label):
                    roots = frozenset(self.tracker.atoms.roots(label).tolist())
                    if roots <= gone:
                        yield roots

    def cut(self, dead: Iterable[int]) -> onnx.ModelProto:
        """The model without these channels (units of the groups)."""
        model, tracker = _labelled(self.proto, self.instance, self.ignore)
        cut = Cut(tracker, dead)
        for graph in list(model.graph.walk()):
            for node in list(graph.nodes):
                if (adjust := ADJUST.get(node.op)) is not None and not node.bodies:
                    adjust(node, cut)
        changed = {value.name for value in tracker.labels if cut.cuts(value)}
        slice_initializers(tracker.labels, cut)
        made = model.to_proto()
        _forget_shapes(made.graph, changed)
        return made


def _forget_shapes(graph: onnx.GraphProto, changed: set[str]) -> None:
    """Take out the declared shapes of values that were cut; initializers may have one too."""
    kept = [info for info in graph.value_info if info.name not in changed]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _forget_shapes(body, changed)


def _labelled(
    proto: onnx.ModelProto, instance: Instance, ignore: frozenset[str]
) -> tuple[Model, Tracker]:
    """The model with the atoms of all its values; the same numbers each time."""
    model = Model.from_proto(proto)
    infer(model)
    for graph in model.graph.walk():
        _lift_constants(graph)
    tracker = Tracker(instance)
    tracker.sized = _sized(model.graph)
    order = {node: place for place, node in enumerate(model.graph.nodes)}
    tracker.lookahead = lambda value, axis: runs_as_batch(value, axis, tracker, order, follow)
    for node in model.graph.nodes:
        follow(node, tracker)
        if node.name in ignore:
            for value in node.outputs:
                tracker.pin_value(value, "it is on the list of what to ignore")
    for value in model.graph.outputs:
        tracker.pin_value(value, f"'{value.name}' is an output of the model")
    pin_sizes_that_are_read(model.graph, tracker)
    _pin_the_last(tracker)
    return model, tracker


def _pin_the_last(tracker: Tracker) -> None:
    """What is alone on an axis stays: no value may become empty."""
    for value, axes in tracker.labels.items():
        for label in axes:
            if not isinstance(label, str) and len(label):
                if len(set(tracker.atoms.roots(label).tolist())) == 1:
                    tracker.pin(label[:1], f"it is all there is on an axis of '{value.name}'")


def _lift_constants(graph: Graph) -> None:
    """Constant nodes become initializers: one kind of constant is enough."""
    for node in graph.nodes:
        if node.op == "Constant" and node.is_standard and not node.outputs[0].is_graph_output:
            array = constant_value(node)
            if array is not None:
                old = node.outputs[0]
                new = graph.adopt_initializer(old.name, array)
                for consumer in dict.fromkeys(old.consumers):
                    for index, value in enumerate(consumer.inputs):
                        if value is old:
                            consumer.inputs[index] = new
                detach(node)
    drop_detached(graph)


def _sized(graph: Graph) -> set[Value]:
    """Values that depend on shapes and constants alone."""
    found: set[Value] = set()
    for node in graph.nodes:
        reads = [value for value in node.reads()]
        if node.op in ("Shape", "Size") or all(
            value.array is not None or value in found for value in reads
        ):
            if not node.is_random:
                found.update(node.outputs)
    return found


def _members(tracker: Tracker) -> dict[int, list[tuple[int, int, int]]]:
    """For each root where its atoms are among the constants: value, axis and how often."""
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for number, (value, axes) in enumerate(tracker.labels.items()):
        if not isinstance(value, Constant):
            continue
        for axis, label in enumerate(axes):
            if isinstance(label, str):
                continue
            roots, counts = np.unique(tracker.atoms.roots(label), return_counts=True)
            for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
                found[root].append((number, axis, count))
    return found


def _groups(model: Model, tracker: Tracker) -> tuple[ChannelGroup, ...]:
    roles = _roles_of_roots(tracker)
    kinds: dict[tuple[tuple[int, int, int], ...], list[int]] = {}
    members = _members(tracker)
    for root in roles:
        if root in members and tracker.atoms.why_pinned(root) is None:
            kinds.setdefault(tuple(members[root]), []).append(root)
    groups: list[ChannelGroup] = []
    for units in kinds.values():
        own = roles[units[0]]
        producers = tuple(r for r in own if r.side == "out")
        consumers = tuple(r for r in own if r.side == "in")
        if len(units) < 2 or not producers:
            continue
        changed = next((w for u in units if (w := tracker.atoms.why_changed(u))), "")
        groups.append(
            ChannelGroup(_name(producers, groups), tuple(units), producers, consumers, changed)
        )
    return tuple(groups)


def _roles_of_roots(tracker: Tracker) -> dict[int, list[Role]]:
    """The roles of each root whose atoms are on an axis of a weight, in the order of the nodes."""
    found: dict[int, list[Role]] = {}
    for role in tracker.roles:
        if not is_weight(role.weight):
            continue
        label = tracker.axes(role.weight)[role.axis]
        if isinstance(label, str) or len(label) < 2:
            continue
        for root in dict.fromkeys(tracker.atoms.roots(label).tolist()):
            found.setdefault(root, []).append(role)
    return found


def is_weight(value: Value) -> bool:
    """A constant, or one that is dequantized or cast on its way."""
    if value.array is not None:
        return True
    producer = value.producer
    return (
        producer is not None
        and producer.op in ("DequantizeLinear", "Cast", "Transpose", "Identity")
        and is_weight(producer.inputs[0])
    )


def _name(producers: tuple[Role, ...], before: list[ChannelGroup]) -> str:
    node = producers[0].node
    name = node.name or node.outputs[0].name
    same = sum(group.name == name or group.name.startswith(f"{name} #") for group in before)
    return f"{name} #{same + 1}" if same else name


def _declined(tracker: Tracker) -> tuple[Declined, ...]:
    found: dict[tuple[str, str], int] = {}
    for role in tracker.roles:
        if role.side != "out":
            continue
        if not is_weight(role.weight):
            if role.node.op.endswith("Conv") or role.node.op == "ConvTranspose":
                count = (tracker.shape(role.weight) or (0, 0))[role.axis]
                found[role.node.label(), f"'{role.weight.name}' is computed, not stored"] = count
            continue
        label = tracker.axes(role.weight)[role.axis]
        if isinstance(label, str):
            key = (role.node.label(), label)
            found[key] = (tracker.shape(role.weight) or (0, 0))[role.axis]
            continue
        for root in tracker.atoms.roots(label).tolist():
            why = tracker.atoms.why_pinned(root)
            if why is not None:
                key = (role.node.label(), why)
                found[key] = found.get(key, 0) + 1
    return tuple(Declined(node, count, why) for (node, why), count in found.items())


def node_name(node: Node) -> str:
    return node.name or node.outputs[0].name
