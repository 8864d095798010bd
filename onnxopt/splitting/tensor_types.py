"""Types of the tensors that may cross, as a half declares them; and what cannot cross, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.helper

from onnxopt.errors import OnnxoptError
from onnxopt.graph import Value, Variable
from onnxopt.model import Model
from onnxopt.runtime import value_types
from onnxopt.shapes import dimension_names
from onnxopt.signature import Dim, Port, port_of

SENT = frozenset(
    ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    + ("float16", "bfloat16", "float32", "float64")
)
"""The types that the Open Inference Protocol has names for, but for texts."""


@dataclass(frozen=True)
class Kind:
    """What there is to say of one tensor: see `dag.Tensor`."""

    dtype: str
    dims: tuple[Dim, ...] | None
    why_not: str


class TensorTypes:
    """Types by value: from shape inference, else what ONNX Runtime makes of the model.

    Attributes:
        known: the types as messages, by name. Dimensions that are no numbers keep the symbols that
            inputs of the model declare, or are open.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._symbols = dimension_names(model.graph)
        self._declared = set()
        for value in model.graph.inputs:
            if value.info is not None:
                for dim in value.info.type.tensor_type.shape.dim:
                    self._declared.add(dim.dim_param)
        self.known: dict[str, onnx.TypeProto] = {
            value.name: value.info.type
            for value in model.graph.inputs
            if isinstance(value, Variable) and value.info is not None
        }

    def of(self, made: Sequence[Value]) -> Mapping[Value, Kind]:
        """Kinds of the inputs of the model, and of these values that nodes make."""
        foreign = [v.name for v in made if v.dtype is None or v.shape is None]
        told = self._told(foreign)
        for value in made:
            self.known[value.name] = self._type(value, told.get(value.name))
        values = [*self._model.graph.inputs, *made]
        return {value: self._kind(value.name) for value in values}

    def _told(self, names: Sequence[str]) -> Mapping[str, onnx.TypeProto]:
        """What ONNX Runtime knows of values that shape inference does not."""
        if not names:
            return {}
        try:
            return value_types(self._model.header, names)
        except OnnxoptError:
            return {}

    def _type(self, value: Value, told: onnx.TypeProto | None) -> onnx.TypeProto:
        kind = onnx.TypeProto()
        if told is not None:
            kind.CopyFrom(told)
            if not kind.HasField("tensor_type"):
                return kind
            for dim in kind.tensor_type.shape.dim:
                if dim.dim_param not in self._declared:
                    dim.ClearField("dim_param")
        if value.dtype is not None:
            elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
            kind.tensor_type.elem_type = elem_type
        if value.shape is not None:
            kind.tensor_type.ClearField("shape")
            kind.tensor_type.shape.SetInParent()
            for size in value.shape:
                dim = kind.tensor_type.shape.dim.add()
                if isinstance(size, int):
                    dim.dim_value = size
                elif self._symbols.get(size) in self._declared:
                    dim.dim_param = self._symbols[size]
        return kind

    def _kind(self, name: str) -> Kind:
        kind = self.known[name]
        port = port_of(onnx.ValueInfoProto(name=name, type=kind))
        dtype = "string" if port.elem_type == onnx.TensorProto.STRING else port.dtype.name
        return Kind(dtype, port.dims, _why_not(port, dtype))


def _why_not(port: Port, dtype: str) -> str:
    if port.optional:
        return "it is an optional, and only tensors can be sent"
    if port.kind == "unknown" or (port.kind == "tensor" and not port.elem_type):
        return "its type is not known"
    if port.kind != "tensor":
        return f"it is a {port.kind}, and only tensors can be sent"
    if dtype not in SENT:
        return f"it is a tensor of {dtype}, for which the protocol between the halves has no name"
    return ""
