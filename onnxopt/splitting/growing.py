"""Cuts as they are found: each is a known one with one more operator on the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from onnxopt.splitting.dag import Dag


def bits(number: int) -> tuple[int, ...]:
    """Places of the ones in a number, ascending."""
    found = []
    while number:
        lowest = number & -number
        found.append(lowest.bit_length() - 1)
        number ^= lowest
    return tuple(found)


def predecessors(dag: Dag) -> list[int]:
    """For each operator those that make what it reads, as bits."""
    return [
        _union(1 << p for t in op.reads if (p := dag.tensors[t].producer) is not None)
        for op in dag.operators
    ]


def successors(dag: Dag) -> list[int]:
    """For each operator those that read what it makes, as bits."""
    return [
        _union(1 << reader for t in op.makes for reader in dag.tensors[t].readers)
        for op in dag.operators
    ]


def _union(parts: Iterable[int]) -> int:
    found = 0
    for part in parts:
        found |= part
    return found


@dataclass
class Growing:
    """Cuts as they are found: each a known one with one more operator."""

    dag: Dag
    device: list[int] = field(default_factory=list)
    crossing: list[tuple[int, ...]] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    added: list[int] = field(default_factory=list)
    weight_bytes: list[int] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    at: dict[int, int] = field(default_factory=dict)
    """Which cut has these operators on the device."""

    def __post_init__(self) -> None:
        tensors, operators = self.dag.tensors, self.dag.operators
        inputs = [t for t, tensor in enumerate(tensors) if tensor.producer is None]
        self._readers = [_union(1 << reader for reader in tensor.readers) for tensor in tensors]
        self._weights = [_union(1 << weight for weight in op.weights) for op in operators]
        self._before, self._after = predecessors(self.dag), successors(self.dag)
        self._sent = [tuple(t for t in op.makes if tensors[t].readers) for op in operators]
        self._made = [sum(tensors[t].size_bytes for t in op.makes) for op in operators]
        held = sum(tensors[t].size_bytes for t in inputs)
        self._held_weights, self._live = [0], [held]
        self.device, self.parent, self.added = [0], [-1], [-1]
        self.crossing = [tuple(t for t in inputs if tensors[t].readers)]
        self.weight_bytes, self.peak_bytes, self.at = [0], [held], {0: 0}

    def grow(self, parent: int, operator: int) -> int:
        """The cut with one more operator on the device; its predecessors are there already."""
        device = self.device[parent] | 1 << operator
        if device in self.at:
            return self.at[device]
        readers = self._readers
        over = [t for t in self.dag.operators[operator].reads if readers[t] & device == readers[t]]
        crossing = (*self.crossing[parent], *self._sent[operator])
        if over:
            crossing = tuple([tensor for tensor in crossing if tensor not in over])
        self.at[device] = cut = len(self.device)
        self.device.append(device)
        self.crossing.append(tuple(sorted(crossing)) if len(crossing) > 1 else crossing)
        self.parent.append(parent)
        self.added.append(operator)
        self._hold(parent, operator)
        live = self._live[parent] + self._made[operator]
        self.peak_bytes.append(max(self.peak_bytes[parent], live))
        tensors = self.dag.tensors
        freed = sum([tensors[t].size_bytes for t in over if not tensors[t].is_output])
        self._live.append(live - freed)
        return cut

    def _hold(self, parent: int, operator: int) -> None:
        """The weights that come with an operator and are not on the device yet."""
        held, size = self._held_weights[parent], self.weight_bytes[parent]
        new = self._weights[operator] & ~held
        if new:
            size += sum(self.dag.weight_bytes[weight] for weight in bits(new))
        self._held_weights.append(held | new)
        self.weight_bytes.append(size)

    def fill(self, base: int, last: int, most: int) -> bool:
        """All cuts of the block between a cut and a separator; none if they are more than `most`.

        Each down-set is found once: without its last operator it is one, too. So operators are
        added in ascending order.
        """
        start = len(self.device)
        first = self.device[base].bit_length()
        ready = [v for v in range(first, last) if self._is_ready(v, base)]
        stack = [(base, ready)]
        while stack:
            cut, ready = stack.pop()
            for place, operator in enumerate(ready):
                child = self.grow(cut, operator)
                if len(self.device) - start > most:
                    self._forget(start)
                    return False
                new = [
                    v for v in bits(self._after[operator]) if v < last and self._is_ready(v, child)
                ]
                rest = ready[place + 1 :]
                stack.append((child, sorted(rest + new) if new else rest))
        return True

    def _is_ready(self, operator: int, cut: int) -> bool:
        return not self._before[operator] & ~self.device[cut]

    def _forget(self, start: int) -> None:
        for device in self.device[start:]:
            del self.at[device]
        del self.device[start:], self.crossing[start:], self.parent[start:], self.added[start:]
        del self.weight_bytes[start:], self.peak_bytes[start:]
        del self._held_weights[start:], self._live[start:]

    def reach(self, device: int) -> None:
        """Add a down-set, with all that lie on the way there."""
        cut = 0
        for operator in bits(device):
            assert self._is_ready(operator, cut), self.dag.operators[operator].name
            cut = self.grow(cut, operator)
