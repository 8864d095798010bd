"""Go through all chosen samples once: refuse what makes statistics worthless, note what is odd."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from onnxopt.calibration.sources import Source, chunks
from onnxopt.errors import UsageError
from onnxopt.signature import Array

LOWEST_OF_PIXELS = 100
"""Non-negative floats up to 255 of which one is above this are probably raw pixels."""


def survey(
    sources: Mapping[str, Source], indices: npt.NDArray[np.intp], origin: str
) -> tuple[str, ...]:
    """What is suspicious about the samples.

    Raises:
        UsageError: NaN or infinity, types that the inputs do not take, or the same sample always.
    """
    constant, notes = True, []
    for name, source in sources.items():
        first: Array | None = None
        low, high = np.inf, -np.inf
        for part, batch in chunks(source, indices):
            first = batch[:1] if first is None else first
            constant = constant and bool((batch == first).all())
            if source.port.is_floating and batch.size:
                _check_finite(batch, source, part)
                low, high = min(low, float(batch.min())), max(high, float(batch.max()))
        if low >= 0 and LOWEST_OF_PIXELS < high <= 255:
            notes.append(
                f"'{name}' holds values from {low:g} to {high:g}, as raw pixels do; "
                "calibrate with samples normalised as in training, unless the model takes raw "
                "pixels"
            )
    if constant and len(indices) > 1:
        raise UsageError(
            f"the {len(indices)} samples in '{origin}' are all the same",
            "give samples as different as those that the model meets in use",
        )
    return tuple(notes)


def _check_finite(batch: Array, source: Source, part: npt.NDArray[np.intp]) -> None:
    finite = np.isfinite(batch.reshape(len(batch), -1)).all(axis=1)
    if not finite.all():
        first = int(part[int(finite.argmin())])
        raise UsageError(f"{source.place(first)} holds NaN or infinity", "leave such samples out")
