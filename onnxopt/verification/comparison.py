"""Compare what two runs gave: tensors, strings, sequences, maps; how far apart, and within what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.signature import Array

FLOAT_KINDS = "fcV"
"""Kinds of numpy types that hold floating numbers; V is how ml_dtypes registers its own."""


@dataclass(frozen=True)
class Difference:
    """How two values differ.

    Attributes:
        what: "" (they do not), "type", "structure", "shape" or "value".
        detail: what there is in either, for a person.
        absolute: worst absolute error; infinite where a number stands against NaN or infinity.
        relative: worst absolute error divided by the root mean square of the reference.
        excess: worst error divided by what is allowed for that element; above 1 is too much.
        tolerance: what is allowed for the element with the worst excess (absolute).
    """

    what: str = ""
    detail: str = ""
    absolute: float = 0.0
    relative: float = 0.0
    excess: float = 0.0
    tolerance: float = 0.0

    @property
    def is_structural(self) -> bool:
        return self.what in ("type", "structure", "shape")

    @property
    def passes(self) -> bool:
        return not self.is_structural and self.excess <= 1.0

    def worst(self, other: Difference) -> Difference:
        """The worse of the two, with the largest figures of both."""
        first = self if self._rank() >= other._rank() else other
        return Difference(
            first.what,
            first.detail,
            max(self.absolute, other.absolute),
            max(self.relative, other.relative),
            first.excess,
            first.tolerance,
        )

    def _rank(self) -> tuple[bool, float, bool]:
        return (self.is_structural, self.excess, bool(self.what))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Array | None]]:
    """The arrays in a value, each under its place: "" for a tensor, "[2]", "[0]['cat']".

    Scalars of maps become arrays; an absent optional is None.
    """
    if isinstance(value, list | tuple):
        yield path + "[]", np.asarray(len(value))
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        keys = list(value)
        yield path + "{}", np.asarray(sorted(map(repr, keys)), dtype=object)
        for key in sorted(keys, key=repr):
            yield from leaves(value[key], f"{path}[{key!r}]")
    elif value is None:
        yield path, None
    else:
        yield path, np.asarray(value)


def size_bytes(value: Any) -> int:
    return sum(array.nbytes for _, array in leaves(value) if array is not None)


def structural_difference(reference: Any, candidate: Any) -> Difference:
    """Whether two values differ in nesting, keys, types or shapes."""
    ours, theirs = list(leaves(reference)), list(leaves(candidate))
    if [path for path, _ in ours] != [path for path, _ in theirs]:
        return Difference(
            "structure", f"{_outline(reference)} became {_outline(candidate)}", excess=np.inf
        )
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        if (a is None) != (b is None):
            return Difference("structure", f"{path} is absent in one of them", excess=np.inf)
        if a is None or b is None:
            continue
        if a.dtype != b.dtype:
            return Difference("type", f"{path} {a.dtype} became {b.dtype}".strip(), excess=np.inf)
        if a.shape != b.shape:
            sizes = f"{list(a.shape)} became {list(b.shape)}"
            return Difference("shape", f"{path} {sizes}".strip(), excess=np.inf)
        if path.endswith("{}") and not np.array_equal(a, b):
            return Difference("structure", f"other keys at {path}", excess=np.inf)
    return Difference()


def _outline(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a sequence of {len(value)}"
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    return "nothing" if value is None else f"a tensor {list(np.shape(value))}"


def is_floating(array: Array) -> bool:
    """Whether its elements are floating numbers (those of ml_dtypes included)."""
    if array.dtype.kind != "V":
        return array.dtype.kind in FLOAT_KINDS
    return array.dtype.type.__module__ == "ml_dtypes" and "int" not in array.dtype.name


def wide(array: Array) -> Array:
    """The same numbers in a type wide enough to subtract; text stays as it is."""
    if array.dtype.kind in "OSU":
        return array
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def root_mean_square(array: Array) -> float:
    """Of the finite elements; 0 if there are none, or for text."""
    if array.dtype.kind in "OSU" or not array.size:
        return 0.0
    numbers = np.abs(wide(array))
    numbers = numbers[np.isfinite(numbers)]
    return float(np.sqrt(np.mean(np.square(numbers)))) if numbers.size else 0.0


def distance(a: Array, b: Array) -> Array:
    """Absolute error of each element, float64, of the shape of both.

    NaN equals NaN, an infinity equals itself; either against anything else is infinitely far.
    Texts are 0 or 1 apart.
    """
    if a.dtype.kind in "OSU":
        return np.asarray(a != b, dtype=np.float64)
    if a.dtype.kind in "iub":
        return _integer_distance(a, b)
    x, y = wide(a), wide(b)
    equal = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(all="ignore"):
        apart = np.abs(x - y)
    apart = np.where(np.isnan(apart), np.inf, apart)
    return np.where(equal, 0.0, apart)


def _integer_distance(a: Array, b: Array) -> Array:
    apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return np.where(a == b, 0.0, np.maximum(apart, 1.0))


def judge(reference: Array, errors: Array, allowed: Array | float) -> Difference:
    """How two arrays of one shape and type differ.

    Args:
        errors: their `distance`.
        allowed: absolute error that is allowed, for all or for each element.
    """
    worst = float(errors.max(initial=0.0))
    if worst == 0.0:
        return Difference()
    limit = np.broadcast_to(np.asarray(allowed, dtype=np.float64), errors.shape)
    with np.errstate(all="ignore"):
        excess = np.where(errors == 0.0, 0.0, errors / limit)
    flat = int(np.argmax(np.where(np.isnan(excess), np.inf, excess)))
    scale = root_mean_square(reference)
    at = np.unravel_index(flat, errors.shape)
    value = float(excess.reshape(-1)[flat])
    return Difference(
        "value",
        f"at {[int(i) for i in at]}",
        absolute=worst,
        relative=worst / scale if scale else float(np.inf),
        excess=float(np.inf) if np.isnan(value) else value,
        tolerance=float(limit.reshape(-1)[flat]),
    )
