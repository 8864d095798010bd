"""Samples that a user gives: read them, check them against the model, cut them into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.arrays import by_input, fits, read_arrays, sample_count, shape_text
from onnxopt.errors import UsageError
from onnxopt.runtime import Session
from onnxopt.signature import Array, Port, batch_of

MOST_SAMPLES = 16
MOST_FILES = 16


@dataclass(frozen=True)
class UserData:
    """Samples by name of input.

    Attributes:
        path: where they are from.
        whole: one dict for each file; of a single .npz file the samples lie along the first axis.
        stacked: they must be cut along the first axis.
    """

    path: Path
    whole: tuple[dict[str, Array], ...]
    labels: tuple[str, ...]
    stacked: bool

    def label(self, number: int) -> str:
        """What batch `number` is, for a person."""
        return f"sample {number}" if self.stacked else self.labels[number]

    def batches(self, session: Session) -> Iterator[dict[str, Any]]:
        """Feeds in the model's batch size, at most `MOST_SAMPLES` samples in all.

        Raises:
            UsageError: names, types or shapes are not those of the model.
        """
        for arrays, label in zip(self.whole, self.labels, strict=True):
            named = by_input(arrays, session.inputs, label, session.overridable)
            if self.stacked:
                yield from _cut(named, session, label)
            else:
                for port in session.inputs:
                    _check(port, named[port.name], label, port.dims)
                yield named


def load_user_data(path: str | Path) -> UserData:
    """Read samples: FILE.npz with one array for each input, its first axis counting samples, or a
    folder of .npz (one feed each) or, for models with one input, .npy files (one feed each).

    Raises:
        UsageError: nothing there, not readable, or holding only NaN.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix in (".npy", ".npz"))[:MOST_FILES]
        if not files:
            raise UsageError(f"the folder '{path}' holds no .npy or .npz file")
    elif path.is_file():
        files = [path]
    else:
        raise UsageError(f"there is no file or folder '{path}'", "check the path")
    whole = tuple(_read(file) for file in files)
    return UserData(path, whole, tuple(f.name for f in files), stacked=not path.is_dir())


def _read(file: Path) -> dict[str, Array]:
    found = read_arrays(file)
    for name, array in found.items():
        if array.dtype.kind == "f" and array.size and np.isnan(array).all():
            raise UsageError(f"'{name or file.name}' in '{file}' holds nothing but NaN")
    return found


def _check(port: Port, array: Array, label: str, dims: Any) -> None:
    """Raise UsageError unless the array may be fed to the input."""
    expected = f"the input '{port.name}' is {port.describe()}"
    wanted = port.dtype
    if array.dtype != wanted and not (wanted == np.dtype(object) and array.dtype.kind in "US"):
        raise UsageError(f"'{port.name}' in '{label}' is {array.dtype}, but {expected}")
    if not fits(array.shape, dims):
        shape = shape_text(array.shape)
        raise UsageError(f"'{port.name}' in '{label}' is {shape}, but {expected}")


def _cut(arrays: dict[str, Array], session: Session, label: str) -> Iterator[dict[str, Any]]:
    """Batches of the model's own batch size; of one sample where that is open.

    What a scalar input gets is in all of them.
    """
    ports = {port.name: port for port in (*session.inputs, *session.overridable)}
    once = {name: array for name, array in arrays.items() if ports[name].dims == ()}
    for name, array in once.items():
        _check(ports[name], array, label, ())
    arrays = {name: array for name, array in arrays.items() if name not in once}
    if not arrays:
        yield once
        return
    count = sample_count(arrays, label)
    size = batch_of(session.inputs) or 1
    total = min(count, max(MOST_SAMPLES, size))
    for name, array in arrays.items():
        dims = ports[name].dims
        open_batch = None if dims is None else (None, *dims[1:])
        _check(ports[name], array, label, open_batch)
    if total < size:
        raise UsageError(f"'{label}' holds {total} samples, but the model takes {size} at once")
    for start in range(0, total - size + 1, size):
        yield {name: array[start : start + size] for name, array in arrays.items()} | once
