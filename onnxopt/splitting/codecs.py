"""How tensors cross: as they are, as float16, or as bytes with a scale; in standard operators."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
import onnx.helper as make

from onnxopt.signature import Dim
from onnxopt.splitting.dag import Tensor
from onnxopt.splitting.manifest import Codec, Port

OPSET = 13
IR_VERSION = 8
"""Of encoders and decoders that are models of their own."""

OLDEST_OPSET = {"none": 1, "fp16": 6, "uint8": 11}
"""The first version of ONNX's operators that has what a codec needs inside of a half."""

SIDE_BYTES = 5
"""A scale (float32) and a zero point (uint8) that cross with a tensor of bytes."""


def applies(tensor: Tensor | Port, codec: Codec) -> bool:
    """Whether a codec changes how this tensor crosses.

    Only float32 is made smaller: integers, flags and indices would become others, and the types
    that are small already would lose more than they save. One number alone stays as it is.
    """
    dims: tuple[Dim, ...] | None = tensor.dims if isinstance(tensor, Tensor) else tensor.shape
    sizes = None if dims is None else [d for d in dims if isinstance(d, int)]
    single = dims is not None and sizes is not None and len(sizes) == len(dims) and prod(sizes) < 2
    return codec != "none" and tensor.dtype == "float32" and not single


def encoded_bytes(tensor: Tensor | Port, codec: Codec) -> int:
    """Bytes that a tensor takes where it crosses, at the sizes that its own are told for."""
    if not applies(tensor, codec):
        return tensor.size_bytes
    if codec == "fp16":
        return tensor.size_bytes // 2
    return tensor.size_bytes // 4 + SIDE_BYTES


@dataclass(frozen=True)
class Coding:
    """What a codec does to the tensors of one cut.

    Attributes:
        encoded: the tensors that do not cross as they are.
        wire: what crosses, in the order of the tensors.
        encode, decode: nodes that make `wire` of the tensors, and the tensors of `wire`.
    """

    encoded: tuple[Port, ...]
    wire: tuple[Port, ...]
    encode: tuple[onnx.NodeProto, ...]
    decode: tuple[onnx.NodeProto, ...]

    @property
    def new(self) -> tuple[Port, ...]:
        """What crosses instead of the encoded tensors."""
        made = {name for node in self.encode for name in node.output}
        return tuple(port for port in self.wire if port.name in made)


def coding(tensors: Sequence[Port], codec: Codec, taken: Collection[str]) -> Coding:
    """Encode what crosses.

    Args:
        taken: names of values that the model has already, in bodies too.
    """
    names = set(taken)

    def fresh(base: str) -> str:
        name, count = base, 0
        while name in names:
            name, count = f"{base}_{count}", count + 1
        names.add(name)
        return name

    wire: list[Port] = []
    encode: list[onnx.NodeProto] = []
    decode: list[onnx.NodeProto] = []
    encoded = tuple(port for port in tensors if applies(port, codec))
    for port in tensors:
        if port not in encoded:
            wire.append(port)
            continue
        there, back, crossing = (_as_half if codec == "fp16" else _as_bytes)(port, fresh)
        encode.append(there)
        decode.append(back)
        wire += crossing
    return Coding(encoded, tuple(wire), tuple(encode), tuple(decode))


def _as_half(
    port: Port, fresh: Callable[[str], str]
) -> tuple[onnx.NodeProto, onnx.NodeProto, list[Port]]:
    small = fresh(f"{port.name}_fp16")
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    return (
        make.make_node("Cast", [port.name], [small], name=f"encode_{port.name}", to=half),
        make.make_node("Cast", [small], [port.name], name=f"decode_{port.name}", to=single),
        [Port(small, "float16", port.shape, encoded_bytes(port, "fp16"))],
    )


def _as_bytes(
    port: Port, fresh: Callable[[str], str]
) -> tuple[onnx.NodeProto, onnx.NodeProto, list[Port]]:
    names = [fresh(f"{port.name}_{what}") for what in ("uint8", "scale", "zero_point")]
    encode = make.make_node("DynamicQuantizeLinear", [port.name], names, name=f"encode_{port.name}")
    decode = make.make_node("DequantizeLinear", names, [port.name], name=f"decode_{port.name}")
    size = encoded_bytes(port, "uint8") - SIDE_BYTES
    return (
        encode,
        decode,
        [
            Port(names[0], "uint8", port.shape, size),
            Port(names[1], "float32", (), 4),
            Port(names[2], "uint8", (), 1),
        ],
    )


def codec_models(code: Coding) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Encoder and decoder as models. What they do not take crosses as it is."""
    return (
        _model("encoder", code.encode, code.encoded, code.new),
        _model("decoder", code.decode, code.new, code.encoded),
    )


def _model(
    name: str, nodes: Sequence[onnx.NodeProto], inputs: Sequence[Port], outputs: Sequence[Port]
) -> onnx.ModelProto:
    graph = make.make_graph([*nodes], name, [*map(info_of, inputs)], [*map(info_of, outputs)])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    model.ClearField("producer_name")
    return model


def info_of(port: Port) -> onnx.ValueInfoProto:
    """How a model declares a tensor that crosses."""
    elem_type = make.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    info = onnx.ValueInfoProto(name=port.name)
    info.type.tensor_type.elem_type = elem_type
    if port.shape is not None:
        info.type.tensor_type.shape.SetInParent()
        for size in port.shape:
            dim = info.type.tensor_type.shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
            elif size:
                dim.dim_param = size
    return info
