"""What a model costs at other widths: its parameters, FLOPs or memory as a WidthCost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np

from onnxopt.cost import Cost
from onnxopt.graph import Constant, Node, Value
from onnxopt.macs import assumed_sizes, macs
from onnxopt.peak import activations
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.widths import Factor, Term, WidthCost

Mode: TypeAlias = Literal["flops", "params", "memory"]
UNITS: dict[Mode, str] = {"flops": "FLOPs", "params": "parameters", "memory": "bytes"}


def measured(cost: Cost, mode: Mode) -> float:
    """What a budget of this mode is compared with.

    FLOPs are twice the multiply-accumulates; memory is weights and all activations, in bytes.
    """
    if mode == "flops":
        return 2.0 * cost.macs
    if mode == "params":
        return float(cost.parameters)
    return float(cost.weight_bytes + cost.activation_bytes)


def width_cost(channels: Channels, groups: Sequence[ChannelGroup], mode: Mode) -> WidthCost:
    """The cost of the model as a function of the widths of these groups."""
    counter = _Counter(channels, groups)
    if mode == "flops":
        terms = list(counter.flops())
    elif mode == "params":
        terms = list(counter.weights(itemsize=False))
    else:
        terms = [*counter.weights(itemsize=True), *counter.activations()]
    return WidthCost(tuple(terms), UNITS[mode])


def owners(groups: Sequence[ChannelGroup]) -> list[frozenset[str]]:
    """For each group the nodes and weights whose cost is the complexity of its layers."""
    return [
        frozenset(n for r in group.producers for n in (r.weight.name, r.node.outputs[0].name))
        for group in groups
    ]


class _Counter:
    def __init__(self, channels: Channels, groups: Sequence[ChannelGroup]) -> None:
        self.channels = channels
        self.group_of = {unit: i for i, group in enumerate(groups) for unit in group.units}

    def factors(self, value: Value) -> list[Factor]:
        """The size of each axis; what is not cut counts as in `onnxopt inspect`."""
        tracker = self.channels.tracker
        axes = tracker.labels.get(value)
        sizes = assumed_sizes(value) or tracker.shape(value) or ()
        found = []
        for axis, size in enumerate(sizes):
            label = axes[axis] if axes is not None and axis < len(axes) else ""
            if isinstance(label, str):
                found.append(Factor(size))
                continue
            roots = tracker.atoms.roots(label).tolist()
            groups = [self.group_of[root] for root in roots if root in self.group_of]
            numbers, counts = np.unique(np.array(groups, np.int64), return_counts=True)
            # Each unit of a group takes as many indices of an axis as any other.
            members = {g: len({r for r in roots if self.group_of.get(r) == g}) for g in numbers}
            pairs = tuple(
                (int(g), int(c) // members[g]) for g, c in zip(numbers, counts, strict=True)
            )
            found.append(Factor(len(roots) - len(groups), pairs))
        return found

    def weights(self, *, itemsize: bool) -> Iterator[Term]:
        for graph in self.channels.model.graph.walk():
            for constant in graph.initializers:
                scale = float(constant.dtype.itemsize) if itemsize else 1.0
                yield Term(scale, tuple(self.factors(constant)), constant.name)

    def activations(self) -> Iterator[Term]:
        for graph in self.channels.model.graph.walk():
            for value in activations(graph):
                if value.dtype is not None and not isinstance(value, Constant):
                    owner = value.producer.outputs[0].name if value.producer else value.name
                    factors = tuple(self.factors(value))
                    yield Term(float(value.dtype.itemsize), factors, owner)

    def flops(self) -> Iterator[Term]:
        for graph in self.channels.model.graph.walk():
            for node in graph.nodes:
                if macs(node):
                    for factors in self._products(node):
                        yield Term(2.0, tuple(factors), node.outputs[0].name)

    def _products(self, node: Node) -> list[list[Factor]]:
        """The sizes whose products are its multiply-accumulates, as macs.py counts them."""
        axes = [self.factors(v) if not v.omitted else [] for v in node.inputs]
        out = self.factors(node.outputs[0]) if not node.outputs[0].omitted else []
        if node.op == "ConvTranspose":
            return [[*axes[0], *axes[1][1:]]]
        if node.op in ("LSTM", "GRU", "RNN"):
            return [[*axes[0][:2], *axes[1]], [*axes[0][:2], *axes[2]]]
        if "Conv" in node.op:
            return [[*out, *axes[3 if node.op == "QLinearConv" else 1][1:]]]
        transposed = bool(node.attrs.get("transA")) and len(axes[0]) > 1
        return [[*out, axes[0][-2 if transposed else -1]]]
