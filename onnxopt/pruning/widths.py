"""The cost of a model as a polynomial of the widths of its channel groups.

A width is the number of units that a group keeps. A convolution costs scale * c_in * c_out, and
each of the two axes holds some units of some groups beside channels that no group can cut.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxopt.pruning.by_widths import Changes
from onnxopt.pruning.polynomial import Affine, Part, Product, Products
from onnxopt.signature import Array


@dataclass(frozen=True)
class Factor:
    """The size of one axis: constant + sum(multiplicity[g] * widths[g]).

    Attributes:
        constant: indices of the axis that no group can cut.
        multiplicity: (group index, how many indices of this axis each of its units takes).
    """

    constant: int
    multiplicity: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Term:
    """scale * product of factors; `owner` is the node or initializer that it is a cost of."""

    scale: float
    factors: tuple[Factor, ...]
    owner: str


@dataclass(frozen=True)
class WidthCost:
    """A sum of terms in one unit: "MACs", "FLOPs", "parameters" or "bytes".

    Scales, constants and multiplicities are not negative, so the cost never falls as a width grows.
    Everything is computed in float64: exact as long as the numbers are integers below 2**53.
    """

    terms: tuple[Term, ...]
    unit: str

    def total(self, widths: Sequence[int] | Array) -> float:
        """The cost at these widths, one for each group."""
        return float(self._products.scale @ self._products.values(np.asarray(widths, float)))

    def touched_by_group(
        self, group: int, widths: Sequence[int] | Array, candidates: Sequence[int] | Array
    ) -> Array:
        """The terms that depend on one group, for each of its candidate widths."""
        part = self._parts.get(group)
        tried = np.asarray(candidates, float)
        return (
            np.zeros(tried.shape) if part is None else part.cost(np.asarray(widths, float), tried)
        )

    def by_owner(self, widths: Sequence[int] | Array) -> dict[str, float]:
        """The cost of each owner, in the order in which they first own a term."""
        owners = {name: index for index, name in enumerate(dict.fromkeys(self._owner_names))}
        index = [owners[name] for name in self._owner_names]
        sums = np.bincount(index, weights=self._values(widths), minlength=len(owners))
        return dict(zip(owners, sums.tolist(), strict=True))

    def interaction(self, widths: Sequence[int] | Array) -> Array:
        """How much more a unit of one group costs for each unit of another: (groups, groups).

        The mixed second difference of the cost, zero on the diagonal. Where each term has at most
        two factors it does not depend on the widths, and narrowing one group by m while widening
        another by n changes the cost by the sum of the two changes less m * n times it.
        """
        now = np.asarray(widths, float)
        return self._products.mixed_differences(now)

    def without(self, owners: Set[str]) -> WidthCost:
        """See `CostByWidths`."""
        return replace(self, terms=tuple(t for t in self.terms if t.owner not in owners))

    def crossed(self, widths: Sequence[int] | Array, first: Changes, second: Changes) -> Array:
        """See `CostByWidths`: exact where each term has at most two factors."""
        each = self.interaction(widths)[np.ix_(first.group, second.group)]
        return np.asarray(each * first.by[:, None] * second.by)

    @cached_property
    def separable(self) -> bool:
        """Whether the cost is a sum of functions of one width each: groups do not interact."""
        return all(
            len(product) <= 1 or len({group for _, held in product for group, _ in held}) <= 1
            for product in self._compiled[0]
        )

    @cached_property
    def _owner_names(self) -> tuple[str, ...]:
        return tuple(term.owner for term in self.terms)

    @cached_property
    def _compiled(self) -> tuple[dict[Product, int], Array, Array]:
        """The distinct products, and for each term the index of its product and its scale."""
        products: dict[Product, int] = {}
        indices, scales = [], []
        for term in self.terms:
            scale, product = _normal(term)
            indices.append(products.setdefault(product, len(products)))
            scales.append(scale)
        return products, np.array(indices, np.int64), np.array(scales, float)

    @cached_property
    def _products(self) -> Products:
        products, indices, scales = self._compiled
        merged = np.bincount(indices, weights=scales, minlength=len(products))
        return Products.of(list(products), merged)

    @cached_property
    def _parts(self) -> dict[int, Part]:
        products = list(self._compiled[0])
        touching: dict[int, list[int]] = {}
        for index, product in enumerate(products):
            for group in {group for _, held in product for group, _ in held}:
                touching.setdefault(group, []).append(index)
        scale = self._products.scale
        return {
            group: Part.of(group, [products[i] for i in indices], scale[indices])
            for group, indices in sorted(touching.items())
        }

    def _values(self, widths: Sequence[int] | Array) -> Array:
        """The cost of each term: shape (terms,)."""
        _, indices, scales = self._compiled
        return np.asarray(scales * self._products.values(np.asarray(widths, float))[indices])


class OwnerCosts:
    """The costs of sets of owners, prepared for asking at many widths. Sets may overlap."""

    def __init__(self, cost: WidthCost, owners: Sequence[frozenset[str]]) -> None:
        _, indices, scales = cost._compiled
        terms: dict[str, list[int]] = {}
        for index, name in enumerate(cost._owner_names):
            terms.setdefault(name, []).append(index)
        pairs = [(s, t) for s, names in enumerate(owners) for n in names for t in terms.get(n, ())]
        pairs.sort()
        self.sets = np.array([s for s, _ in pairs], np.int64)
        chosen = np.array([t for _, t in pairs], np.int64)
        self.products, self.scales = indices[chosen], scales[chosen]
        self.count = len(owners)
        self.values = cost._products.values

    def at(self, widths: Sequence[int] | Array) -> Array:
        """The cost of each set at these widths: float64 of shape (sets,)."""
        weights = self.scales * self.values(np.asarray(widths, float))[self.products]
        return np.bincount(self.sets, weights=weights, minlength=self.count)


def _normal(term: Term) -> tuple[float, Product]:
    """The same term with its constant factors in the scale and the others in a fixed order."""
    scale = float(term.scale)
    factors: list[Affine] = []
    for factor in term.factors:
        sums: dict[int, int] = {}
        for group, count in factor.multiplicity:
            sums[group] = sums.get(group, 0) + count
        held = tuple(sorted((group, count) for group, count in sums.items() if count))
        if held:
            factors.append((factor.constant, held))
        else:
            scale *= factor.constant
    return scale, tuple(sorted(factors))
