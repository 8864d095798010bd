"""Arrays in files of numpy: read them with suspicion, and give them to the inputs of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxopt.errors import UsageError, told
from onnxopt.signature import Array, Dim, Port

LABELS = "labels"
"""The array of a file of samples that no input takes: what is right for each sample."""


def read_arrays(file: Path, *, mapped: bool = False) -> dict[str, Array]:
    """The arrays of FILE.npz by name, or that of FILE.npy under the name "".

    Args:
        mapped: leave the array of a .npy file on disk and read the parts that are used.

    Raises:
        UsageError: it is no such file; objects that must be unpickled are refused as well.
    """
    try:
        loaded = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return dict(loaded)
    except Exception as error:  # damaged archives raise what their decompressor raises
        why = told(error)
        if "pickle" in why or "Python objects" in why:  # numpy would say how to load them
            why = "it holds Python objects, or is of another kind altogether"
        raise UsageError(
            f"cannot read '{file}' as numpy data: {why}", "save arrays of numbers with numpy.savez"
        ) from None


def by_input(
    arrays: Mapping[str, Array],
    inputs: Sequence[Port],
    label: str,
    overridable: Sequence[Port] = (),
) -> dict[str, Array]:
    """The arrays by name of input, without labels. A single array goes to the single input.

    Raises:
        UsageError: an input without an array, or an array that is for no input.
    """
    wanted = [port.name for port in inputs]
    allowed = {*wanted, *(port.name for port in overridable)}
    found = {name: array for name, array in arrays.items() if name in allowed or name != LABELS}
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in allowed]
    if len(wanted) == len(found) == len(unknown) == 1:
        return {wanted[0]: found[unknown[0]]}
    if missing or unknown:
        raise UsageError(
            f"'{label}' holds {quoted(arrays)}, but the model's inputs are {quoted(wanted)}",
            f"name the arrays after the inputs, and labels '{LABELS}'",
        )
    return found


def sample_count(arrays: Mapping[str, Array], label: str) -> int:
    """How many samples lie along the first axis of each array.

    Raises:
        UsageError: they do not agree, or there is no such axis.
    """
    for name, array in arrays.items():
        if not array.ndim:
            raise UsageError(f"'{name}' in '{label}' is a scalar, without an axis for samples")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        each = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise UsageError(f"the arrays in '{label}' hold different numbers of samples: {each}")
    return next(iter(counts.values()))


def fits(shape: Sequence[int], dims: Sequence[Dim] | None) -> bool:
    """The dimensions of an input allow this shape."""
    return dims is None or (
        len(dims) == len(shape)
        and all(not isinstance(d, int) or d == s for d, s in zip(dims, shape, strict=True))
    )


def shape_text(shape: Sequence[int]) -> str:
    """For a person: 3x224x224."""
    return "x".join(map(str, shape)) or "a scalar"


def quoted(names: Iterable[str]) -> str:
    """For a person: 'a', 'b'."""
    return ", ".join(f"'{name or '(unnamed)'}'" for name in names) or "nothing"
