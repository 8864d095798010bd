"""Sums of products of affine functions of widths, as arrays: evaluated often, built once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from onnxopt.signature import Array

Affine: TypeAlias = tuple[int, tuple[tuple[int, int], ...]]
"""constant, ((group, count), ...): constant + the sum of count * widths[group]."""

Product: TypeAlias = tuple[Affine, ...]
"""The product of these; of none, 1."""


@dataclass(frozen=True)
class Products:
    """Products as arrays, padded with factors of 1 to the same number of factors.

    Attributes:
        scale: of each product in the sum, shape (products,).
        constant: shape (factors, products).
        place, group, count: shape (entries,): which factor (flat), which group, how often.
    """

    scale: Array
    constant: Array
    place: Array
    group: Array
    count: Array

    @classmethod
    def of(cls, products: Sequence[Product], scale: Array) -> Products:
        constant = np.ones((max(map(len, products), default=0) or 1, len(products)))
        entries: list[tuple[int, int, int]] = []
        for column, product in enumerate(products):
            for row, (offset, held) in enumerate(product):
                constant[row, column] = offset
                place = row * len(products) + column
                entries += [(place, group, count) for group, count in held]
        columns: Any = np.array(entries, np.int64).reshape(-1, 3).T
        return cls(scale, constant, columns[0], columns[1], columns[2].astype(float))

    def sizes(self, widths: Array) -> Array:
        """The size of each factor: shape (factors, products)."""
        held = np.bincount(
            self.place, weights=self.count * widths[self.group], minlength=self.constant.size
        )
        return np.asarray(self.constant + held.reshape(self.constant.shape))

    def values(self, widths: Array) -> Array:
        """Each product, without its scale: shape (products,)."""
        return np.asarray(np.multiply.reduce(self.sizes(widths), axis=0))

    def mixed_differences(self, widths: Array) -> Array:
        """The mixed second differences of the sum: shape (groups, groups), zero diagonal."""
        sizes, shape = self.sizes(widths), (len(widths), len(widths))
        found: Array = np.zeros(shape)
        for (first, second), (product, left, right, count) in self._pairs.items():
            others = np.delete(sizes, (first, second), axis=0)
            value = self.scale * np.multiply.reduce(others, axis=0)
            flat = np.ravel_multi_index((left, right), shape)
            sums = np.bincount(flat, weights=count * value[product], minlength=found.size)
            found += sums.reshape(shape) + sums.reshape(shape).T
        np.fill_diagonal(found, 0)
        return found

    @cached_property
    def _pairs(self) -> dict[tuple[int, int], tuple[Array, Array, Array, Array]]:
        """For each two factors: the product, the group in the one, that in the other, counts."""
        rows, columns = np.divmod(self.place, self.constant.shape[1])
        held: dict[tuple[int, int], list[int]] = {}
        for entry, key in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            held.setdefault(key, []).append(entry)
        found = {}
        for first, second in combinations(range(len(self.constant)), 2):
            pairs: Any = [
                (column, left, right)
                for (row, column), entries in held.items()
                if row == first
                for left in entries
                for right in held.get((second, column), ())
            ]
            column, left, right = np.array(pairs, np.int64).reshape(-1, 3).T
            counts = self.count[left] * self.count[right]
            found[first, second] = (column, self.group[left], self.group[right], counts)
        return found


@dataclass(frozen=True)
class Part:
    """The products that one group is in: what the other groups give, and the own multiplicity.

    Attributes:
        others: these products without what the group holds of their factors.
        own: how often a unit of the group is in each factor, shape (factors, products).
    """

    others: Products
    own: Array

    @classmethod
    def of(cls, group: int, products: Sequence[Product], scale: Array) -> Part:
        whole = Products.of(products, scale)
        mine = whole.group == group
        own = np.zeros(whole.constant.size)
        own[whole.place[mine]] = whole.count[mine]
        others = Products(
            scale, whole.constant, whole.place[~mine], whole.group[~mine], whole.count[~mine]
        )
        return cls(others, own.reshape(whole.constant.shape))

    def cost(self, widths: Array, candidates: Array) -> Array:
        """What these products cost at each candidate width of the group: shape (candidates,)."""
        sizes = self.sizes(widths, candidates)
        return np.asarray(self.others.scale @ np.multiply.reduce(sizes, axis=0))

    def sizes(self, widths: Array, candidates: Array) -> Array:
        """The size of each factor at each candidate width: (factors, products, candidates)."""
        return np.asarray(self.others.sizes(widths)[:, :, None] + self.own[:, :, None] * candidates)
