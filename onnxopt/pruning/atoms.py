"""Atoms: indices of axes that must be kept or removed together, joined by union-find."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Axis: TypeAlias = IntArray | str
"""The atom of each index of one axis of a value, or why no index of it can be removed."""


class Atoms:
    """All atoms of a model, and which of them live and die together."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._pinned: dict[int, str] = {}
        self._changed: dict[int, str] = {}
        self._table: IntArray | None = None  # of roots, until something is joined

    def fresh(self, count: int) -> IntArray:
        """New atoms that nothing is known of."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        self._table = None
        return np.arange(start, start + count, dtype=np.int64)

    def root(self, atom: int) -> int:
        """The atom that stands for all that it was joined with."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def roots(self, atoms: IntArray) -> IntArray:
        """The root of each atom of an array."""
        if self._table is None:
            table = np.array(self._parent, np.int64)
            while not np.array_equal(table, higher := table[table]):
                table = higher
            self._table = table
        found: IntArray = self._table[atoms]
        return found

    def join(self, first: IntArray, second: IntArray) -> None:
        """Join atom by atom two arrays of the same length."""
        for a, b in zip(first.flat, second.flat, strict=True):
            self._join(int(a), int(b))

    def join_rows(self, table: IntArray) -> None:
        """Join all atoms of each row [rows, columns]."""
        for row in table:
            self.join(row[:-1], row[1:])

    def _join(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        if a == b:
            return
        a, b = min(a, b), max(a, b)
        self._parent[b] = a
        self._table = None
        for notes in (self._pinned, self._changed):
            if b in notes:
                notes.setdefault(a, notes.pop(b))

    def pin(self, axis: Axis, reason: str) -> None:
        """Say that no index of the axis can be removed. The first reason is kept."""
        if not isinstance(axis, str):
            for atom in axis.flat:
                self._pinned.setdefault(self.root(int(atom)), reason)

    def mark_changed(self, axis: Axis, reason: str) -> None:
        """Say that removing an index of the axis changes other values too, and where."""
        if not isinstance(axis, str):
            for atom in axis.flat:
                self._changed.setdefault(self.root(int(atom)), reason)

    def why_pinned(self, root: int) -> str | None:
        return self._pinned.get(root)

    def why_changed(self, root: int) -> str | None:
        return self._changed.get(root)
