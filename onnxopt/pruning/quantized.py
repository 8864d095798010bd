"""Weights that are stored as integers: read as numbers, and rounded back to what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxopt.graph import Array, Constant, Value

INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32)


@dataclass(frozen=True)
class Quantized:
    """What DequantizeLinear makes of stored integers: (integers - zero point) * scale.

    Attributes:
        name: of what it makes.
        integers, scale, point: names of initializers; point "" if there is none.
        axis: of the scale, where it has a number for each index.
    """

    name: str
    integers: str
    scale: str
    point: str
    axis: int

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name in (self.integers, self.scale, self.point) if name)

    def dequantized(self, weights: Mapping[str, Array]) -> Array:
        """The numbers that it stands for, in float64."""
        stored = weights[self.integers]
        scale, point = self._along(stored, weights)
        return np.asarray((stored.astype(np.float64) - point) * scale)

    def stored(self, made: Array, weights: Mapping[str, Array]) -> dict[str, Array]:
        """The nearest integers; the scale stays, so that what lies beyond its range is clipped."""
        old = weights[self.integers]
        scale, point = self._along(old, weights)
        limits = np.iinfo(old.dtype)
        exact = np.round(made.reshape(old.shape) / np.where(scale == 0, 1, scale) + point)
        return {self.integers: np.clip(exact, limits.min, limits.max).astype(old.dtype)}

    def _along(self, stored: Array, weights: Mapping[str, Array]) -> tuple[Array, Array]:
        """Scale and zero point in float64, each along its axis."""
        shape = [1] * stored.ndim
        found = []
        for name in (self.scale, self.point):
            array = weights[name].astype(np.float64) if name else np.zeros(())
            if array.size > 1:
                shape[self.axis] = -1
                array = array.reshape(shape)
            found.append(array.reshape(()) if array.size == 1 else array)
        return found[0], found[1]


def quantized(value: Value) -> Quantized | None:
    """How a value comes from integers that nothing else reads; None if it does not."""
    node = value.producer
    if node is None or node.op != "DequantizeLinear" or not node.is_standard:
        return None
    stored, scale, point = node.inputs[0], node.inputs[1], node.input(2)
    parts = [v for v in (stored, scale, point) if v is not None]
    if (
        len(value.consumers) != 1
        or len(stored.consumers) != 1
        or value.is_graph_output
        or not isinstance(stored, Constant)
        or stored.dtype not in INTEGERS
        or any(not isinstance(v, Constant) or v.overridable or v.is_graph_output for v in parts)
        or any((v.rank or 0) > 1 for v in parts[1:])
    ):
        return None
    axis = 1 if node.attr("axis") is None else int(node.attr("axis"))
    point_name = "" if point is None else point.name
    return Quantized(
        value.name, stored.name, scale.name, point_name, axis % max(len(stored.dims), 1)
    )
