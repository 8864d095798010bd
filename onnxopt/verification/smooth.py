"""The smooth twin of a quantized model: the same without the steps, so that small errors show."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.signature import Array
from onnxopt.verification.element_types import attribute

PREFIX = "onnxopt.verification.smooth/"


def smooth_twin(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy in which values pass QuantizeLinear and DequantizeLinear clipped but not rounded.

    A rewrite that rounds otherwise tips values over the edge of a step, and in a deep quantized
    model one such step can change everything after it: errors cannot be told from rounding. In
    the twin the same rewrite makes the same small error as in a model of floats.

    Returns:
        None if there is no such pair in the main graph.
    """
    constants = _Constants(proto.graph)
    makers = {n.output[0]: n for n in proto.graph.node if n.op_type in _PASSING}
    limits: dict[str, tuple[str, Array, Array]] = {}
    for node in proto.graph.node:
        maker = _quantizer(node, makers) if node.op_type == "DequantizeLinear" else None
        found = None if maker is None else _range(maker, node, constants)
        if maker is not None and found is not None:
            limits[node.output[0]] = (maker.input[0], *found)
    if not limits:
        return None
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    del twin.graph.node[:]
    for node in proto.graph.node:
        name = node.output[0] if node.output else ""
        twin.graph.node.extend(_clip(twin, name, *limits[name]) if name in limits else [node])
    return twin


class _Constants:
    """Arrays by name: initializers, Constant nodes, and copies and casts of them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors = {t.name: t for t in graph.initializer}
        self._makers = {n.output[0]: n for n in graph.node if n.op_type in _COPIES}

    def get(self, name: str) -> Array | None:
        if name in self._tensors:
            return onnx.numpy_helper.to_array(self._tensors[name])
        node = self._makers.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            value = attribute(node, "value")
            return None if value is None else onnx.numpy_helper.to_array(value.t)
        array, to = self.get(node.input[0]), attribute(node, "to")
        if array is None or to is None:
            return array
        return array.astype(onnx.helper.tensor_dtype_to_np_dtype(to.i))


_COPIES = ("Constant", "Identity", "Cast")
_PASSING = ("QuantizeLinear", "Identity", "Cast")


def _quantizer(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The QuantizeLinear whose result a DequantizeLinear reads.

    A Cast between them changes nothing if the two agree on the type, which `_range` checks.
    """
    maker = makers.get(node.input[0])
    while maker is not None and maker.op_type != "QuantizeLinear":
        maker = makers.get(maker.input[0])
    return maker


def quantized_nodes(proto: onnx.ModelProto) -> int:
    """Number of operators that compute on quantized values; they have no smooth twin."""
    return sum(
        node.op_type.startswith("QLinear") or node.op_type.endswith("Integer")
        for node in proto.graph.node
    )


def _range(
    quantize: onnx.NodeProto, dequantize: onnx.NodeProto, constants: _Constants
) -> tuple[Array, Array] | None:
    """Lowest and highest value that the pair lets through; None if the two do not match."""
    parts = []
    for node in (quantize, dequantize):
        arrays = [constants.get(name) for name in node.input[1:] if name]
        known = [array for array in arrays if array is not None]
        if not known or len(known) < len(arrays):
            return None
        parts.append(known)
    first, second = parts
    if len(first) != len(second) or any(
        a.dtype != b.dtype or not np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    ):
        return None
    scale = first[0]
    zero = first[1] if len(first) > 1 else np.zeros((), np.uint8)
    if scale.size != 1 or scale.dtype != np.float32 or zero.dtype.kind not in "iu":
        return None
    bounds = np.iinfo(zero.dtype)
    low, high = ((float(b) - float(zero.reshape(-1)[0])) for b in (bounds.min, bounds.max))
    unit = scale.reshape(())
    return np.asarray(low * unit, np.float32), np.asarray(high * unit, np.float32)


def _clip(
    twin: onnx.ModelProto, name: str, source: str, low: Array, high: Array
) -> list[onnx.NodeProto]:
    """Nodes that make `name` from `source`. Max and Min: Clip changed its form over the opsets."""
    base = f"{PREFIX}{name}"
    for end, value in (("/low", low), ("/high", high)):
        twin.graph.initializer.append(onnx.numpy_helper.from_array(value, base + end))
    return [
        onnx.helper.make_node("Max", [source, base + "/low"], [base]),
        onnx.helper.make_node("Min", [base, base + "/high"], [name]),
    ]
