"""Mirror images: each sample once more with left and right exchanged (`--augment flip`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxopt.arrays import shape_text
from onnxopt.calibration.samples import Calibration
from onnxopt.calibration.sources import Source
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Port

MOST_COLORS = 4
"""Channels of an image at most: by these its layout is told."""


@dataclass(frozen=True, eq=False)
class Flipped:
    """Samples at even numbers, and behind each its mirror image.

    Attributes:
        axis: the width, counted with the batch; None for an input that is no image.
    """

    source: Source
    axis: int | None

    @property
    def port(self) -> Port:
        return self.source.port

    def __len__(self) -> int:
        return 2 * len(self.source)

    def read(self, indices: npt.NDArray[np.intp]) -> Array:
        found = self.source.read(indices // 2)
        mirrored = indices % 2 == 1
        if self.axis is None or not mirrored.any():
            return found
        made: Array = found.copy()
        made[mirrored] = np.flip(found[mirrored], self.axis)
        return made

    def place(self, index: int) -> str:
        which = self.source.place(index // 2)
        return f"the mirror image of {which}" if index % 2 else which


def flipped(samples: Calibration) -> Calibration:
    """Twice as many samples: each is followed by its mirror image.

    Of several inputs all images are mirrored, and what is no image is given again as it is.

    Raises:
        UsageError: no input is an image, or it cannot be told which of its axes is the width.
    """
    one = samples.indices[:1]
    axes = {name: _width(name, source, one) for name, source in samples.sources.items()}
    if all(axis is None for axis in axes.values()):
        raise UsageError(
            "no input of the model is an image [N, C, H, W] or [N, H, W, C], so nothing can be "
            "mirrored",
            "leave out --augment flip",
        )
    both = np.stack([2 * samples.indices, 2 * samples.indices + 1], 1).reshape(-1)
    labels = None if samples.labels is None else np.repeat(samples.labels, 2, 0)
    return replace(
        samples,
        name=f"{samples.name} with mirror images",
        sources={n: Flipped(source, axes[n]) for n, source in samples.sources.items()},
        indices=both,
        labels=labels,
    )


def _width(name: str, source: Source, one: npt.NDArray[np.intp]) -> int | None:
    """The axis of the width; None where samples are no images."""
    shape = source.read(one).shape
    if len(shape) != 4:
        return None
    first, last = shape[1] <= MOST_COLORS, shape[3] <= MOST_COLORS
    if first == last:
        if not first:
            return None
        raise UsageError(
            f"it cannot be told which axis of '{name}' {shape_text(shape)} is the width",
            "leave out --augment flip, and add mirror images to the samples yourself",
        )
    return 3 if first else 2
