"""What the graph says about legal values of an input: index ranges, constants, shapes, branches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.numpy_helper

from onnxopt.graph_protos import bodies
from onnxopt.signature import Array, port_of
from onnxopt.verification.element_types import attribute
from onnxopt.verification.reach import reached
from onnxopt.verification.skeleton import Shapes, shapes_of

_SAME_VALUES = frozenset(
    ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Concat")
    + ("Slice", "Split", "Expand", "Tile", "Where", "Dropout", "Abs", "Clip", "Max", "Min", "Pad")
    + ("CastLike", "SequenceAt", "SequenceConstruct", "OptionalGetElement", "DepthToSpace")
)
"""Operators whose results are among the values of what they read (nearly always)."""

_INDEX_AT = {
    "Gather": 1,
    "GatherElements": 1,
    "GatherND": 1,
    "ScatterElements": 1,
    "Scatter": 1,
    "ScatterND": 1,
    "ArrayFeatureExtractor": 1,
}

_COMPARISONS = frozenset(("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Mod"))

PARAMETERS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1, 2),
    "Slice": (1, 2, 3, 4),
    "ConstantOfShape": (0,),
    "Pad": (1, 3),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Resize": (2, 3),
    "Upsample": (1,),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Loop": (0,),
    "OneHot": (1,),
    "CumSum": (1,),
    "LSTM": (4,),
    "GRU": (4,),
    "RNN": (4,),
    "ReverseSequence": (1,),
    "MaxUnpool": (2,),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
    "NonMaxSuppression": (2, 3, 4),
    "AffineGrid": (1,),
    "Col2Im": (1, 2),
    "CenterCropPad": (1,),
    "DFT": (1, 2),
    "STFT": (1, 3),
    "BlackmanWindow": (0,),
    "HannWindow": (0,),
    "HammingWindow": (0,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "ReduceSum": (1,),
    "ReduceMean": (1,),
    "ReduceMax": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceSumSquare": (1,),
    "Dropout": (1, 2),
    "Trilu": (1,),
}
"""Inputs of operators that are no data but shapes, axes, counts, scales or lengths."""


@dataclass(frozen=True)
class Use:
    """A node that reads an input (or values taken from it) as a parameter."""

    node: onnx.NodeProto
    index: int


@dataclass
class Hint:
    """What is known about the values of one input.

    Attributes:
        below: values must be whole numbers in [0, below); None if nothing says so.
        constants: numbers that the model compares the values with.
        uses: nodes that take it for a shape, an axis, a count, a scale or a length.
        is_condition: it decides which branch of an If runs, or whether a Loop goes on.
        sizes_things: some size in the model depends on its values; large ones could exhaust memory.
    """

    below: int | None = None
    constants: list[float] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    is_condition: bool = False
    sizes_things: bool = False


@dataclass(frozen=True)
class GraphFacts:
    """Hints for each input and what they rest on.

    Attributes:
        shapes: by name of value; dimensions may be symbols.
        texts: all strings that the model mentions: words and categories that it knows.
    """

    hints: dict[str, Hint]
    shapes: Shapes
    texts: tuple[str, ...]
    constants: dict[str, Array]


def graph_facts(inferred: onnx.ModelProto, inputs: list[str]) -> GraphFacts:
    """Read the hints off a skeleton with inferred shapes."""
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    constants: dict[str, Array] = {}
    _index(inferred.graph, readers, constants)
    shapes = shapes_of(inferred)
    sizing = _sizing_inputs(inferred.graph, inputs)
    hints = {}
    for name in inputs:
        hints[name] = _hint(name, readers, shapes, constants)
        hints[name].sizes_things = name in sizing
    return GraphFacts(hints, shapes, tuple(dict.fromkeys(_texts(inferred.graph))), constants)


def _index(
    graph: onnx.GraphProto,
    readers: dict[str, list[tuple[onnx.NodeProto, int]]],
    constants: dict[str, Array],
) -> None:
    for tensor in graph.initializer:
        constants[tensor.name] = onnx.numpy_helper.to_array(tensor)
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers[name].append((node, index))
        if node.op_type == "Constant":
            value = _constant(node)
            if value is not None:
                constants[node.output[0]] = value
        for body in bodies(node):
            _index(body, readers, constants)


def _constant(node: onnx.NodeProto) -> Array | None:
    for item in node.attribute:
        if item.name == "value":
            return onnx.numpy_helper.to_array(item.t)
        if item.name.startswith("value_") and not item.name.endswith("sparse"):
            return np.asarray(onnx.helper.get_attribute_value(item))
    return None


def _hint(
    name: str,
    readers: dict[str, list[tuple[onnx.NodeProto, int]]],
    shapes: Shapes,
    constants: dict[str, Array],
) -> Hint:
    hint, seen, queue = Hint(), {name}, [name]
    while queue:
        for node, index in readers.get(queue.pop(), ()):
            _learn(hint, node, index, shapes, constants)
            for value in _carried(node, index):
                if value and value not in seen:
                    seen.add(value)
                    queue.append(value)
    hint.constants = list(dict.fromkeys(hint.constants))
    return hint


def _carried(node: onnx.NodeProto, index: int) -> Iterator[str]:
    """The values to which a node hands on the values of its input `index`."""
    if node.op_type in _SAME_VALUES and not (node.op_type == "Where" and index == 0):
        if index not in PARAMETERS.get(node.op_type, ()):
            yield from node.output
    elif node.op_type in _INDEX_AT and index == 0:
        yield from node.output
    elif node.op_type in ("Loop", "Scan"):
        for body in bodies(node):
            if index < len(body.input):
                yield body.input[index].name


def _learn(
    hint: Hint,
    node: onnx.NodeProto,
    index: int,
    shapes: Shapes,
    constants: dict[str, Array],
) -> None:
    bound = _index_bound(node, index, shapes, constants)
    if bound is not None:
        hint.below = bound if hint.below is None else min(hint.below, bound)
    if index in PARAMETERS.get(node.op_type, ()):
        hint.uses.append(Use(node, index))
    if node.op_type == "If" or (node.op_type == "Loop" and index == 1):
        hint.is_condition = True
    if node.op_type in _COMPARISONS:
        other = constants.get(node.input[1 - index]) if len(node.input) == 2 else None
        if other is not None and other.dtype.kind in "iuf" and other.size <= 8:
            hint.constants += [float(v) for v in other.reshape(-1) if np.isfinite(v)]


def _index_bound(
    node: onnx.NodeProto,
    index: int,
    shapes: Shapes,
    constants: dict[str, Array],
) -> int | None:
    """Number of entries that the input indexes, if it is an index."""
    if node.op_type == "OneHot" and index == 0:
        depth = constants.get(node.input[1])
        return int(depth.reshape(-1)[0]) if depth is not None and depth.size else None
    if node.op_type == "EmbedLayerNormalization" and index in (0, 1):
        rows = shapes.get(node.input[2 if index == 0 else 4], ())
        return rows[0] if rows and isinstance(rows[0], int) else None
    if _INDEX_AT.get(node.op_type) != index:
        return None
    data = shapes.get(node.input[0])
    if not data:
        return None
    if node.op_type.endswith("ND"):
        known = [dim for dim in data if isinstance(dim, int)]
        return min(known, default=None)
    axis = attribute(node, "axis")
    dim = data[axis.i] if axis is not None and -len(data) <= axis.i < len(data) else data[0]
    if node.op_type == "ArrayFeatureExtractor":
        dim = data[-1]
    return dim if isinstance(dim, int) else None


_SIZING = {
    **{op: PARAMETERS[op] for op in ("Expand", "Tile", "Pad", "Resize", "Upsample", "Range")},
    **{op: PARAMETERS[op] for op in ("OneHot", "Loop", "AffineGrid", "Col2Im", "CenterCropPad")},
    **{op: PARAMETERS[op] for op in ("ConstantOfShape", "DFT", "BlackmanWindow", "HannWindow")},
    **{op: PARAMETERS[op] for op in ("HammingWindow", "MelWeightMatrix", "MaxUnpool")},
}


def _sizing_inputs(graph: onnx.GraphProto, inputs: list[str]) -> set[str]:
    """Which inputs can change a size by their values. One by one only if any can."""
    if not _has_sizing(graph, reached(graph, inputs)):
        return set()
    small = {value.name for value in graph.input if _may_be_size(value)}
    return {n for n in inputs if n in small and _has_sizing(graph, reached(graph, {n}))}


def _may_be_size(value: onnx.ValueInfoProto) -> bool:
    port = port_of(value)
    return port.is_integer or port.dims is None or len(port.dims) <= 1


def _has_sizing(graph: onnx.GraphProto, moving: set[str]) -> bool:
    for node in graph.node:
        for index in _SIZING.get(node.op_type, ()):
            if index < len(node.input) and node.input[index] in moving:
                return True
        if any(_has_sizing(body, moving) for body in bodies(node)):
            return True
    return False


def _texts(graph: onnx.GraphProto) -> Iterator[str]:
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.STRING:
            yield from (text.decode(errors="replace") for text in tensor.string_data)
    for node in graph.node:
        if node.domain == "ai.onnx.ml" or node.op_type in ("Constant", "TfIdfVectorizer"):
            for item in node.attribute:
                texts = (*item.strings, *item.t.string_data, *(item.s,) * (item.name == "value"))
                yield from (text.decode(errors="replace") for text in texts if text)
        for body in bodies(node):
            yield from _texts(body)
