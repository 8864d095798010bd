"""The Transposes of a graph seen as views: which value each shows, and in which layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from onnxopt.graph import Graph, Node, Shape, Value
from onnxopt.passes.layout.permutation import (
    Perm,
    canonical,
    compose,
    element_count,
    identity,
    invert,
    is_reshape,
    permuted_shape,
)
from onnxopt.passes.layout.switch import Switch

ONE_TRANSPOSE = 1 << 60
"""Cost of a Transpose beside which its size does not count."""

LARGEST_COUNTED = 1 << 40


def transpose_perm(node: Node) -> Perm | None:
    """What a Transpose does; None for other operators, or if its rank is unknown."""
    if node.op != "Transpose" or node.graph is None or not node.is_standard:
        return None
    perm = node.attrs.get("perm")
    rank = node.inputs[0].rank
    if perm is None:
        return None if rank is None else tuple(reversed(range(rank)))
    if rank is not None and rank != len(perm):
        return None
    return tuple(perm)


@dataclass
class Cost:
    """How many Transposes there are, and how many elements they move.

    Attributes:
        elements: number by the symbolic dimensions that it has to be multiplied with.
        unknown: the sizes of some are not known at all.
    """

    count: int = 0
    elements: Counter[tuple[str, ...]] = field(default_factory=Counter)
    unknown: bool = False

    def add(self, shape: Shape | None, moves_nothing: bool) -> None:
        """One Transpose of a value of this shape."""
        self.count += 1
        if moves_nothing:
            return
        if shape is None or None in shape:
            self.unknown = True
            return
        symbols = tuple(sorted(size for size in shape if isinstance(size, str)))
        self.elements[symbols] += prod(size for size in shape if isinstance(size, int))

    def __add__(self, other: Cost) -> Cost:
        elements = self.elements + other.elements
        return Cost(self.count + other.count, elements, self.unknown or other.unknown)

    def is_below(self, other: Cost) -> bool:
        """Certainly cheaper, whatever the symbolic dimensions are."""
        if self.count != other.count or self.unknown or other.unknown:
            return self.count < other.count
        return self.elements < other.elements


@dataclass(frozen=True)
class View:
    """A value that is `root` in layout `perm`, because Transposes make it so (or is the root)."""

    value: Value
    root: Value
    perm: Perm


@dataclass(frozen=True)
class Need:
    """A place where a root is read in some layout; a graph output if there is no consumer."""

    perm: Perm
    view: View
    consumer: Node | None
    index: int


@dataclass
class Views:
    """All Transposes of one graph, chains of them composed."""

    graph: Graph
    of_value: dict[Value, View] = field(default_factory=dict)
    of_root: dict[Value, list[View]] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Views:
        views = cls(graph)
        for node in graph.nodes:
            if node.op == "Transpose":
                views._add_chain(node)
        return views

    def _add_chain(self, last: Node) -> None:
        """A Transpose and those before it (the nodes need not be in a runnable order)."""
        chain: list[tuple[Node, Perm]] = []
        node: Node | None = last
        while node is not None and node.graph is self.graph:
            perm = transpose_perm(node)
            if perm is None or node.outputs[0] in self.of_value:
                break
            chain.append((node, perm))
            node = node.inputs[0].producer
        for node, perm in reversed(chain):
            source = self.view(node.inputs[0], len(perm))
            whole = canonical(compose(source.perm, perm), source.root.shape)
            view = View(node.outputs[0], source.root, whole)
            self.of_value[view.value] = view
            self.of_root.setdefault(view.root, []).append(view)

    def view(self, value: Value, rank: int) -> View:
        return self.of_value.get(value) or View(value, value, identity(rank))

    def all_of(self, root: Value, rank: int) -> list[View]:
        """The root itself, then its Transposes."""
        return [View(root, root, identity(rank)), *self.of_root.get(root, [])]

    def is_transpose(self, node: Node) -> bool:
        return bool(node.outputs) and node.outputs[0] in self.of_value and node.op == "Transpose"

    def readers(self, view: View) -> Iterator[tuple[Node, int]]:
        """Who reads a view, in bodies too, less the Transposes that are views themselves."""
        for node in dict.fromkeys(view.value.consumers):
            if not self.is_transpose(node):
                for index, value in enumerate(node.inputs):
                    if value is view.value:
                        yield node, index

    def needs(self, root: Value, rank: int, switches: Mapping[Node, Switch]) -> list[Need]:
        """Every layout that somebody needs of a root when these nodes are switched."""
        found: list[Need] = []
        for view in self.all_of(root, rank):
            if view.value.is_graph_output:
                found.append(Need(view.perm, view, None, 0))
            for node, index in self.readers(view):
                wanted = self.wanted(view, index, switches.get(node))
                found.append(Need(wanted, view, node, index))
        return found

    def wanted(self, view: View, index: int, switch: Switch | None) -> Perm:
        """The layout of the root that the reader of a view needs, switched or not."""
        layout = None if switch is None else switch.inputs[index]
        if layout is None:
            return view.perm
        return canonical(compose(view.perm, layout), view.root.shape)

    def made(self, root: Value, rank: int, switches: Mapping[Node, Switch]) -> Perm:
        """The layout in which a root is made when these nodes are switched."""
        producer = root.producer
        if producer is None or producer not in switches:
            return identity(rank)
        index = next(i for i, value in enumerate(producer.outputs) if value is root)
        layout = switches[producer].outputs[index]
        return identity(rank) if layout is None else canonical(layout, root.shape)

    def cost_now(self, root: Value) -> Cost:
        """Of the Transposes that the graph has of this root."""
        found = Cost()
        for view in self.of_root.get(root, []):
            node = view.value.producer
            assert node is not None
            perm = transpose_perm(node)
            assert perm is not None
            found.add(root.shape, is_reshape(perm, node.inputs[0].shape))
        return found

    def cost(self, root: Value, rank: int, switches: Mapping[Node, Switch]) -> Cost:
        """Of the Transposes that this root needs when these nodes are switched."""
        made = self.made(root, rank, switches)
        found = Cost()
        for perm in dict.fromkeys(need.perm for need in self.needs(root, rank, switches)):
            if perm != made:
                found.add(root.shape, moves_nothing(root, made, perm))
        return found


def moves_nothing(root: Value, made: Perm, needed: Perm) -> bool:
    """The Transpose that makes one layout of a root of another leaves memory as it is."""
    step = compose(invert(made), needed)
    return is_reshape(step, permuted_shape(root.shape, made))


def weight(root: Value, made: Perm, needed: Perm) -> int:
    """Of that Transpose in a cut: its size counts only among equal numbers of Transposes."""
    free = moves_nothing(root, made, needed)
    return ONE_TRANSPOSE + (0 if free else min(element_count(root.shape), LARGEST_COUNTED))
