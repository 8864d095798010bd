"""Small tensors that follow from shapes alone stay with the operator whose result they look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from onnxopt.graph import Node, Value
from onnxopt.peak import value_bytes

MOST_ELEMENTS = 64
"""A result with more of them is data, not a shape."""

_LOOKS = ("Shape", "Size")


@dataclass(frozen=True)
class Part:
    """A node of the main graph with what it reads that is no constant, captured values too."""

    node: Node
    reads: tuple[Value, ...]


@dataclass
class _Home:
    """Where the shapes of one or several inputs of the model are looked at: before all else.

    Attributes:
        host: the first operator that reads these inputs or their shapes; None until it is met.
        parts: what waits for it.
    """

    host: int | None = None
    parts: list[int] = field(default_factory=list)


class Merging:
    """Which nodes stay together: each chain of shapes with the operator before it.

    What follows from the shape of a tensor is made where the tensor is made. A few bytes then cross
    instead of the tensor, and a cut through the chain, which nobody wants, is none. What follows
    from shapes of inputs stays with the first operator that reads these; what would tie operators
    together that are otherwise free stays an operator of its own.

    Args:
        parts: in a runnable order.

    Attributes:
        host: for each part the number of the part that it stays with, maybe its own.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.host = list(range(len(parts)))
        self._parts = parts
        self._producer = {v: i for i, p in enumerate(parts) for v in p.node.outputs if v.name}
        self._above: list[int] = []  # ancestors of each part as the bits of a number, its own too
        self._homes: dict[Value, _Home] = {}
        self._small: dict[Value, _Home | int] = {}
        for number in range(len(parts)):
            self._take(number)
        for home in self._homes.values():
            if home.host is None and home.parts:
                self._settle(home, min(home.parts))

    def _take(self, number: int) -> None:
        part = self._parts[number]
        self._above.append(1 << number)
        for value in part.reads:
            if value in self._producer:
                self._above[number] |= self._above[self._producer[value]]
        place = self._place(part) if _may_be_shape(part.node) else None
        if place is None:
            self._settle_homes_of(number)
            return
        self._small.update((value, place) for value in part.node.outputs if value.name)
        if isinstance(place, _Home):
            place.parts.append(number)
            if place.host is not None:
                self.host[number] = place.host
        else:
            self.host[number] = place

    def _place(self, part: Part) -> _Home | int | None:
        """What a chain stays with that this part would be the next link of; None if it is none."""
        places: list[_Home | int] = []
        looks = part.node.is_standard and part.node.op in _LOOKS
        for value in part.reads:
            if value in self._small:
                places.append(self._small[value])
            elif not looks:
                return None
            elif value in self._producer:
                places.append(self.host[self._producer[value]])
            else:
                places.append(self._homes.setdefault(value, _Home()))
        return self._lowest(places)

    def _lowest(self, places: Sequence[_Home | int]) -> _Home | int | None:
        """The one of them that comes after all others; None if there is none such."""
        waiting = {id(p): p for p in places if isinstance(p, _Home) and p.host is None}
        if waiting:
            all_wait = all(id(place) in waiting for place in places)
            return self._joined([*waiting.values()]) if all_wait else None
        hosts = [place.host if isinstance(place, _Home) else place for place in places]
        known = [host for host in hosts if host is not None]
        last = max(known)
        return last if all(self._above[last] >> host & 1 for host in known) else None

    def _joined(self, homes: list[_Home]) -> _Home:
        """One home of several inputs; none of them is settled."""
        first, *others = homes
        for other in others:
            first.parts += other.parts
            self._homes.update((v, first) for v, home in self._homes.items() if home is other)
            self._small.update((v, first) for v, home in self._small.items() if home is other)
        return first

    def _settle_homes_of(self, number: int) -> None:
        for value in self._parts[number].reads:
            found = self._small.get(value, self._homes.get(value))
            if isinstance(found, _Home) and found.host is None:
                self._settle(found, number)
        for value in self._parts[number].reads:
            if value not in self._producer:
                self._homes.setdefault(value, _Home(number))

    def _settle(self, home: _Home, host: int) -> None:
        home.host = host
        for part in home.parts:
            self.host[part] = host


def _may_be_shape(node: Node) -> bool:
    if node.bodies or node.is_random or not node.is_standard:
        return False
    return all(_is_small(value) for value in node.outputs if value.name)


def _is_small(value: Value) -> bool:
    shape = value.static_shape
    if shape is None or value.dtype is None or value.dtype.kind == "O":
        return False
    return prod(shape) <= MOST_ELEMENTS and value_bytes(value) <= 8 * MOST_ELEMENTS
