"""What a model takes and gives: one Port for each input and output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper

from onnxopt.errors import UsageError

Array: TypeAlias = npt.NDArray[Any]
Kind: TypeAlias = Literal["tensor", "sequence", "map", "sparse", "opaque", "unknown"]
Dim: TypeAlias = int | str | None

FLOAT_TYPES = frozenset(
    (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    + (onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
)


@dataclass(frozen=True)
class Port:
    """One input or output of a model.

    Attributes:
        kind: what it carries; for an optional: what it carries when it is there.
        elem_type: onnx.TensorProto.DataType of the tensor, or of the tensors of the sequence.
        dims: number, symbol or None for each dimension; None if the file does not say the rank.
        optional: its type is optional(...).
    """

    name: str
    kind: Kind
    elem_type: int
    dims: tuple[Dim, ...] | None
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy type of its elements; object for strings and for what is not made of tensors."""
        if self.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            return np.dtype(object)
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.elem_type))

    @property
    def is_floating(self) -> bool:
        return self.elem_type in FLOAT_TYPES

    @property
    def is_integer(self) -> bool:
        return self.dtype.kind in "iu"

    def describe(self) -> str:
        """For a person: float32[N,3,224,224]."""
        name = "string" if self.elem_type == onnx.TensorProto.STRING else str(self.dtype)
        shape = "" if self.dims is None else "[" + ",".join(str(d or "?") for d in self.dims) + "]"
        text = f"{name}{shape}" if self.kind == "tensor" else f"{self.kind} of {name}{shape}"
        return f"optional {text}" if self.optional else text


def model_inputs(proto: onnx.ModelProto) -> tuple[Port, ...]:
    """The inputs that must be fed, in order; those with a default value are not among them."""
    defaults = _default_names(proto.graph)
    return _ports(v for v in proto.graph.input if v.name not in defaults)


def overridable_inputs(proto: onnx.ModelProto) -> tuple[Port, ...]:
    """The inputs with a default value (an initializer under the same name), in order."""
    defaults = _default_names(proto.graph) if proto.ir_version >= 4 else set()
    return _ports(v for v in proto.graph.input if v.name in defaults)


def model_outputs(proto: onnx.ModelProto) -> tuple[Port, ...]:
    return _ports(proto.graph.output)


def batch_of(ports: Iterable[Port]) -> int | None:
    """How many samples the inputs take at once: the first axis of each counts samples.

    Returns:
        None if they take any number.

    Raises:
        UsageError: they take different numbers, so this axis cannot be that of the samples.
    """
    sizes = {port.name: port.dims[0] for port in ports if port.dims}
    fixed = {name: size for name, size in sizes.items() if isinstance(size, int) and size > 0}
    if len(set(fixed.values())) > 1:
        named = ", ".join(f"'{name}' {size}" for name, size in fixed.items())
        raise UsageError(
            f"the first axes of the inputs cannot count samples, for their sizes differ: {named}",
            "give a model whose inputs all have the samples along their first axis",
        )
    return next(iter(fixed.values()), None)


def _default_names(graph: onnx.GraphProto) -> set[str]:
    return {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}


def _ports(infos: Iterable[onnx.ValueInfoProto]) -> tuple[Port, ...]:
    return tuple(port_of(info) for info in infos)


def port_of(info: onnx.ValueInfoProto) -> Port:
    """Read a declaration of the file."""
    kind_proto, optional = info.type, False
    if kind_proto.HasField("optional_type"):
        kind_proto, optional = kind_proto.optional_type.elem_type, True
    kind: Kind = "tensor"
    if kind_proto.HasField("sequence_type"):
        kind, kind_proto = "sequence", kind_proto.sequence_type.elem_type
    if kind_proto.HasField("map_type"):
        return Port(info.name, "map", onnx.TensorProto.UNDEFINED, None, optional)
    if kind_proto.HasField("sparse_tensor_type"):
        return Port(info.name, "sparse", kind_proto.sparse_tensor_type.elem_type, None, optional)
    if not kind_proto.HasField("tensor_type"):
        known = kind_proto.WhichOneof("value") is not None
        return Port(info.name, "opaque" if known else "unknown", 0, None, optional)
    tensor = kind_proto.tensor_type
    dims = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
    return Port(info.name, kind, tensor.elem_type, dims, optional)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None
