"""Channel groups of a model: what can be removed together, what cannot, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import onnx

from onnxopt.graph import (
    Array,
    Graph,
    Value,
    constant_value,
    detach,
    drop_detached,
)
from onnxopt.graph_protos import bodies
from onnxopt.model import Model
from onnxopt.pruning.cut import Cut, slice_initializers
from onnxopt.pruning.follow import ADJUST, follow, pin_parameters
from onnxopt.pruning.follow.heads import runs_as_batch
from onnxopt.pruning.follow.silence import mark_sums_that_change
from onnxopt.pruning.follow.sizes import pin_sizes_that_are_read
from onnxopt.pruning.groups import ChannelGroup, Declined, find_declined, find_groups
from onnxopt.pruning.instance import Instance, run_instance
from onnxopt.pruning.selecting import drop_idle, selective
from onnxopt.pruning.tracker import Tracker
from onnxopt.shapes import infer

__all__ = ["ChannelGroup", "Channels", "Declined", "labelled"]


class Channels:
    """The channels of one model.

    Args:
        proto: the model, with its weights in initializers; it is not changed.
        feeds: inputs to run it with once, for shapes.
        ignore: names of nodes whose channels stay.
        selects: layers with so many multiply-accumulates or more may read a part of the channels
            that others read too (`selecting.py`), or the layers that are named; None: no layer.

    Raises:
        RunError, UnverifiableError: ONNX Runtime cannot run it on these inputs.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        feeds: Mapping[str, Any],
        ignore: Iterable[str] = (),
        *,
        selects: int | frozenset[str] | None = None,
    ) -> None:
        self.proto = proto
        self.instance: Instance = run_instance(proto, feeds)
        self.ignore = frozenset(ignore)
        self.selective = selects if isinstance(selects, frozenset) else frozenset[str]()
        self.model, self.tracker = self.labelled()
        if isinstance(selects, int):
            self.selective = selective(self.model.graph, self.tracker, self.ignore, selects)
            if self.selective:
                self.model, self.tracker = self.labelled()

    def labelled(self) -> tuple[Model, Tracker]:
        """The model once more, with the same atoms."""
        return labelled(self.proto, self.instance, self.ignore, self.selective)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """In the order in which the nodes make them."""
        return find_groups(self.tracker)

    @cached_property
    def declined(self) -> tuple[Declined, ...]:
        return find_declined(self.tracker)

    def possible(
        self, dead: Iterable[int], worth: Callable[[int], Any] = lambda unit: -unit
    ) -> frozenset[int]:
        """These units with what layers cannot read without them, but no axis without any.

        Args:
            worth: of a unit: of an axis that would lose all the one that is worth most stays.
        """
        gone = set(dead)
        gone.update(self.tracker.following(gone))
        while empty := list(self.emptied(gone)):
            lost = set(self.tracker.following(gone))  # what these are read from comes back first
            able = next(left for units in empty if (left := units - lost))
            gone.discard(max(able, key=worth))
        return frozenset(gone)

    def emptied(self, dead: Iterable[int]) -> Iterator[frozenset[int]]:
        """The units on each axis that would have no index left."""
        gone = frozenset(dead)
        yield from (roots for roots in self._axes if roots <= gone)

    @cached_property
    def _axes(self) -> tuple[frozenset[int], ...]:
        """The units on each axis of each value, those that are alike once."""
        found = (
            frozenset(self.tracker.atoms.roots(label).tolist())
            for axes in self.tracker.labels.values()
            for label in axes
            if not isinstance(label, str) and len(label)
        )
        return tuple(dict.fromkeys(found))

    def kept(self, dead: Iterable[int]) -> dict[tuple[str, int], Array]:
        """For each axis, by name of its value, that loses indices: whether each one stays."""
        cut = Cut(self.tracker, dead)
        return {
            (value.name, axis): stays
            for value in self.tracker.labels
            for axis, stays in cut.cuts(value)
        }

    def cut(self, dead: Iterable[int]) -> onnx.ModelProto:
        """The model without these channels (units of the groups)."""
        model, tracker = self.labelled()
        cut = Cut(tracker, dead)
        for graph in list(model.graph.walk()):
            for node in list(graph.nodes):
                if (adjust := ADJUST.get(node.op)) is not None and node in tracker.followed:
                    adjust(node, cut)
        drop_idle(model.graph, cut)
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
    for info in graph.output:  # those of bodies: what the model itself gives is never cut
        if info.name in changed:
            info.type.tensor_type.ClearField("shape")
    for body in bodies(*graph.node):
        _forget_shapes(body, changed)


def labelled(
    proto: onnx.ModelProto,
    instance: Instance,
    ignore: frozenset[str],
    selective: frozenset[str] = frozenset(),
) -> tuple[Model, Tracker]:
    """The model with the atoms of all its values; the same numbers each time."""
    model = Model.from_proto(proto)
    infer(model)
    for graph in model.graph.walk():
        _lift_constants(graph)
    tracker = Tracker(instance, selective=selective)
    tracker.sized = _sized(model.graph)
    order = {node: place for place, node in enumerate(model.graph.nodes)}
    tracker.lookahead = lambda value, axis: runs_as_batch(value, axis, tracker, order, follow)
    for node in model.graph.nodes:
        follow(node, tracker)
        if node.name in ignore:
            for value in node.outputs:
                tracker.pin_value(value, "it is on the list of what to ignore")
    tracker.reading = None
    for value in model.graph.outputs:
        tracker.pin_value(value, f"'{value.name}' is an output of the model")
    pin_parameters(model.graph, tracker)
    pin_sizes_that_are_read(model.graph, tracker)
    _pin_the_last(tracker)
    mark_sums_that_change(model.graph, tracker)
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
        reads = list(node.reads())
        if node.op in ("Shape", "Size") or all(
            value.array is not None or value in found for value in reads
        ):
            if not node.is_random:
                found.update(node.outputs)
    return found
