"""Atoms: union-find with reasons that stay, whichever way they are joined."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxopt.pruning.atoms import Atoms

PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30)


@given(PAIRS, PAIRS)
def test_roots_follow_joins_made_before_and_after_they_were_asked_for(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    atoms, sets = Atoms(), [{i} for i in range(20)]
    every = atoms.fresh(20)
    for pairs in (first, second):
        for a, b in pairs:
            atoms.join(every[a : a + 1], every[b : b + 1])
            if sets[a] is not sets[b]:
                sets[a] |= sets[b]
                for member in sets[b]:
                    sets[member] = sets[a]
        roots = atoms.roots(every)
        assert [atoms.root(i) for i in range(20)] == roots.tolist()
        for a in range(20):
            assert {b for b in range(20) if roots[b] == roots[a]} == sets[a]


@given(PAIRS, st.integers(0, 19), st.integers(0, 19))
def test_a_reason_holds_for_all_that_is_joined_before_and_after(
    pairs: list[tuple[int, int]], pinned: int, changed: int
) -> None:
    atoms = Atoms()
    every = atoms.fresh(20)
    atoms.pin(every[pinned : pinned + 1], "pinned")
    atoms.mark_changed(every[changed : changed + 1], "changed")
    for a, b in pairs:
        atoms.join(every[a : a + 1], every[b : b + 1])
    for index in range(20):
        root = atoms.root(index)
        assert (atoms.why_pinned(root) == "pinned") == (root == atoms.root(pinned))
        assert (atoms.why_changed(root) == "changed") == (root == atoms.root(changed))


def test_rows_and_only_rows_are_joined() -> None:
    atoms = Atoms()
    table = atoms.fresh(12).reshape(3, 4)
    atoms.join_rows(table)
    assert atoms.roots(table).tolist() == np.repeat([[0], [4], [8]], 4, 1).tolist()
