"""Fit T = t0 + a * MACs + b * bytes to measured times, with nothing below zero."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from onnxopt.profiling.document import Fit

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

FEWEST_WIDTHS = 4
"""Three numbers are fitted; with fewer widths than this the error would say nothing."""

_MILLION = 1e6


def fit(macs: Sequence[float], sizes: Sequence[float], times_us: Sequence[float]) -> Fit | None:
    """Least squares of the relative errors, so that narrow widths count as much as wide ones.

    Args:
        sizes: bytes that are read and written.
        times_us: above zero.

    Returns:
        None where there are fewer than four different widths.
    """
    if len(set(zip(macs, sizes, strict=True))) < FEWEST_WIDTHS or min(times_us) <= 0:
        return None
    times = np.array(times_us, float)
    columns = np.stack(
        [np.ones(len(times)), np.array(macs, float) / _MILLION, np.array(sizes, float) / _MILLION],
        axis=1,
    )
    factors = non_negative(columns / times[:, None], np.ones(len(times)))
    errors = columns @ factors / times - 1
    t0, per_mmac, per_mb = (float(f) for f in factors)
    return Fit(
        t0, per_mmac, per_mb, float(np.sqrt(np.mean(errors**2))), float(np.abs(errors).max())
    )


def fitted(found: Fit, macs: float, size_bytes: float) -> float:
    """What the fit says, in microseconds."""
    return found.t0_us + (found.us_per_mmac * macs + found.us_per_mb * size_bytes) / _MILLION


def non_negative(columns: Array, target: Array) -> Array:
    """The x >= 0 with the least |columns x - target|^2, for a handful of columns.

    At the solution some entries are zero and the others are plain least squares: each choice of
    these is tried, which is exact and, for three columns, seven small systems.
    """
    count = columns.shape[1]
    best, error = np.zeros(count), float(target @ target)
    for size in range(1, count + 1):
        for chosen in map(list, combinations(range(count), size)):
            part, *_ = np.linalg.lstsq(columns[:, chosen], target, rcond=None)
            residual = columns[:, chosen] @ part - target
            if (part >= 0).all() and float(residual @ residual) < error * (1 - 1e-12):
                best, error = np.zeros(count), float(residual @ residual)
                best[chosen] = part
    return best
