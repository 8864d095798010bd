"""Groups of channels, from the atoms of the weights: what is alike, and what is declined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.graph import Constant, Value
from onnxopt.pruning.tracker import Role, Tracker

READS = " (reads)"
"""What follows the name of a layer in the name of the group of what it reads."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one kind: any of them may be removed, each with all that hangs on it.

    Attributes:
        name: the node that makes them first.
        units: for each channel the root of its atoms.
        producers, consumers: axes of weights that make and that contract them. Without producers
            they are what one layer reads: only its own weights go.
        changed: where removing one changes the values of others ("" if the cut is exact).
    """

    name: str
    units: tuple[int, ...]
    producers: tuple[Role, ...]
    consumers: tuple[Role, ...]
    changed: str = ""

    @property
    def is_read(self) -> bool:
        """Any of them may be left unread by the one layer, whatever else becomes of them."""
        return not self.producers

    @property
    def exact(self) -> bool:
        return not self.changed


@dataclass(frozen=True)
class Declined:
    """Channels that cannot be removed, and why."""

    node: str
    channels: int
    reason: str


def _members(tracker: Tracker) -> dict[int, list[tuple[int, int, int]]]:
    """For each root where its atoms are among the constants: value, axis and how often."""
    found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for number, (value, axes) in enumerate(tracker.labels.items()):
        if not isinstance(value, Constant):
            continue
        for axis, label in enumerate(axes):
            if isinstance(label, str):
                continue
            roots, counts = np.unique(tracker.atoms.roots(label), return_counts=True)
            for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
                found[root].append((number, axis, count))
    return found


def find_groups(tracker: Tracker) -> tuple[ChannelGroup, ...]:
    roles = _roles_of_roots(tracker)
    kinds: dict[tuple[tuple[int, int, int], ...], list[int]] = {}
    members = _members(tracker)
    for root in roles:
        if root in members and tracker.atoms.why_pinned(root) is None:
            kinds.setdefault(tuple(members[root]), []).append(root)
    groups: list[ChannelGroup] = []
    for units in kinds.values():
        own = list(dict.fromkeys(role for unit in units for role in roles[unit]))
        producers = tuple(r for r in own if r.side == "out")
        consumers = tuple(r for r in own if r.side == "in")
        if len(units) < 2 or not (producers or _is_read(units[0], own, tracker)):
            continue
        changed = next((w for u in units if (w := tracker.atoms.why_changed(u))), "")
        groups.append(ChannelGroup(_name(own, groups), tuple(units), producers, consumers, changed))
    return tuple(groups)


def _roles_of_roots(tracker: Tracker) -> dict[int, list[Role]]:
    """The roles of each root whose atoms are on an axis of a weight, in the order of the nodes."""
    found: dict[int, list[Role]] = {}
    for role in tracker.roles:
        if not is_weight(role.weight):
            continue
        label = tracker.axes(role.weight)[role.axis]
        if isinstance(label, str) or len(label) < 2:
            continue
        source = tracker.sources.get((role.weight, role.axis), label[:0])
        for root in dict.fromkeys(tracker.atoms.roots(np.append(label, source)).tolist()):
            found.setdefault(root, []).append(role)
    return found


def _is_read(root: int, roles: Sequence[Role], tracker: Tracker) -> bool:
    """It is an atom of what one layer chooses to read, and not of what it chooses from."""
    places = [(role.weight, role.axis) for role in roles]
    if len(places) != 1 or places[0] not in tracker.sources:
        return False
    label = tracker.axes(places[0][0])[places[0][1]]
    return not isinstance(label, str) and root in tracker.atoms.roots(label)


def is_weight(value: Value) -> bool:
    """A constant, or one that is dequantized or cast on its way."""
    if value.array is not None:
        return True
    producer = value.producer
    return (
        producer is not None
        and producer.op in ("DequantizeLinear", "Cast", "Transpose", "Identity")
        and is_weight(producer.inputs[0])
    )


def _name(roles: Sequence[Role], before: list[ChannelGroup]) -> str:
    made = next((role.node for role in roles if role.side == "out"), None)
    node = made or roles[0].node
    name = (node.name or node.outputs[0].name) + ("" if made else READS)
    same = sum(group.name == name or group.name.startswith(f"{name} #") for group in before)
    return f"{name} #{same + 1}" if same else name


def find_declined(tracker: Tracker) -> tuple[Declined, ...]:
    found: dict[tuple[str, str], int] = {}
    for role in tracker.roles:
        if role.side != "out":
            continue
        if not is_weight(role.weight) and not isinstance(role.weight, Constant):
            if role.node.op.endswith("Conv") or role.node.op == "ConvTranspose":
                count = (tracker.shape(role.weight) or (0, 0))[role.axis]
                found[role.node.label(), f"'{role.weight.name}' is computed, not stored"] = count
            continue
        label = tracker.axes(role.weight)[role.axis]
        if isinstance(label, str):
            key = (role.node.label(), label)
            found[key] = (tracker.shape(role.weight) or (0, 0))[role.axis]
            continue
        for root in tracker.atoms.roots(label).tolist():
            why = tracker.atoms.why_pinned(root)
            if why is not None:
                key = (role.node.label(), why)
                found[key] = found.get(key, 0) + 1
    return tuple(Declined(node, count, why) for (node, why), count in found.items())
