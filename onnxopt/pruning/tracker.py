"""The atoms of every axis of every value, as they are followed through a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxopt.graph import Array, Constant, Node, Value
from onnxopt.pruning.atoms import Atoms, Axis, IntArray
from onnxopt.pruning.instance import Instance

Side: TypeAlias = Literal["in", "out"]


@dataclass(frozen=True)
class Role:
    """What an axis of a weight is for: `out` makes channels, `in` contracts them."""

    node: Node
    weight: Value
    axis: int
    side: Side


@dataclass
class Tracker:
    """Labels of values: for each axis an atom for each index, or why nothing can be removed.

    Attributes:
        roles: what the axes of weights are for, in the order of the nodes.
        lookahead: whether an axis of a value becomes the batch axis of a product, by
            `follow.heads`; set by the analysis.
        reading: the node that is being followed.
        followed: nodes whose operator is known; only they are adjusted to a cut.
        selective: layers, by their first outputs, that may read a part of what they are given.
        contractions: the axis of its first input that a product contracts, and that of its weight.
        sources: for an axis of a weight whose indices may go alone the axis of what it reads: an
            index of that one takes its own with it, but not the other way round.
    """

    instance: Instance
    atoms: Atoms = field(default_factory=Atoms)
    roles: list[Role] = field(default_factory=list)
    labels: dict[Value, list[Axis]] = field(default_factory=dict)
    lookahead: Callable[[Value, int], bool] = lambda value, axis: False
    reading: Node | None = None
    followed: set[Node] = field(default_factory=set)
    selective: frozenset[str] = frozenset()
    contractions: dict[Node, tuple[int, int]] = field(default_factory=dict)
    sources: dict[tuple[Value, int], IntArray] = field(default_factory=dict)

    def shape(self, value: Value) -> tuple[int, ...] | None:
        return self.instance.shape(value)

    def rank(self, value: Value) -> int | None:
        shape = self.shape(value)
        return value.rank if shape is None else len(shape)

    def is_known(self, value: Value) -> bool:
        """Its rank is known; then so are its labels. What is omitted does not matter."""
        return value.omitted or (
            (rank := self.rank(value)) is not None and rank == len(self._axes(value))
        )

    def integers(self, value: Value) -> Array | None:
        """What an integer value is, if it does not depend on the data; else None."""
        if value.array is not None:
            return value.array
        return self.instance.integers.get(value.name) if value in self.sized else None

    sized: set[Value] = field(default_factory=set)
    """Values computed from shapes and constants alone."""

    entries: dict[Value, list[Any] | None] = field(default_factory=dict)
    """What `follow.sizes` found out about integer values."""

    _alike: set[int] = field(default_factory=set)
    _looked_at: set[tuple[Node | None, Value]] = field(default_factory=set)

    def axes(self, value: Value) -> list[Axis]:
        """Its labels. A constant gets atoms of its own when it is first seen."""
        self._looked_at.add((self.reading, value))
        return self._axes(value)

    def _axes(self, value: Value) -> list[Axis]:
        found = self.labels.get(value)
        if found is None:
            found = self.labels[value] = self._first(value)
        return found

    def _first(self, value: Value) -> list[Axis]:
        shape = self.shape(value) or ()
        if isinstance(value, Constant):
            if value.overridable:
                why = f"callers may override the initializer '{value.name}' (--freeze-inputs)"
                return [why] * len(shape)
            if value.is_sparse:
                return [f"the initializer '{value.name}' is sparse"] * len(shape)
            return [self.atoms.fresh(d) for d in shape]
        graph = value.graph
        inside = graph is not None and graph.parent is not None
        what = "is an input of a loop body" if inside else "is an input of the model"
        return [f"'{value.name}' {what}"] * len(shape)

    def is_parameter(self, node: Node, value: Value) -> bool:
        """The node reads a labelled value without any regard for its labels."""
        return value in self.labels and (node, value) not in self._looked_at

    def set(self, value: Value, axes: Sequence[Axis]) -> None:
        self.labels[value] = list(axes)

    def pin(self, axis: Axis, reason: str) -> None:
        self.atoms.pin(axis, reason)

    def pin_value(self, value: Value, reason: str) -> None:
        for axis in self.axes(value):
            self.pin(axis, reason)

    def unite(self, first: Axis, second: Axis) -> Axis:
        """Indices at the same place live and die together."""
        if isinstance(first, str):
            self.pin(second, first)
            return first
        if isinstance(second, str):
            self.pin(first, second)
            return second
        if len(first) != len(second):
            why = "axes of different lengths meet"
            self.pin(first, why)
            self.pin(second, why)
            return why
        self.atoms.join(first, second)
        return first

    def kept(self, count: int, reason: str) -> IntArray:
        """Atoms that can never be removed."""
        atoms = self.atoms.fresh(count)
        self.pin(atoms, reason)
        return atoms

    def repeated(self, count: int) -> IntArray:
        """Atoms of indices that are all alike: as many as anyone wants."""
        atoms = self.atoms.fresh(count)
        self._alike.update(atoms.tolist())
        return atoms

    def is_free(self, axis: Axis) -> bool:
        """The indices are all alike, and nothing has been joined with them yet."""
        return not isinstance(axis, str) and all(
            a in self._alike and self.atoms.root(a) == a for a in axis.tolist()
        )

    def as_atoms(self, axis: Axis, count: int) -> IntArray:
        return self.kept(count, axis) if isinstance(axis, str) else axis

    def role(self, node: Node, weight: Value, axis: int, side: Side) -> None:
        self.roles.append(Role(node, weight, axis, side))

    def contract(self, node: Node, axis: int, weight: Value, weight_axis: int) -> None:
        """The node multiplies an axis of its first input with an axis of its weight."""
        data, own = self.axes(node.inputs[0])[axis], self.axes(weight)[weight_axis]
        self.contractions[node] = axis, weight_axis
        is_selective = node.outputs[0].name in self.selective
        if not is_selective or isinstance(data, str) or isinstance(own, str):
            self.unite(data, own)
            return
        self.sources[weight, weight_axis] = data
        for same in _places_of_each(self.atoms.roots(data)):
            self.atoms.join_rows(own[None, same])

    def following(self, dead: Collection[int]) -> Iterator[int]:
        """The atoms, by their roots, of what layers cannot read any more without these."""
        gone = np.array(sorted(set(dead)), np.int64)
        for (weight, axis), source in self.sources.items():
            own = self.axes(weight)[axis]
            assert not isinstance(own, str), "it has atoms of its own"
            lost = np.isin(self.atoms.roots(source), gone)
            yield from self.atoms.roots(own[lost]).tolist()

    def join_blocks(self, axis: Axis, blocks: int) -> Axis:
        """Of `blocks` equal parts, each lives and dies as a whole."""
        if isinstance(axis, str):
            return axis
        self.atoms.join_rows(axis.reshape(blocks, -1))
        return axis

    def join_across(self, axis: Axis, blocks: int) -> IntArray | str:
        """Indices at the same place in each of `blocks` equal parts live and die together."""
        if isinstance(axis, str):
            return axis
        table = axis.reshape(blocks, -1)
        self.atoms.join_rows(table.T)
        first: IntArray = table[0]
        return first


def _places_of_each(roots: IntArray) -> Iterator[IntArray]:
    """The places of each root that is there more than once."""
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order])) + 1
    yield from (part for part in np.split(order, starts) if len(part) > 1)


def one_of(axes: Sequence[Axis], tracker: Tracker) -> Axis:
    """All of the axes joined."""
    result = axes[0]
    for axis in axes[1:]:
        result = tracker.unite(result, axis)
    return result


def is_labelled(axis: Axis) -> bool:
    """There is something that could be removed: more than one index, with atoms."""
    return isinstance(axis, np.ndarray) and len(axis) > 1
