"""Random inputs for a model, and whether what it makes of them stays within a rule's numerics."""

from __future__ import annotations

import zlib
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.helper

from onnxopt.changes import Numerics
from onnxopt.graph import Array
from onnxopt.runtime import Session
from onnxopt.signature import Port
from onnxopt.verification.comparison import distance, is_floating, wide
from onnxopt.verification.element_types import ulp

ROUNDINGS = 32
"""What a rule that declares 'rounding' may be off by, in units of the largest output."""

Dims: TypeAlias = tuple[int | str | None, ...]


def shapes(
    session: Session, known: dict[str, Dims | None], size: int | None
) -> dict[str, list[int]]:
    """A shape for each input: what it declares, else what the example declares."""
    symbols: dict[str, int] = {}
    found: dict[str, list[int]] = {}
    for port in (*session.inputs, *session.overridable):
        base = known.get(port.name) or ()
        dims = port.dims if port.dims is not None else base
        found[port.name] = []
        for axis, dim in enumerate(dims):
            if not isinstance(dim, int) and len(base) == len(dims):
                dim = base[axis]
            if not isinstance(dim, int):
                symbol = dim or f"{port.name}#{axis}"
                dim = symbols.setdefault(symbol, 2 + len(symbols)) if size is None else size
            found[port.name].append(dim)
    return found


def feeds(
    session: Session, shapes: dict[str, list[int]], draw: int, *, special: bool
) -> dict[str, Array]:
    """Random inputs; those that may be left out, overriding an initializer, are given as well."""
    arrays: dict[str, Array] = {}
    for port in (*session.inputs, *session.overridable):
        rng = np.random.default_rng(zlib.crc32(f"{port.name} {draw}".encode()))
        arrays[port.name] = _numbers(port, shapes[port.name], rng, special=special)
    return arrays


def _numbers(port: Port, shape: list[int], rng: np.random.Generator, *, special: bool) -> Array:
    dtype = port.dtype
    if dtype.kind == "O":
        words = np.array(["", "a", "B c", "é"], dtype=object)
        return np.asarray(rng.choice(words, shape), dtype=object).reshape(shape)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(0 if dtype.kind == "u" else -5, 6, shape)).astype(dtype)
    numbers = np.asarray(rng.standard_normal(shape) * 3)
    if special:
        odd = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -2.5, 1e30]), shape)
        numbers = np.where(rng.random(shape) < 0.4, odd, numbers)
    with np.errstate(over="ignore"):
        return np.asarray(numbers).astype(dtype)


def worst(before: dict[str, Any], after: dict[str, Any], numerics: Numerics) -> str:
    for name, ours in before.items():
        theirs = after[name]
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            shapes = f"{ours.dtype}{list(ours.shape)} became {theirs.dtype}{list(theirs.shape)}"
            return f"'{name}' {shapes}"
        if numerics == "exact":
            if not _same_bits(ours, theirs):
                return f"'{name}' is not the same bit for bit"
        elif (error := _error(ours, theirs)) > _allowed(ours):
            return f"'{name}' is off by {error:.3g}"
    return ""


def _error(before: Array, after: Array) -> float:
    """The largest error; not where the model overflows, which another order may well avoid."""
    error = distance(before, after)
    if is_floating(before):
        error = error[np.isfinite(wide(before))]
    return float(error.max(initial=0.0))


def _allowed(array: Array) -> float:
    if not is_floating(array):
        return 0.0
    numbers = np.abs(wide(array))
    largest = float(numbers[np.isfinite(numbers)].max(initial=1.0))
    return ROUNDINGS * ulp(int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))) * largest


def _same_bits(a: Array, b: Array) -> bool:
    """Equal, zeros of the same sign, NaN wherever the other is."""
    if not is_floating(a):
        return bool((a == b).all())
    x, y = wide(a), wide(b)
    return bool(
        np.array_equal(x, y, equal_nan=True) and (np.signbit(x) == np.signbit(y))[x == 0].all()
    )
