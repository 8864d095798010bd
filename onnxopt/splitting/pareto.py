"""Which of many points no other one beats in everything at once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Ints: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


def front(values: Floats) -> Ints:
    """The rows that no other row is at most as large as everywhere; of equal rows the first.

    Args:
        values: [points, quantities], less is better.

    Returns:
        numbers of rows, ascending.
    """
    if not len(values):
        return np.zeros(0, np.int64)
    scale = np.maximum(values.max(axis=0), 1e-300)
    # Sums are rounded, but never so that a row that is beaten has a smaller one; where both are
    # equal the other columns decide.
    keys = (*values.T[::-1], (values / scale).sum(axis=1))
    left = np.lexsort(keys)
    found = []
    while len(left):
        best, left = left[0], left[1:]
        found.append(int(best))
        left = left[(values[left] < values[best]).any(axis=1)]
    return np.array(sorted(found), np.int64)
