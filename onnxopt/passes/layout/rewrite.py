"""Carry out a choice of layouts: edit the switched nodes, place the Transposes that are left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxopt.graph import Array, Constant, Graph, Node, Value, Variable, detach, drop_detached, link
from onnxopt.passes.layout.permutation import (
    Perm,
    compose,
    identity,
    invert,
    permuted_shape,
)
from onnxopt.passes.layout.switch import Edit, Switch
from onnxopt.passes.layout.views import Need, View, Views
from onnxopt.rewriting.apply import use_instead


@dataclass
class _Root:
    """What happens to one root: the layout it is made in, and who needs which."""

    value: Value
    made: Perm
    needs: list[Need]


def carry_out(views: Views, layouts: Mapping[Value, Perm], chosen: Mapping[Node, Switch]) -> None:
    """Switch these nodes and let the Transposes of these roots be the ones needed then.

    New nodes stand at the end of the graph: it must be sorted afterwards.
    """
    graph = views.graph
    roots = [
        _Root(root, views.made(root, len(p), chosen), views.needs(root, len(p), chosen))
        for root, p in layouts.items()
    ]
    constants = _Constants()
    for node, switch in chosen.items():
        constants.edit(Edit(node, switch.attrs, switch.arrays))
        for other in switch.others:
            constants.edit(other)
    for root in roots:
        _Placer(views, root).place()
    drop_detached(graph)


@dataclass
class _Constants:
    """Gives nodes new attributes and constant inputs, equal ones only once."""

    made: dict[tuple[Graph, str, tuple[int, ...], bytes], Constant] = field(default_factory=dict)

    def edit(self, edit: Edit) -> None:
        node = edit.node
        for name, value in edit.attrs.items():
            node.attrs[name] = value
        for index, array in edit.arrays.items():
            old = node.input(index)
            if old is None or not _equal(old.array, array):
                self._replace(node, index, array)

    def _replace(self, node: Node, index: int, array: Array) -> None:
        graph = node.graph
        assert graph is not None
        old = node.input(index)
        while len(node.inputs) <= index:
            node.inputs.append(Variable(""))
        if isinstance(old, Constant) and _is_free(old, graph):
            node.inputs[index] = graph.replace_initializer(old, array)
            return
        key = (graph, array.dtype.str, array.shape, array.tobytes())
        if key not in self.made:
            base = old.name if old is not None else f"{node.outputs[0].name}_{node.op}_{index}"
            self.made[key] = graph.add_initializer(array, base)
        node.inputs[index] = self.made[key]
        producer = None if old is None else old.producer
        if producer is not None and not any(value.is_used for value in producer.outputs):
            owner = producer.graph
            detach(producer)
            if owner is not None and owner is not graph:
                drop_detached(owner)


def _equal(old: Array | None, new: Array) -> bool:
    return (
        old is not None
        and old.dtype == new.dtype
        and old.shape == new.shape
        and bool(np.array_equal(old, new))
    )


def _is_free(old: Constant, graph: Graph) -> bool:
    return (
        old.graph is graph
        and not old.overridable
        and not old.is_graph_output
        and old.name not in graph.root.protected
        and len(old.consumers) == 1
    )


class _Placer:
    """Lets the producer of one root make its new layout, and Transposes the others needed."""

    def __init__(self, views: Views, root: _Root) -> None:
        self.views = views
        self.graph = views.graph
        self.root = root.value
        self.made = root.made
        self.needs = root.needs
        self.plain = identity(len(root.made))
        self.shape = root.value.shape
        self.values: dict[Perm, Value] = {self.plain: root.value}
        own = views.of_root.get(root.value, [])
        for view in sorted(own, key=lambda view: not view.value.is_graph_output):
            self.values.setdefault(view.perm, view.value)

    def place(self) -> None:
        store = self._store()
        for perm in dict.fromkeys(need.perm for need in self.needs):
            if perm != self.made:
                self._ensure(perm, store)
        for need in self.needs:
            if need.consumer is not None:
                need.consumer.inputs[need.index] = self.values[need.perm]
        for view in reversed(self.views.of_root.get(self.root, [])):
            self._tidy(view)

    def _store(self) -> Value:
        """The value in the layout that is made."""
        if self.made == self.plain:
            return self.root
        producer = self.root.producer
        assert producer is not None
        store = self.values.get(self.made)
        if store is None:
            store = self._new_value(self.made)
        else:
            old = store.producer
            assert old is not None
            detach(old)
        index = next(i for i, value in enumerate(producer.outputs) if value is self.root)
        producer.outputs[index] = store
        self._describe(store, self.made)
        return store

    def _new_value(self, perm: Perm) -> Value:
        value = self.graph.new_value(f"{self.root.name}_transposed")
        self.values[perm] = value
        self._describe(value, perm)
        return value

    def _describe(self, value: Value, perm: Perm) -> None:
        if isinstance(value, Variable):
            value.dtype = self.root.dtype
            value.shape = permuted_shape(self.shape, perm)

    def _ensure(self, perm: Perm, store: Value) -> None:
        """A Transpose that makes this layout of the stored one."""
        value = self.values.get(perm) or self._new_value(perm)
        step = compose(invert(self.made), perm)
        node = value.producer
        if node is None or node.op != "Transpose" or value is self.root:
            node = Node("Transpose", [store], [value], opset=self.graph.opsets.get("", 1))
            self.graph.nodes.append(node)
            link(self.graph, [node])
        if node.inputs[0] is not store:
            node.inputs[0] = store
        node.attrs["perm"] = list(step)

    def _tidy(self, view: View) -> None:
        """Drop a Transpose that nothing needs any more, or that makes what another value is."""
        value, same = view.value, self.values.get(view.perm)
        node = value.producer
        if node is None or node.op != "Transpose":
            return
        if not value.is_used:
            detach(node)
        elif same is not None and value is not same:
            added = use_instead(value, same, node)
            self.graph.nodes.extend(added)
            if not added:
                self.values[view.perm] = value
