"""One run of a model: the shape of every value, and the integers that it computes from shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.fixed_shapes import fix_shapes
from onnxopt.graph import Array, Constant, Value
from onnxopt.graph_protos import bodies
from onnxopt.model import Model
from onnxopt.runtime import Session
from onnxopt.shapes import infer
from onnxopt.submodel import submodel

LARGEST_KEPT_ELEMENTS = 4096
"""Integer values up to this size are kept: targets, indices, paddings."""

FIRST_SHOWN = 64
"""Inner values are shown as outputs in groups, of so many at first."""

SMALL_BYTES = 2**26
"""The next group is twice as large while the values of one take less than this, else half."""


@dataclass(frozen=True)
class Instance:
    """What one run showed.

    Attributes:
        shapes: of every value of the main graph that is a tensor, by name; of those inside
            bodies where it is known.
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
    start, count = 0, FIRST_SHOWN
    while start < len(names):
        size = _run(proto, names[start : start + count], feeds, shapes, integers)
        start += count
        count = 2 * count if size < SMALL_BYTES else max(count // 2, 1)
    return Instance({**_inside(proto, shapes), **shapes}, integers)


def _inside(
    proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shapes inside bodies, which a run does not show: as far as they follow from the inputs."""
    if next(bodies(*proto.graph.node), None) is None:
        return {}
    given = {info.name: shapes[info.name] for info in proto.graph.input if info.name in shapes}
    model = Model.from_proto(fix_shapes(proto, given))
    infer(model)
    values = [
        value
        for graph in model.graph.walk()
        if graph.parent is not None
        for value in (*graph.inputs, *(v for node in graph.nodes for v in node.outputs))
    ]
    known = ((value.name, value.static_shape) for value in values)
    return {name: shape for name, shape in known if name and shape is not None}


def _run(
    proto: onnx.ModelProto,
    names: list[str],
    feeds: Mapping[str, Any],
    shapes: dict[str, tuple[int, ...]],
    integers: dict[str, Array],
) -> int:
    """Look at some values.

    Returns:
        the bytes that they took.
    """
    try:
        session = Session(submodel(proto, names))
        wanted = {port.name for port in (*session.inputs, *session.overridable)}
        found = session.run({name: feeds[name] for name in feeds if name in wanted})
    except OnnxoptError:
        if len(names) == 1:
            return 0  # of a kind that cannot be an output: nothing is known of it
        half = len(names) // 2
        parts = (names[:half], names[half:])
        return sum(_run(proto, part, feeds, shapes, integers) for part in parts)
    for name, value in found.items():
        _look(name, value, shapes, integers)
    return sum(int(getattr(value, "nbytes", 0)) for value in found.values())


def _look(
    name: str, value: Any, shapes: dict[str, tuple[int, ...]], integers: dict[str, Array]
) -> None:
    shape = getattr(value, "shape", None)
    if shape is None:
        return
    shapes[name] = tuple(int(d) for d in shape)
    if value.dtype.kind in "iu" and value.size <= LARGEST_KEPT_ELEMENTS:
        integers[name] = value
