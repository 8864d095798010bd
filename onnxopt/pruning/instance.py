"""One run of a model: the shape of every value, and the integers that it computes from shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.graph import Array, Constant, Value
from onnxopt.runtime import Session
from onnxopt.submodel import submodel

LARGEST_KEPT_ELEMENTS = 4096
"""Integer values up to this size are kept: targets, indices, paddings."""

MOST_SHOWN = 64
"""Inner values are shown as outputs in groups of so many."""


@dataclass(frozen=True)
class Instance:
    """What one run showed.

    Attributes:
        shapes: of every value of the main graph that is a tensor, by name.
        integers: small integer values, by name.
    """

    shapes: Mapping[str, tuple[int, ...]]
    integers: Mapping[str, Array]

    def shape(self, value: Value) -> tuple[int, ...] | None:
        """Its shape in that run; of constants and inside bodies what is known without it."""
        if isinstance(value, Constant):
            return value.dims
        found = self.shapes.get(value.name)
        return value.static_shape if found is None else found


def run_instance(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> Instance:
    """Run a model once and look at every value of its main graph.

    Raises:
        RunError, UnverifiableError: ONNX Runtime cannot run it on these inputs.
    """
    names = [name for node in proto.graph.node for name in node.output if name]
    shapes: dict[str, tuple[int, ...]] = {}
    integers: dict[str, Array] = {}
    for name, array in feeds.items():
        _look(name, array, shapes, integers)
    for start in range(0, len(names), MOST_SHOWN):
        _run(proto, names[start : start + MOST_SHOWN], feeds, shapes, integers)
    return Instance(shapes, integers)


def _run(
    proto: onnx.ModelProto,
    names: list[str],
    feeds: Mapping[str, Any],
    shapes: dict[str, tuple[int, ...]],
    integers: dict[str, Array],
) -> None:
    try:
        found = Session(submodel(proto, names)).run(feeds)
    except OnnxoptError:
        if len(names) == 1:
            return  # of a kind that cannot be an output: nothing is known of it
        half = len(names) // 2
        _run(proto, names[:half], feeds, shapes, integers)
        _run(proto, names[half:], feeds, shapes, integers)
        return
    for name, value in found.items():
        _look(name, value, shapes, integers)


def _look(
    name: str, value: Any, shapes: dict[str, tuple[int, ...]], integers: dict[str, Array]
) -> None:
    shape = getattr(value, "shape", None)
    if shape is None:
        return
    shapes[name] = tuple(int(d) for d in shape)
    if value.dtype.kind in "iu" and value.size <= LARGEST_KEPT_ELEMENTS:
        integers[name] = value
