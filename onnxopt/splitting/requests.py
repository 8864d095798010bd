"""Requests for a model from files of arrays: samples along the first axis, a batch in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx.helper

from onnxopt.arrays import by_input, read_arrays
from onnxopt.calibration.fitting import check_shape, to_type
from onnxopt.errors import UsageError
from onnxopt.signature import Array
from onnxopt.signature import Port as Input
from onnxopt.splitting.manifest import Port

KINDS = "give FILE.npz with one array for each input, FILE.npy, or a folder of such files"


@dataclass(frozen=True, eq=False)
class Requests:
    """What to run, read when it is needed.

    Attributes:
        files: in order, each one or more requests.
        sizes: how many requests are in each.
        inputs: of the model.
        batch: samples in a request, where the model leaves that open.
    """

    files: tuple[Path, ...]
    sizes: tuple[int, ...]
    inputs: tuple[Input, ...]
    batch: int

    def __len__(self) -> int:
        return sum(self.sizes)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for file, size in zip(self.files, self.sizes, strict=True):
            arrays = _read(file, self.inputs)
            for number in range(size):
                yield {
                    port.name: _part(arrays[port.name], number, port, self.batch, str(file))
                    for port in self.inputs
                }


def read_requests(path: Path, ports: Sequence[Port], *, batch: int = 1) -> Requests:
    """Find the requests in FILE.npz, FILE.npy, or a folder of them in the order of their names.

    An array holds samples along its first axis, or is one sample without that axis. Each request
    takes as many of them as the model does or, where it takes any number, `batch`, and the last one
    what is left. An array that is enough for one request only goes with all of its file.

    Raises:
        UsageError: nothing there, not readable, or not what the inputs take.
    """
    if not path.exists():
        raise UsageError(f"there is no file or folder '{path}'", KINDS)
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    files = tuple(file for file in found if file.suffix.lower() in (".npy", ".npz"))
    if not files:
        what = "holds no .npy or .npz files" if path.is_dir() else "is no file of arrays"
        raise UsageError(f"'{path}' {what}", KINDS)
    inputs = tuple(map(_input, ports))
    sizes = tuple(_count(_read(file, inputs), inputs, batch, file) for file in files)
    return Requests(files, sizes, inputs, batch)


def _input(port: Port) -> Input:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return Input(port.name, "tensor", kind, port.shape)


def _read(file: Path, inputs: Sequence[Input]) -> dict[str, Array]:
    arrays = read_arrays(file, mapped=True)
    if "" in arrays and len(inputs) == 1:
        arrays = {inputs[0].name: arrays[""]}
    found: Mapping[str, Array] = by_input(arrays, inputs, str(file)) if inputs else {}
    return {port.name: _with_samples(found[port.name], port) for port in inputs}


def _with_samples(array: Array, port: Input) -> Array:
    """A single sample gets the axis that it lacks."""
    if port.dims and array.ndim == len(port.dims) - 1:
        return array[None]
    return array


def _count(arrays: Mapping[str, Array], inputs: Sequence[Input], batch: int, file: Path) -> int:
    """How many requests are in a file."""
    counts: dict[str, int] = {}
    for port in inputs:
        array, size = arrays[port.name], _size(port, batch)
        if port.dims == () or (not array.ndim and port.dims is None):
            counts[port.name] = 1
            continue
        check_shape(array.shape[1:], port, str(file))
        counts[port.name] = -(-len(array) // size) if size else int(not len(array))
        exact = not _is_fixed(port) or not size or len(array) % size == 0
        if not exact or not counts[port.name]:
            raise UsageError(
                f"'{port.name}' in '{file}' holds {len(array)} samples, "
                f"but a request takes {size} of them",
                "give a multiple of that many, and at least one",
            )
    most = max(counts.values(), default=1)
    for name, count in counts.items():
        if count not in (1, most):
            raise UsageError(f"'{name}' in '{file}' is enough for {count} requests, not {most}")
    return most


def _size(port: Input, batch: int) -> int:
    """Samples of this input in a request."""
    first = port.dims[0] if port.dims else None
    return first if isinstance(first, int) else batch


def _is_fixed(port: Input) -> bool:
    return bool(port.dims) and isinstance(port.dims[0] if port.dims else None, int)


def _part(array: Array, number: int, port: Input, batch: int, label: str) -> Array:
    if array.ndim and port.dims != ():
        size = _size(port, batch)
        if len(array) > size:
            array = array[number * size : (number + 1) * size]
    return np.asarray(to_type(np.asarray(array), port, label), order="C")
