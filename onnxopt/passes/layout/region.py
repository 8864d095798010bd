"""Which nodes could change their layout together, and which of them should, by a minimum cut."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from onnxopt.graph import Node, Value
from onnxopt.mincut import INFINITE, SINK, SOURCE, Network
from onnxopt.passes.layout.permutation import (
    Perm,
    canonical,
    compose,
    identity,
    invert,
    is_identity,
)
from onnxopt.passes.layout.rules import with_input, with_output
from onnxopt.passes.layout.switch import Switch
from onnxopt.passes.layout.views import Cost, Need, Views, weight

MOST_NODES = 4000


@dataclass
class Region:
    """Nodes that one change of layout can reach, each with the switch that it would take.

    Attributes:
        layouts: the other layout of each root in it.
        switches: what each node would do; a node that is reached in two ways keeps the first.
        stopped_at: the nodes that cannot work on the layout which reaches them.
    """

    views: Views
    layouts: dict[Value, Perm] = field(default_factory=dict)
    switches: dict[Node, Switch] = field(default_factory=dict)
    stopped_at: dict[Node, None] = field(default_factory=dict)

    @classmethod
    def around(cls, views: Views, root: Value, layout: Perm) -> Region:
        """All that could follow if this root were stored in this layout."""
        region = cls(views)
        region.layouts[root] = canonical(layout, root.shape)
        queue = deque([root])
        while queue and len(region.switches) < MOST_NODES:
            queue.extend(region._spread(queue.popleft()))
        return region

    def _spread(self, root: Value) -> list[Value]:
        """Switch the nodes around a root; returns the roots that got a layout by that."""
        layout = self.layouts[root]
        found: list[Value] = []
        producer = root.producer
        if producer is not None and not is_identity(layout) and self._is_inside(producer):
            index = next(i for i, value in enumerate(producer.outputs) if value is root)
            found += self._add(producer, with_output(producer, index, layout))
        for view in self.views.all_of(root, len(layout)):
            own = canonical(compose(invert(view.perm), layout), view.value.shape)
            if is_identity(own):
                continue
            for node, index in self.views.readers(view):
                if self._is_inside(node):
                    found += self._add(node, with_input(node, index, own))
        return found

    def _is_inside(self, node: Node) -> bool:
        return node.graph is self.views.graph and node not in self.switches

    def _add(self, node: Node, switch: Switch | None) -> list[Value]:
        if switch is None:
            self.stopped_at[node] = None
            return []
        self.stopped_at.pop(node, None)
        self.switches[node] = switch
        found: list[Value] = []
        for value, layout in zip(node.inputs, switch.inputs, strict=False):
            if layout is not None:
                view = self.views.view(value, len(layout))
                whole = canonical(compose(view.perm, layout), view.root.shape)
                found += self._give(view.root, whole)
        for value, layout in zip(node.outputs, switch.outputs, strict=True):
            if layout is not None:
                found += self._give(value, canonical(layout, value.shape))
        return found

    def _give(self, root: Value, layout: Perm) -> list[Value]:
        if root in self.layouts:
            return []
        self.layouts[root] = layout
        return [root]

    def best(self) -> dict[Node, Switch]:
        """The nodes that should switch so that the fewest Transposes are left."""
        network = Network()
        points = {node: network.point() for node in self.switches}
        for root, layout in self.layouts.items():
            _Costs(self, network, points, root, len(layout)).add()
        yes = network.say_yes()
        return {node: self.switches[node] for node, point in points.items() if point in yes}

    def cost_now(self) -> Cost:
        return sum((self.views.cost_now(root) for root in self.layouts), Cost())

    def cost(self, chosen: dict[Node, Switch]) -> Cost:
        costs = (self.views.cost(r, len(p), chosen) for r, p in self.layouts.items())
        return sum(costs, Cost())


@dataclass
class _Readers:
    """Who needs one layout of a root: when it is not switched, when it is, or in any case."""

    unless: dict[int, None] = field(default_factory=dict)
    if_switched: dict[int, None] = field(default_factory=dict)
    always: bool = False


@dataclass
class _Costs:
    """Adds to a network what the Transposes of one root cost."""

    region: Region
    network: Network
    points: dict[Node, int]
    root: Value
    rank: int

    def add(self) -> None:
        views, switches = self.region.views, self.region.switches
        before = identity(self.rank)
        after = views.made(self.root, self.rank, switches)
        producer = self.root.producer
        maker = None if producer is None or after == before else self.points[producer]
        for perm, readers in self._readers().items():
            if perm == before and maker is None:
                continue
            if perm == before:
                assert maker is not None
                self._from_no(maker, readers, weight(self.root, after, perm))
            elif perm == after:
                assert maker is not None
                self._to_yes(maker, readers, weight(self.root, before, perm))
            elif not readers.always:
                self._anyhow(readers, weight(self.root, before, perm))

    def _readers(self) -> dict[Perm, _Readers]:
        views, switches = self.region.views, self.region.switches
        found: dict[Perm, _Readers] = {}
        pairs: list[tuple[Need, Need]] = list(
            zip(
                views.needs(self.root, self.rank, {}),
                views.needs(self.root, self.rank, switches),
                strict=True,
            )
        )
        for old, new in pairs:
            if old.perm == new.perm:
                found.setdefault(old.perm, _Readers()).always = True
                continue
            assert old.consumer is not None
            point = self.points[old.consumer]
            found.setdefault(old.perm, _Readers()).unless[point] = None
            found.setdefault(new.perm, _Readers()).if_switched[point] = None
        return found

    def _from_no(self, maker: int, readers: _Readers, cost: int) -> None:
        """Costs if the maker switches and somebody still needs the layout from before."""
        if readers.always or readers.if_switched:
            self.network.edge(SOURCE, maker, cost)
        else:
            self.network.edge(self._any_no(readers), maker, cost)

    def _to_yes(self, maker: int, readers: _Readers, cost: int) -> None:
        """Costs if the maker does not switch and somebody needs the layout that it would make."""
        if readers.always or readers.unless:
            self.network.edge(maker, SINK, cost)
        else:
            self.network.edge(maker, self._any_yes(readers), cost)

    def _anyhow(self, readers: _Readers, cost: int) -> None:
        if readers.unless:
            self.network.edge(self._any_no(readers), SINK, cost)
        if readers.if_switched:
            self.network.edge(SOURCE, self._any_yes(readers), cost)

    def _any_no(self, readers: _Readers) -> int:
        point = self.network.point()
        for reader in readers.unless:
            self.network.edge(reader, point, INFINITE)
        return point

    def _any_yes(self, readers: _Readers) -> int:
        point = self.network.point()
        for reader in readers.if_switched:
            self.network.edge(point, reader, INFINITE)
        return point
