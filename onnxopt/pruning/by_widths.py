"""What the allocator asks of a cost that depends on the widths of groups, whatever its form."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, Protocol

import numpy as np

from onnxopt.signature import Array


class Changes(NamedTuple):
    """Changes of single widths: which group becomes wider (narrower: below zero) by how much.

    Both of shape (changes,).
    """

    group: Array
    by: Array


class CostByWidths(Protocol):
    """The cost of a model by the widths of its groups: a polynomial, or tables of times.

    It may fall as a width grows. Widths have shape (groups,); that of a group which is tried at
    others does not matter.
    """

    @property
    def unit(self) -> str: ...

    @property
    def separable(self) -> bool:
        """Whether the cost is a sum of functions of one width each: groups do not interact."""

    def total(self, widths: Sequence[int] | Array) -> float: ...

    def touched_by_group(
        self, group: int, widths: Sequence[int] | Array, candidates: Sequence[int] | Array
    ) -> Array:
        """What depends on one group, for each of its candidate widths: shape (candidates,)."""

    def by_owner(self, widths: Sequence[int] | Array) -> dict[str, float]:
        """The cost of each owner (a node's first output, or a weight)."""

    def without(self, owners: Set[str]) -> CostByWidths:
        """The same without what these owners cost."""

    def crossed(self, widths: Sequence[int] | Array, first: Changes, second: Changes) -> Array:
        """What a change of each and one of the other cost together, less what they cost alone.

        Where both are of one group it does not matter. Exact, or a guess from the present widths.

        Returns:
            float64 of shape (first, second).
        """


def of_group(
    cost: CostByWidths, group: int, widths: Sequence[int] | Array, candidates: Sequence[int] | Array
) -> Array:
    """The total for each candidate width of one group, the others as in `widths`: (candidates,)."""
    now = np.asarray(widths, float)
    tried = np.append(np.asarray(candidates, float), now[group])
    touched = cost.touched_by_group(group, now, tried)
    return np.asarray(touched[:-1] + (cost.total(now) - touched[-1]))
