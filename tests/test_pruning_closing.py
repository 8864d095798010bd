"""Where the allocator falls short of a budget, the best exchange of two groups closes the gap."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pruning_allocate import axis, damage_of, drawn

from onnxopt.pruning.closing import closer
from onnxopt.pruning.curves import Curve
from onnxopt.pruning.widths import Term, WidthCost


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["linear", "chain", "dense"]), st.floats(0.02, 0.3))
def test_the_exchange_with_the_least_damage_is_found_if_there_is_one(
    seed: int, kind: str, tolerated: float
) -> None:
    """One group a step wider, another as it is or narrower: all of these are looked at."""
    curves, cost, aim = drawn(seed, kind)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    now = [int(rng.choice(curve.widths)) for curve in curves]
    harms = []
    for group, curve in enumerate(curves):
        for width in curve.widths[curve.widths.index(now[group]) + 1 :][:1]:
            for other in set(range(len(curves))) - {group}:
                for narrowed in (w for w in curves[other].widths if w <= now[other]):
                    tried = list(now)
                    tried[group], tried[other] = width, narrowed
                    if (1 - tolerated) * aim <= cost.total(tried) <= aim:
                        harms.append(damage_of(curves, tried))
    found = closer(curves, cost, now, aim, tolerated)
    assert (found is None) == (not harms)
    if found is not None:
        assert (1 - tolerated) * aim <= cost.total(found) <= aim
        assert damage_of(curves, found) <= min(harms) + 1e-12
        changes = [b - a for a, b in zip(now, found, strict=True)]
        assert sum(c > 0 for c in changes) == 1 and sum(c < 0 for c in changes) <= 1


def test_a_group_that_is_whole_gets_no_wider() -> None:
    curves = [Curve("a", (4, 8), (1.0, 0.0)), Curve("b", (4, 8), (1.0, 0.0))]
    cost = WidthCost((Term(1.0, (axis(0),), "a"), Term(1.0, (axis(1),), "b")), "MACs")
    assert closer(curves, cost, (8, 8), 20, 0.01) is None
    assert closer(curves, cost, (8, 4), 16, 0.01) == (8, 8)
