"""Random arrays for inputs that are data: numbers, indices, flags and texts, of several kinds."""

from __future__ import annotations

import zlib
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxopt.signature import Array, Port
from onnxopt.verification.hints import Hint

DrawKind: TypeAlias = Literal["normal", "0/1", "large", "wide", "uniform"]
DRAW_KINDS: tuple[DrawKind, ...] = ("normal", "0/1", "large")

Tameness: TypeAlias = Literal["free", "small", "zeros", "ones"]
TAMENESSES: tuple[Tameness, ...] = ("free", "small", "zeros", "ones")
"""How careful integers without a known range, and texts, are drawn: for models that reject most."""

_WORDS = ("a", "cat", "The quick brown fox", "", "3", "12.5", "-1", "naïve", "A", "zebra")
_SEQUENCE_LENGTH = 3
_SCALES = {"large": 100.0, "wide": 10.0}


def sample(
    port: Port,
    hint: Hint,
    shape: tuple[int, ...],
    kind: DrawKind,
    *,
    tame: Tameness = "free",
    seed: int = 0,
    texts: tuple[str, ...] = (),
) -> Any:
    """A value for one input: an array, or a list of arrays for a sequence.

    Args:
        shape: of the tensor, or of each tensor of the sequence.
        texts: what a string input may hold to mean something to the model.
    """
    rng = np.random.default_rng([seed, zlib.crc32(port.name.encode())])
    if port.kind == "sequence":
        return [_tensor(port, hint, shape, kind, tame, rng, texts) for _ in range(_SEQUENCE_LENGTH)]
    return _tensor(port, hint, shape, kind, tame, rng, texts)


def _tensor(
    port: Port,
    hint: Hint,
    shape: tuple[int, ...],
    kind: DrawKind,
    tame: Tameness,
    rng: np.random.Generator,
    texts: tuple[str, ...],
) -> Array:
    dtype = port.dtype
    if dtype == np.dtype(object):
        return _strings(shape, tame, rng, texts)
    if dtype.kind == "b":
        if tame in ("zeros", "ones"):
            return np.full(shape, tame == "ones")
        return np.asarray(rng.random(shape) < 0.5)
    if port.is_integer or "int" in dtype.name:
        return _integers(dtype, hint, shape, kind, tame, rng)
    if hint.below is not None:
        return np.asarray(np.floor(rng.random(shape) * hint.below)).astype(dtype)
    if dtype.kind == "c":
        real, imaginary = rng.standard_normal((2, *shape))
        return np.asarray(real + 1j * imaginary).astype(dtype)
    return _floats(shape, kind, rng).astype(dtype, copy=False)


def _floats(shape: tuple[int, ...], kind: DrawKind, rng: np.random.Generator) -> Array:
    if kind in ("0/1", "uniform"):
        numbers = np.asarray(rng.random(shape, dtype=np.float32))
        return np.asarray(numbers < 0.5, dtype=np.float32) if kind == "0/1" else numbers
    numbers = np.asarray(rng.standard_normal(shape, dtype=np.float32))
    return np.asarray(numbers * np.float32(_SCALES.get(kind, 1.0)))


def _integers(
    dtype: np.dtype[Any],
    hint: Hint,
    shape: tuple[int, ...],
    kind: DrawKind,
    tame: Tameness,
    rng: np.random.Generator,
) -> Array:
    low, high = _integer_range(dtype, hint, kind)
    if tame == "small":
        low, high = 0, min(2, high)
    elif tame == "zeros":
        low, high = 0, 1
    elif tame == "ones":
        low, high = min(1, high - 1), min(2, high)
    return np.asarray(rng.integers(low, high, size=shape, dtype=np.int64)).astype(dtype)


def _integer_range(dtype: np.dtype[Any], hint: Hint, kind: DrawKind) -> tuple[int, int]:
    """Lowest, and one more than the highest."""
    if hint.below is not None:
        high = max(hint.below, 1)
        return (
            (high // 2, high) if kind == "large" else (0, min(2, high) if kind == "0/1" else high)
        )
    if kind == "0/1" or hint.sizes_things:
        return 0, 2
    if "int4" in dtype.name or "int2" in dtype.name:
        return 0, 2
    if dtype.itemsize == 1:
        limits = np.iinfo(dtype)
        return int(limits.min), int(limits.max) + 1
    signed = dtype.kind == "i"
    if kind == "large":
        return (-1000 if signed else 0), 1001
    return (-5 if signed else 0), 11


def _strings(
    shape: tuple[int, ...], tame: Tameness, rng: np.random.Generator, texts: tuple[str, ...]
) -> Array:
    words: tuple[str, ...] = texts + _WORDS
    if tame == "small":
        words = texts or ("a",)
    elif tame in ("zeros", "ones"):
        words = ("1", "2.5", "-3")
    picked = rng.integers(0, len(words), size=shape)
    return np.array(np.asarray(words, dtype=object)[picked], dtype=object).reshape(shape)
