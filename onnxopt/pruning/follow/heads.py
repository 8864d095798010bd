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
    """Follows one axis alone: whatever meets it gives way."""

    def unite(self, first: Axis, second: Axis) -> Axis:
        if isinstance(first, str) or (not is_labelled(first) and is_labelled(second)):
            return second
        return first


def runs_as_batch(
    value: Value, axis: int, tracker: Tracker, order: dict[Node, int], follow: Follow
) -> bool:
    """The first product of two activations that the axis reaches runs over it as a batch."""
    scout = _Scout(tracker.instance, sized=tracker.sized)
    size = (tracker.shape(value) or ())[axis]
    labels: list[Axis] = ["not looked at"] * (tracker.rank(value) or 0)
    labels[axis] = scout.atoms.fresh(size)
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
            if any(is_labelled(label) for label in scout.labels.get(output, ())):
                _push(output, order, queue)
    return False


def _push(value: Value, order: dict[Node, int], queue: list[tuple[int, int]]) -> None:
    for consumer in value.consumers:
        if consumer in order:
            heappush(queue, (order[consumer], 0))


def _verdict(node: Node, scout: Tracker) -> bool | None:
    """None where nothing is decided yet."""
    if node.op == "InstanceNormalization":
        return is_labelled(scout.axes(node.inputs[0])[1])
    if node.op == "Attention" and scout.rank(node.inputs[0]) == 4:
        return any(is_labelled(scout.axes(v)[1]) for v in node.inputs[:3])
    if node.op == "MatMul":
        for value in node.inputs:
            labels = scout.labels.get(value)
            if labels is not None and value.array is None:
                places = [i for i, label in enumerate(labels) if is_labelled(label)]
                if places:
                    other = node.inputs[1] if value is node.inputs[0] else node.inputs[0]
                    return other.array is None and max(places) < len(labels) - 2
    if node.op == "Einsum":
        terms = str(node.attr("equation")).replace(" ", "").split("->")[0].split(",")
        for term, value in zip(terms, node.inputs, strict=False):
            labels = scout.labels.get(value) or []
            for letter, label in zip(term, labels, strict=False):
                if is_labelled(label):
                    return all(letter in other for other in terms)
    return None
