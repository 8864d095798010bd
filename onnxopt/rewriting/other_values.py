"""Other values to put in place of an attribute or a constant, likely to matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx.defs

from onnxopt.graph import Array

ENUMS: dict[str, tuple[str, ...]] = {
    "auto_pad": ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"),
    "mode": ("constant", "reflect", "edge", "wrap", "nearest", "linear", "cubic"),
    "approximate": ("none", "tanh"),
    "coordinate_transformation_mode": ("half_pixel", "half_pixel_symmetric", "align_corners")
    + ("pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
}

ELEMENT_TYPES = (1, 2, 3, 6, 7, 9, 10, 11)
"""float, uint8, int8, int32, int64, bool, float16, double"""


def other_values(name: str, kind: Any, present: Any) -> Iterator[Any]:
    if present is not None:
        yield None
    kinds = onnx.defs.OpSchema.AttrType
    if kind == kinds.INT:
        near = () if present is None else (present + 1, present - 1)
        yield from ELEMENT_TYPES if name in ("to", "dtype") else (0, 1, 2, 3, -1, *near)
    elif kind == kinds.FLOAT:
        yield from (0.0, 1.0, 0.5, -2.0, 100.0)
    elif kind == kinds.STRING:
        yield from ENUMS.get(name, ())
    elif kind == kinds.INTS:
        yield from _int_lists(list(present or ()))
    elif kind == kinds.FLOATS and present:
        yield from ([2.0 * f for f in present], [1.0 for _ in present], list(present)[::-1])


def _int_lists(present: list[int]) -> Iterator[list[int]]:
    if not present:
        for length in (1, 2, 3, 4, 8):
            yield from ([0] * length, [1] * length, [2] * length, list(range(length)))
            yield list(reversed(range(length)))
        return
    yield from (
        present[::-1],
        present[1:] + present[:1],
        [0 for _ in present],
        [1 for _ in present],
    )
    for place in range(len(present)):
        for step in (1, -1):
            yield [v + step * (i == place) for i, v in enumerate(present)]


def other_numbers(array: Array, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    yield "all 0", np.zeros_like(array)
    yield "all 1", np.ones_like(array)
    yield "in reverse order", array.reshape(-1)[::-1].reshape(array.shape).copy()
    for draw in (1, 2):
        other: Array = np.asarray(rng.standard_normal(array.shape) * (1 if draw == 1 else 5))
        if array.dtype.kind in "iub":
            lowest = -2 if array.dtype.kind == "i" else 0
            other = np.asarray(
                rng.integers(lowest, 2 if array.dtype.kind == "b" else 5, array.shape)
            )
        yield f"random {draw}", other.astype(array.dtype)
    for place in range(min(array.size, 4)):
        changed = array.copy()
        changed.flat[place] = ~array.flat[place] if array.dtype.kind == "b" else -array.flat[place]
        yield f"with number {place} negated", changed
    if array.dtype.kind == "f":
        for title, number in (("infinite", np.inf), ("NaN", np.nan), ("-0.0", -0.0)):
            yield title, np.full_like(array, number)
        yield "huge", np.full_like(array, np.finfo(array.dtype).max / 2)
        yield "tiny", np.full_like(array, np.finfo(array.dtype).tiny * 2)
