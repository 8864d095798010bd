"""Where the samples of one input lie: along the first axis of an array, or one in each file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from onnxopt.arrays import fits, shape_text
from onnxopt.calibration.fitting import check_shape, to_type
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Port

CHUNK_BYTES = 16_000_000
"""About as much of an input is in memory at once when all samples are gone through."""


class Source(Protocol):
    """The samples of one input."""

    @property
    def port(self) -> Port: ...

    def __len__(self) -> int: ...

    def read(self, indices: npt.NDArray[np.intp]) -> Array:
        """These samples along the first axis, in memory, as the input takes them.

        Raises:
            UsageError: the input does not take them.
        """

    def place(self, index: int) -> str:
        """Which sample that is, for a person."""


@dataclass(frozen=True, eq=False)
class Stacked:
    """The samples lie along the first axis of an array, which may be one mapped from a file."""

    array: Array
    port: Port
    origin: str

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: npt.NDArray[np.intp]) -> Array:
        return to_type(np.asarray(self.array[indices]), self.port, self.origin)

    def place(self, index: int) -> str:
        return f"sample {index} of '{self.port.name}' in '{self.origin}'"


@dataclass(frozen=True, eq=False)
class Files:
    """Each sample is a file, read whenever it is needed.

    Attributes:
        load: reads a file; the sample may have a first axis of 1.
    """

    files: tuple[Path, ...]
    port: Port
    load: Callable[[Path], Array]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: npt.NDArray[np.intp]) -> Array:
        samples = [self._sample(self.files[index]) for index in indices]
        for index, sample in zip(indices, samples, strict=True):
            if sample.shape != self._shape:
                raise UsageError(
                    f"{self.place(index)} is {shape_text(sample.shape)}, "
                    f"but {self.place(0)} is {shape_text(self._shape)}",
                    "give samples of one size",
                )
        return np.stack(samples)

    def place(self, index: int) -> str:
        return f"'{self.files[index]}'"

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """The shape that all samples have: the input's or, where that is open, the first file's."""
        dims = self.port.dims[1:] if self.port.dims else (None,)
        fixed = tuple(dim for dim in dims if isinstance(dim, int))
        return fixed if len(fixed) == len(dims) else self._sample(self.files[0]).shape

    def _sample(self, file: Path) -> Array:
        sample, dims = self.load(file), self.port.dims
        if dims is not None and sample.shape[:1] == (1,) and fits(sample.shape[1:], dims[1:]):
            sample = sample[0]
        check_shape(sample.shape, self.port, str(file))
        return to_type(sample, self.port, str(file))


def chunks(
    source: Source, indices: npt.NDArray[np.intp]
) -> Iterator[tuple[npt.NDArray[np.intp], Array]]:
    """All these samples, some at a time, so that memory stays bounded; with their indices."""
    start, size = 0, 1
    while start < len(indices):
        part = indices[start : start + size]
        batch = source.read(part)
        yield part, batch
        start += len(part)
        size = max(1, CHUNK_BYTES * len(part) // max(1, batch.nbytes))
