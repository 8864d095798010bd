"""All frontier cuts of a model: block by block, between operators that every other one meets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from onnxopt.splitting.dag import Dag
from onnxopt.splitting.growing import Growing, bits, predecessors, successors

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Ints: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

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
        sendings: all pairs of a cut and a tensor that it sends.
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
    sendings: tuple[Ints, Ints]

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
        """All that it sends can be sent, and all that the edge makes can be sent back."""
        if self._stuck & ~self.device[cut]:
            return False
        return not any(self.dag.tensors[tensor].why_not for tensor in self.crossing[cut])

    @cached_property
    def _stuck(self) -> int:
        """Operators, as bits, whose results the edge could not send back."""
        return sum(1 << p for p in {t.producer for t in self.dag.stuck} if p is not None)

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
        owners, tensors = self.sendings
        weights = np.asarray(values, float)[tensors]
        return np.bincount(owners, weights, len(self)).astype(float)

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

    def inner(self) -> list[int]:
        """Those of them with operators on both sides."""
        ends = (0, self.device[self.whole])
        return [cut for cut in self.distinct() if self.device[cut] not in ends]


def names_of(cuts: Cuts, cut: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What names a cut in files: the tensors that cross, and the outputs that the device makes."""
    tensors = cuts.dag.tensors
    return (
        tuple(tensors[t].name for t in cuts.crossing[cut]),
        tuple(tensors[t].name for t in cuts.outputs(cut)),
    )


def enumerate_cuts(
    dag: Dag,
    *,
    most: int = MOST_CUTS,
    more: Iterable[int] = (),
    large: frozenset[int] = frozenset(),
) -> Cuts:
    """All cuts of a model, but for blocks that have more than `most`.

    Of such a block those are there that follow the order of the operators.

    Args:
        more: further down-sets, as bits, for blocks that are not complete; the cuts on the way
            there come with each.
        large: first operators of blocks that are known to have more than `most`.
    """
    growing = Growing(dag)
    blocks = []
    edges = [*separators(dag), len(dag.operators)]
    first, base = 0, 0
    for last in edges:
        complete = first not in large and growing.fill(base, last, most)
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
        _sendings(growing.crossing),
    )


def _sendings(crossing: Sequence[tuple[int, ...]]) -> tuple[Ints, Ints]:
    counts = [len(tensors) for tensors in crossing]
    owners = np.repeat(np.arange(len(crossing)), counts)
    return owners, np.fromiter(chain.from_iterable(crossing), np.int64, sum(counts))


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


def _reach(nearest: Sequence[int], order: Iterable[int]) -> list[int]:
    found = [0] * len(nearest)
    for v in order:
        reach = nearest[v]
        for near in bits(nearest[v]):
            reach |= found[near]
        found[v] = reach
    return found
