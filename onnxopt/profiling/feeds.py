"""Inputs to measure a model with: drawn, or the user's own."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.profiling.sessions import Input

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bool": np.dtype(np.bool_),
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16)},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (32, 64)},
}


def write_feeds(target: Path | IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write arrays as an .npz file, whatever their names; `numpy.savez` takes none called 'file'.

    Raises:
        ValueError: an array of objects, such as strings.
    """
    with zipfile.ZipFile(target, "w") as packed:
        for name, array in arrays.items():
            with packed.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def input_shapes(
    inputs: Sequence[Input], given: Mapping[str, tuple[int, ...]], batch: int | None
) -> dict[str, tuple[int, ...]]:
    """The shape to feed each input with: what was given, and 1 for what is open.

    Args:
        given: shapes by name.
        batch: for the first dimension of every input without a given shape.

    Raises:
        UsageError: no such input, another rank, or a number that contradicts a declared one.
    """
    for name in given:
        if name not in {entry.name for entry in inputs}:
            known = ", ".join(entry.name for entry in inputs)
            raise UsageError(f"the model has no input '{name}'", f"its inputs are {known}")
    return {entry.name: _shape(entry, given.get(entry.name), batch) for entry in inputs}


def _shape(entry: Input, given: tuple[int, ...] | None, batch: int | None) -> tuple[int, ...]:
    if given is None:
        first = () if batch is None or not entry.dims else (batch,)
        rest = (d if isinstance(d, int) and d >= 0 else 1 for d in entry.dims[len(first) :])
        given = (*first, *rest)
    fits = len(given) == len(entry.dims) and all(
        size == dim for size, dim in zip(given, entry.dims, strict=True) if _is_fixed(dim)
    )
    if not fits and entry.dims:
        declared = ", ".join("?" if d is None else str(d) for d in entry.dims)
        raise UsageError(
            f"the input '{entry.name}' cannot have the shape {list(given)}",
            f"it is declared as [{declared}]",
        )
    return given


def _is_fixed(dim: int | str | None) -> bool:
    return isinstance(dim, int) and dim >= 0


def drawn(inputs: Sequence[Input], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Normal draws for floats, ones for integers and truth values: an index that is always there.

    Raises:
        UsageError: an input of a type that numpy cannot draw.
    """
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for entry in inputs:
        match = re.fullmatch(r"tensor\((\w+)\)", entry.type)
        if match is None or match[1] not in _TYPES:
            raise UsageError(
                f"the input '{entry.name}' is of the type {entry.type}, which cannot be drawn",
                "give samples with --inputs FILE.npz",
            )
        dtype, shape = _TYPES[match[1]], shapes[entry.name]
        if dtype.kind == "f":
            feeds[entry.name] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        else:
            feeds[entry.name] = np.ones(shape, dtype)
    return feeds


def read_feeds(file: Path, inputs: Sequence[Input]) -> dict[str, Array]:
    """The user's own inputs, one array under the name of each.

    Raises:
        UsageError: it is no .npz file, or an input is missing in it.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = {entry.name: archive[entry.name] for entry in inputs if entry.name in archive}
    except FileNotFoundError:
        raise UsageError(f"there is no file '{file}'", "check the path") from None
    except Exception as error:
        raise UsageError(f"cannot read '{file}' as a .npz file: {error}") from None
    missing = [entry.name for entry in inputs if entry.name not in found]
    if missing:
        raise UsageError(
            f"'{file}' has no array '{missing[0]}'", "name one after each input of the model"
        )
    return found
