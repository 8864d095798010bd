"""The cost of a model by its widths where each layer has a table of times: it rises in steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxopt.pruning.by_widths import Changes
from onnxopt.pruning.polynomial import Affine, Part, Products
from onnxopt.pruning.widths import Factor
from onnxopt.signature import Array


@dataclass(frozen=True)
class LayerTerm:
    """What one layer costs by the sizes of what it reads and makes.

    Attributes:
        cost: for so many channels in and out.
        axes: both sizes, each as a factor and what that is divided by.
        owner: the first output of the layer's node.
    """

    cost: Callable[[int, int], float]
    axes: tuple[tuple[Factor, int], tuple[Factor, int]]
    owner: str


@dataclass(frozen=True)
class TableCost:
    """A sum over layers, none of which needs to be cheaper where it is narrower.

    It is a `CostByWidths`. Sizes that are no whole numbers are rounded.

    Attributes:
        rest: what the model costs beside these layers, at any widths.
    """

    terms: tuple[LayerTerm, ...]
    unit: str
    rest: float = 0.0

    def total(self, widths: Sequence[int] | Array) -> float:
        return self.rest + float(self._values(np.asarray(widths, float)).sum())

    def touched_by_group(
        self, group: int, widths: Sequence[int] | Array, candidates: Sequence[int] | Array
    ) -> Array:
        now, tried = np.asarray(widths, float), np.asarray(candidates, float)
        found: Array = np.zeros(tried.shape)
        if group in self._parts:
            terms, part = self._parts[group]
            for number, sizes in zip(terms, part.sizes(now, tried).swapaxes(0, 1), strict=True):
                found += self._cost(number, sizes)
        return found

    def by_owner(self, widths: Sequence[int] | Array) -> dict[str, float]:
        found: dict[str, float] = {}
        values = self._values(np.asarray(widths, float)).tolist()
        for term, value in zip(self.terms, values, strict=True):
            found[term.owner] = found.get(term.owner, 0.0) + value
        return found

    def without(self, owners: Set[str]) -> TableCost:
        """See `CostByWidths`."""
        return replace(self, terms=tuple(t for t in self.terms if t.owner not in owners))

    def crossed(self, widths: Sequence[int] | Array, first: Changes, second: Changes) -> Array:
        """Exact: the mixed differences of every layer between two groups."""
        sizes = self._products.sizes(np.asarray(widths, float))
        found: Array = np.zeros((len(first.group), len(second.group)))
        rows, columns = _by_group(first), _by_group(second)
        for number, held in enumerate(self._held):
            pairs = [(g, h) for g in held for h in held if g != h and g in rows and h in columns]
            for one, other in pairs:
                at = np.ix_(rows[one], columns[other])
                now = sizes[:, number, None, None]
                left = held[one][:, None, None] * first.by[rows[one]][:, None]
                right = held[other][:, None, None] * second.by[columns[other]]
                both = self._cost(number, now + left + right)
                apart = self._cost(number, now + left) + self._cost(number, now + right)
                found[at] += both - apart + self._cost(number, now)
        return found

    @cached_property
    def separable(self) -> bool:
        return all(len(held) <= 1 for held in self._held)

    @cached_property
    def _products(self) -> Products:
        return Products.of([self._affine(t) for t in self.terms], np.ones(len(self.terms)))

    @cached_property
    def _held(self) -> list[dict[int, Array]]:
        """For each term the groups in it: how often in what it reads, and in what it makes."""
        found: list[dict[int, Array]] = []
        for term in self.terms:
            held: dict[int, Array] = {}
            for row, (_, pairs) in enumerate(self._affine(term)):
                for group, count in pairs:
                    held.setdefault(group, np.zeros(2))[row] += count
            found.append(held)
        return found

    @cached_property
    def _parts(self) -> dict[int, tuple[list[int], Part]]:
        """For each group its terms, and their sizes by its width."""
        touching: dict[int, list[int]] = {}
        for number, held in enumerate(self._held):
            for group in held:
                touching.setdefault(group, []).append(number)
        return {
            group: (
                numbers,
                Part.of(
                    group, [self._affine(self.terms[n]) for n in numbers], np.ones(len(numbers))
                ),
            )
            for group, numbers in sorted(touching.items())
        }

    @cached_property
    def _tables(self) -> list[dict[tuple[int, int], float]]:
        """What was asked for already, shared by the terms of one cost function."""
        tables: dict[Callable[[int, int], float], dict[tuple[int, int], float]] = {}
        return [tables.setdefault(term.cost, {}) for term in self.terms]

    @staticmethod
    def _affine(term: LayerTerm) -> tuple[Affine, Affine]:
        """Both sizes, not yet divided."""
        (reads, _), (makes, _) = term.axes
        return _held_by(reads), _held_by(makes)

    def _values(self, widths: Array) -> Array:
        """The cost of each term: shape (terms,)."""
        sizes = self._products.sizes(widths)
        each = [float(self._cost(n, sizes[:, n])) for n in range(len(self.terms))]
        return np.array(each, float)

    def _cost(self, number: int, sizes: Array) -> Array:
        """What a term costs at sizes of shape (2, ...)."""
        table, term = self._tables[number], self.terms[number]
        (_, reads), (_, makes) = term.axes
        inputs = np.rint(sizes[0] / reads).astype(np.int64).ravel().tolist()
        outputs = np.rint(sizes[1] / makes).astype(np.int64).ravel().tolist()
        found = []
        for pair in zip(inputs, outputs, strict=True):
            if pair not in table:
                table[pair] = term.cost(*pair)
            found.append(table[pair])
        return np.array(found, float).reshape(sizes.shape[1:])


def _held_by(factor: Factor) -> Affine:
    return factor.constant, factor.multiplicity


def _by_group(changes: Changes) -> dict[int, Array]:
    """For each group the numbers of its changes."""
    return {int(g): np.flatnonzero(changes.group == g) for g in np.unique(changes.group)}
