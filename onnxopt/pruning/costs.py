"""What a model costs at other widths: its parameters, FLOPs or memory as a WidthCost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import lcm, prod
from typing import Literal, TypeAlias

from onnxopt.cost import Cost
from onnxopt.graph import Constant, Node, Value
from onnxopt.macs import assumed_sizes, macs
from onnxopt.peak import activations
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.widths import Factor, Term, WidthCost

StaticMode: TypeAlias = Literal["flops", "params", "memory"]
"""What the file of a model tells."""

Mode: TypeAlias = Literal["flops", "params", "memory", "latency"]
"""What budgets may be about; latency is measured (`meters.py`)."""

UNITS: dict[Mode, str] = {
    "flops": "FLOPs",
    "params": "parameters",
    "memory": "bytes",
    "latency": "time",
}


def measured(cost: Cost, mode: StaticMode) -> float:
    """What a budget of this mode is compared with.

    FLOPs are twice the multiply-accumulates; memory is weights and all activations, in bytes.
    """
    if mode == "flops":
        return 2.0 * cost.macs
    if mode == "params":
        return float(cost.parameters)
    return float(cost.weight_bytes + cost.activation_bytes)


def width_cost(channels: Channels, groups: Sequence[ChannelGroup], mode: StaticMode) -> WidthCost:
    """The cost of the model as a function of the widths of these groups."""
    counter = _Counter(AxisSizes(channels, groups))
    if mode == "flops":
        terms = list(counter.flops())
    elif mode == "params":
        terms = list(counter.weights(itemsize=False))
    else:
        terms = [*counter.weights(itemsize=True), *counter.activations()]
    return WidthCost(tuple(terms), UNITS[mode])


def owners(groups: Sequence[ChannelGroup]) -> list[frozenset[str]]:
    """For each group the nodes and weights whose cost is the complexity of its layers.

    None of what one layer reads: that layer's cost is already one of what it makes.
    """
    return [
        frozenset(n for r in group.producers for n in (r.weight.name, r.node.outputs[0].name))
        for group in groups
    ]


Axis: TypeAlias = tuple[Factor, int]
"""The size of an axis: the factor divided by the number."""


def _term(scale: float, axes: Sequence[Axis], owner: str) -> Term:
    factors, divisors = tuple(f for f, _ in axes), prod(d for _, d in axes)
    return Term(scale / divisors, factors, owner)


class AxisSizes:
    """How large the axes of values are by the widths of these groups.

    Args:
        as_run: what no group cuts is as large as in a run, even where the model leaves it open.
    """

    def __init__(
        self, channels: Channels, groups: Sequence[ChannelGroup], *, as_run: bool = False
    ) -> None:
        self.channels, self.as_run = channels, as_run
        self.group_of = {unit: i for i, group in enumerate(groups) for unit in group.units}
        self.units = [len(group.units) for group in groups]

    def axes(self, value: Value) -> list[Axis]:
        """The size of each axis; what is not cut, or not known, counts as in `onnxopt inspect`."""
        tracker = self.channels.tracker
        labels = tracker.labels.get(value)
        known, run = assumed_sizes(value), tracker.shape(value)
        sizes = (run or known if self.as_run else known or run) or ()
        found = []
        for axis, size in enumerate(sizes):
            label = labels[axis] if labels is not None and axis < len(labels) else ""
            if isinstance(label, str) or len(label) != size:
                found.append((Factor(size), 1))
            else:
                found.append(self._cut_axis(tracker.atoms.roots(label).tolist()))
        return found

    def unread(self, value: Value) -> list[Axis]:
        """What is left of what a weight chooses from, as a share.

        Of the channels that are read as many are expected to go with their makers as of others.
        """
        tracker = self.channels.tracker
        found = []
        for axis in range(len(tracker.labels.get(value, ()))):
            source = tracker.sources.get((value, axis))
            if source is not None:
                factor, divisor = self._cut_axis(tracker.atoms.roots(source).tolist())
                found.append((factor, divisor * len(source)))
        return found

    def _cut_axis(self, roots: Sequence[int]) -> Axis:
        """All units of a group have as many indices on an axis of a weight.

        Between layers some may have none, after a Split for instance. As many of those as of the
        others are then expected to go.
        """
        counts = Counter(self.group_of[root] for root in roots if root in self.group_of)
        parts = {g: Fraction(count, self.units[g]) for g, count in sorted(counts.items())}
        whole = lcm(*(part.denominator for part in parts.values()))
        pairs = tuple((g, int(part * whole)) for g, part in parts.items())
        return Factor((len(roots) - counts.total()) * whole, pairs), whole

    def at_full(self, axis: Axis) -> float:
        factor, divisor = axis
        return (factor.constant + sum(n * self.units[g] for g, n in factor.multiplicity)) / divisor


class _Counter:
    def __init__(self, sizes: AxisSizes) -> None:
        self.channels, self.axes, self.at_full = sizes.channels, sizes.axes, sizes.at_full
        self.unread = sizes.unread

    def weights(self, *, itemsize: bool) -> Iterator[Term]:
        for graph in self.channels.model.graph.walk():
            for constant in graph.initializers:
                scale = float(constant.dtype.itemsize) if itemsize else 1.0
                yield _term(scale, [*self.axes(constant), *self.unread(constant)], constant.name)

    def activations(self) -> Iterator[Term]:
        for graph in self.channels.model.graph.walk():
            for value in activations(graph):
                if value.dtype is not None and not isinstance(value, Constant):
                    owner = value.producer.outputs[0].name if value.producer else value.name
                    yield _term(float(value.dtype.itemsize), self.axes(value), owner)

    def flops(self) -> Iterator[Term]:
        for graph in self.channels.model.graph.walk():
            for node in graph.nodes:
                if macs(node):
                    for axes in self._products(node):
                        yield _term(2.0, axes, node.outputs[0].name)

    def _products(self, node: Node) -> list[list[Axis]]:
        """The sizes whose products are its multiply-accumulates, as macs.py counts them."""
        axes = [self.axes(v) if not v.omitted else [] for v in node.inputs]
        out = self.axes(node.outputs[0]) if not node.outputs[0].omitted else []
        if node.op == "ConvTranspose":
            return [[*axes[0], *axes[1][1:]]]
        if node.op in ("LSTM", "GRU", "RNN"):
            return [[*axes[0][:2], *axes[1]], [*axes[0][:2], *axes[2]]]
        if "Conv" in node.op:
            place = 3 if node.op == "QLinearConv" else 1
            return [[*out, *axes[place][1:], *self.unread(node.inputs[place])]]
        transposed = bool(node.attrs.get("transA")) and len(axes[0]) > 1
        shared = [axes[0][-2 if transposed else -1]]
        if node.op != "QLinearMatMul" and axes[1]:
            transposed = bool(node.attrs.get("transB")) or len(axes[1]) == 1
            shared.append(axes[1][-1 if transposed else -2])
        if unread := self.unread(node.inputs[1]):
            return [[*out, shared[-1], *unread]]
        return [[*out, max(shared, key=self.at_full)]]  # one that is not known counts as 1
