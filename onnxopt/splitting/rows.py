"""Segments that run one after the other in memory, and how far their outputs are from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxopt.errors import BadModelError
from onnxopt.runtime import Session
from onnxopt.verification.comparison import leaves, structural_difference, wide

SMALLEST_SCALE = 1e-4
"""Outputs that are smaller than this throughout are compared absolutely."""


class Row:
    """Sessions of segments that are run one after the other."""

    def __init__(self, segments: Sequence[onnx.ModelProto], *, optimized: bool) -> None:
        self._sessions = [Session(proto, optimized=optimized) for proto in segments]

    def through(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All that is there once they ran: what was given, and what they made."""
        there = dict(values)
        for session in self._sessions:
            needed = {port.name: _given(there, port.name) for port in session.inputs}
            given = {p.name: there[p.name] for p in session.overridable if p.name in there}
            there.update(session.run(needed | given))
        return there

    run = through


def _given(there: Mapping[str, Any], name: str) -> Any:
    if name not in there:
        raise BadModelError(f"a segment needs '{name}', which no segment before it makes")
    return there[name]


def relative_error(wanted: Any, found: Any) -> float:
    """Largest error of an output relative to its largest element; infinite where types, shapes or
    what is no number differ."""
    if structural_difference(wanted, found).what:
        return float("inf")
    worst = 0.0
    for (_, a), (_, b) in zip(leaves(wanted), leaves(found), strict=True):
        if a is None or b is None:
            continue
        if a.dtype.kind in "OSU":
            worst = max(worst, 0.0 if np.array_equal(a, b) else float("inf"))
            continue
        x, y = wide(a), wide(b)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        if not np.all(same | (np.isfinite(x) & np.isfinite(y))):
            return float("inf")
        scale = np.max(np.abs(x[np.isfinite(x)]), initial=SMALLEST_SCALE)
        apart = np.abs(x[~same] - y[~same])
        worst = max(worst, float(np.max(apart, initial=0.0) / scale))
    return worst
