"""Looking ahead: does an axis become the batch axis of a product, as the heads of attention do?"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from onnxopt.graph import Node, Value
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.tracker import Tracker, is_labelled

FARTHEST = 60
"""Nodes that are looked at."""

Follow = Callable[[Node, Tracker], None]


class _Scout(Tracker):
    """Follows one axis alone, whose atoms are the first: whatever meets it gives way."""

    def unite(self, first: Axis, second: Axis) -> Axis:
        return second if self.is_own(second) and not self.is_own(first) else first

    def is_own(self, axis: Axis) -> bool:
        """It holds indices of the axis that is followed."""
        return is_labelled(axis) and bool((axis < self.size).any())  # type: ignore[operator]

    size: int = 0


def runs_as_batch(
    value: Value, axis: int, tracker: Tracker, order: dict[Node, int], follow: Follow
) -> bool:
    """The first product of two activations that the axis reaches runs over it as a batch."""
    scout = _Scout(tracker.instance, sized=tracker.sized)
    size = (tracker.shape(value) or ())[axis]
    labels: list[Axis] = ["not looked at"] * (tracker.rank(value) or 0)
    labels[axis] = scout.atoms.fresh(size)
    scout.size = size
    scout.set(value, labels)
    queue: list[tuple[int, int]] = []
    nodes = {place: node for node, place in order.items()}
    _push(value, order, queue)
    seen: set[int] = set()
    while queue and len(seen) < FARTHEST:
        place, _ = heappop(queue)
        if place in seen:
            continue
        seen.add(place)
        node = nodes[place]
        verdict = _verdict(node, scout)
        if verdict is not None:
            return verdict
        follow(node, scout)
        for output in node.outputs:
            if any(scout.is_own(label) for label in scout.labels.get(output, ())):
                _push(output, order, queue)
    return False


def _has_statistics(node: Node, scout: _Scout) -> bool:
    """They are taken over the axis behind it, as over the channels of each group."""
    data, given = node.inputs[0], node.input(1)
    chosen = node.attr("axes") if given is None else given.array
    labels = scout.labels.get(data) or []
    reduced = {int(a) % len(labels) for a in chosen} if chosen is not None and labels else set()
    for axis, label in enumerate(labels):
        if not isinstance(label, str) and scout.is_own(label):
            is_whole = len(set(label.tolist())) == len(label)
            return is_whole and axis not in reduced and axis + 1 in reduced
    return False


def _push(value: Value, order: dict[Node, int], queue: list[tuple[int, int]]) -> None:
    for consumer in value.consumers:
        if consumer in order:
            heappush(queue, (order[consumer], 0))


def _verdict(node: Node, scout: _Scout) -> bool | None:
    """None where nothing is decided yet."""
    if node.op == "InstanceNormalization":
        return scout.is_own(scout.axes(node.inputs[0])[1])
    if node.op.startswith("Reduce") and _has_statistics(node, scout):
        return True
    if node.op == "Attention" and scout.rank(node.inputs[0]) == 4:
        return any(scout.is_own(scout.axes(v)[1]) for v in node.inputs[:3])
    if node.op == "MatMul":
        for value in node.inputs:
            labels = scout.labels.get(value)
            if labels is not None and value.array is None:
                places = [i for i, label in enumerate(labels) if scout.is_own(label)]
                if places:
                    other = node.inputs[1] if value is node.inputs[0] else node.inputs[0]
                    return other.array is None and max(places) < len(labels) - 2
    if node.op == "Einsum":
        terms = str(node.attr("equation")).replace(" ", "").split("->")[0].split(",")
        for term, value in zip(terms, node.inputs, strict=False):
            labels = scout.labels.get(value) or []
            for letter, label in zip(term, labels, strict=False):
                if scout.is_own(label):
                    return all(letter in other for other in terms)
    return None
