"""All frontier cuts of a model: block by block, between operators that every other one meets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from onnxopt.splitting.dag import Dag

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

MOST_CUTS = 20_000
"""A block with more down-sets than this is left to the flow (`flow.py`)."""


@dataclass(frozen=True)
class Block:
    """Operators between two separators, or before the first, or behind the last.

    Attributes:
        first, last: numbers of its operators: from first to before last.
        base: the cut that has all before it on the device, and nothing of it.
        is_complete: all its cuts are there; otherwise only some of them.
    """

    first: int
    last: int
    base: int
    is_complete: bool


@dataclass(frozen=True)
class Cuts:
    """Cuts of a model as a tree: each is another one with one more operator on the device.

    The first one has nothing on the device; the one with the most operators has everything. Cuts
    that send what cannot be sent are among them, as others grow out of these: see `is_legal`.

    Attributes:
        device: for each cut, its operators on the device as the bits of a number.
        crossing: the tensors that it sends, ascending, as `Dag.crossing` says.
        parent, added: the cut that it grew out of, and the operator that was added; -1 for the
            first. Parents come before their children.
        weight_bytes: of the weights that the device holds, shared ones once.
        peak_bytes: activations alive at once on the device, as its operators run in order; views
            count as copies.
        blocks: in order; together they hold all operators but the separators.
        most: a block with more cuts is not complete.
    """

    dag: Dag
    device: tuple[int, ...]
    crossing: tuple[tuple[int, ...], ...]
    parent: tuple[int, ...]
    added: tuple[int, ...]
    weight_bytes: tuple[int, ...]
    peak_bytes: tuple[int, ...]
    blocks: tuple[Block, ...]
    most: int

    def __len__(self) -> int:
        return len(self.device)

    @property
    def whole(self) -> int:
        """The cut that has everything on the device."""
        return self.device.index((1 << len(self.dag.operators)) - 1)

    @property
    def is_complete(self) -> bool:
        """No block was left to the flow."""
        return all(block.is_complete for block in self.blocks)

    def operators(self, cut: int) -> tuple[int, ...]:
        """The operators on the device, ascending."""
        return bits(self.device[cut])

    def is_legal(self, cut: int) -> bool:
        """All that it sends can be sent."""
        return not any(self.dag.tensors[tensor].why_not for tensor in self.crossing[cut])

    def outputs(self, cut: int) -> tuple[int, ...]:
        """Outputs of the model that the device makes itself, ascending.

        What the device computes is what these and the tensors that cross need.
        """
        device = self.device[cut]
        return tuple(
            number
            for number, tensor in enumerate(self.dag.tensors)
            if tensor.is_output and tensor.producer is not None and device >> tensor.producer & 1
        )

    def sums(self, values: Sequence[float]) -> Floats:
        """For each cut the sum of a value of each operator over those on the device."""
        found = [0.0] * len(self)
        for cut in range(1, len(self)):
            found[cut] = found[self.parent[cut]] + values[self.added[cut]]
        return np.array(found)

    def sent(self, values: Sequence[float]) -> Floats:
        """For each cut the sum of a value of each tensor over those that cross, each once."""
        return np.array(
            [sum([values[tensor] for tensor in crossing]) for crossing in self.crossing]
        )

    def distinct(self) -> tuple[int, ...]:
        """Legal cuts, one for each set of tensors that crosses, those with least on the device.

        Ordered by how many operators the device has.
        """
        order = sorted(range(len(self)), key=lambda cut: (self.device[cut].bit_count(), cut))
        first: dict[tuple[int, ...], int] = {}
        for cut in order:
            if self.is_legal(cut):
                first.setdefault(self.crossing[cut], cut)
        return tuple(first.values())


def names_of(cuts: Cuts, cut: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What names a cut in files: the tensors that cross, and the outputs that the device makes."""
    tensors = cuts.dag.tensors
    return (
        tuple(tensors[t].name for t in cuts.crossing[cut]),
        tuple(tensors[t].name for t in cuts.outputs(cut)),
    )


def bits(number: int) -> tuple[int, ...]:
    """Places of the ones in a number, ascending."""
    found = []
    while number:
        lowest = number & -number
        found.append(lowest.bit_length() - 1)
        number ^= lowest
    return tuple(found)


def enumerate_cuts(dag: Dag, *, most: int = MOST_CUTS, more: Iterable[int] = ()) -> Cuts:
    """All cuts of a model, but for blocks that have more than `most`.

    Of such a block those are there that follow the order of the operators.

    Args:
        more: further down-sets, as bits, for blocks that are not complete; the cuts on the way
            there come with each.
    """
    growing = _Growing(dag)
    blocks = []
    edges = [*separators(dag), len(dag.operators)]
    first, base = 0, 0
    for last in edges:
        complete = growing.fill(base, last, most)
        blocks.append(Block(first, last, base, complete))
        for operator in range(first, last) if not complete else ():
            base = growing.grow(base, operator)
        base = growing.at[(1 << last) - 1]
        if last < len(dag.operators):
            base = growing.grow(base, last)
        first = last + 1
    for device in more:
        growing.reach(device)
    return Cuts(
        dag,
        tuple(growing.device),
        tuple(growing.crossing),
        tuple(growing.parent),
        tuple(growing.added),
        tuple(growing.weight_bytes),
        tuple(growing.peak_bytes),
        tuple(block for block in blocks if block.first < block.last),
        most,
    )


def separators(dag: Dag) -> tuple[int, ...]:
    """Operators comparable with all others: each other one comes before or after it, always.

    A down-set has all operators before its last separator, and none after the next one.
    """
    before = _reach(predecessors(dag), range(len(dag.operators)))
    after = _reach(successors(dag), range(len(dag.operators) - 1, -1, -1))
    others = len(dag.operators) - 1
    return tuple(
        v
        for v in range(len(dag.operators))
        if before[v].bit_count() + after[v].bit_count() == others
    )


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


def _reach(nearest: Sequence[int], order: Iterable[int]) -> list[int]:
    found = [0] * len(nearest)
    for v in order:
        reach = nearest[v]
        for near in bits(nearest[v]):
            reach |= found[near]
        found[v] = reach
    return found


def _union(parts: Iterable[int]) -> int:
    found = 0
    for part in parts:
        found |= part
    return found


@dataclass
class _Growing:
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
        self._vain = [
            sum(tensors[t].size_bytes for t in op.makes if self._is_vain(t)) for op in operators
        ]
        held = sum(tensors[t].size_bytes for t in inputs)
        self._held_weights, self._live = [0], [held]
        self.device, self.parent, self.added = [0], [-1], [-1]
        self.crossing = [tuple(t for t in inputs if tensors[t].readers)]
        self.weight_bytes, self.peak_bytes, self.at = [0], [held], {0: 0}

    def _is_vain(self, tensor: int) -> bool:
        return not (self.dag.tensors[tensor].readers or self.dag.tensors[tensor].is_output)

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
        self._live.append(live - freed - self._vain[operator])
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
