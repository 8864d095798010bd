"""Permutations of axes: a value in layout `p` is stored as `transpose(value, p)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

from onnxopt.graph import Shape

Perm: TypeAlias = tuple[int, ...]
T = TypeVar("T")


def identity(rank: int) -> Perm:
    return tuple(range(rank))


def is_identity(perm: Perm) -> bool:
    return perm == identity(len(perm))


def invert(perm: Perm) -> Perm:
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def compose(first: Perm, then: Perm) -> Perm:
    """The one Transpose that does what `first`, then `then` do."""
    return tuple(first[i] for i in then)


def permuted(items: Sequence[T], perm: Perm) -> tuple[T, ...]:
    """The shape (or anything else that there is one of per axis) in layout `perm`."""
    return tuple(items[i] for i in perm)


def permuted_shape(shape: Shape | None, perm: Perm) -> Shape | None:
    return None if shape is None else permuted(shape, perm)


def canonical(perm: Perm, shape: Shape | None) -> Perm:
    """The same Transpose of a value of this shape, with axes of size 1 in ascending order.

    Two Transposes make the same tensor iff their canonical forms are equal.
    """
    if shape is None:
        return perm
    ones = iter(sorted(axis for axis in perm if shape[axis] == 1))
    return tuple(next(ones) if shape[axis] == 1 else axis for axis in perm)


def is_reshape(perm: Perm, shape: Shape | None) -> bool:
    """Whether only axes of size 1 move, so that the data stays as it is in memory."""
    if shape is None:
        return False
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def without_axes(perm: Perm, axes: Sequence[int]) -> Perm:
    """The layout of what is left when these axes are removed."""
    kept = [axis for axis in perm if axis not in axes]
    return tuple(sorted(kept).index(axis) for axis in kept)


def with_axes(perm: Perm, axes: Sequence[int]) -> Perm:
    """The layout of a value with these axes more, which stay in their places."""
    rank = len(perm) + len(axes)
    others = [axis for axis in range(rank) if axis not in axes]
    moved = iter(perm)
    return tuple(axis if axis in axes else others[next(moved)] for axis in range(rank))


def element_count(shape: Shape | None, unknown: int = 64) -> int:
    """How many elements a value has, symbolic dimensions guessed."""
    if shape is None:
        return unknown**3
    count = 1
    for dim in shape:
        count *= dim if isinstance(dim, int) else unknown
    return count
