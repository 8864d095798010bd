"""Fix dimensions of inputs (`--set-shape`), and of all that is declared with the same symbols."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnxopt.errors import UsageError


def fix_shapes(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A copy of the model whose inputs have these dimensions.

    Raises:
        UsageError: no such input, another rank, or a number that contradicts a declared one.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    inputs = {info.name: info for info in made.graph.input}
    symbols: dict[str, int | None] = {}
    for name, dims in shapes.items():
        if name not in inputs:
            raise UsageError(
                f"the model has no input '{name}'", f"its inputs are {', '.join(inputs)}"
            )
        _fix(inputs[name], dims, symbols)
    known = {symbol: size for symbol, size in symbols.items() if size is not None}
    for info in (*made.graph.input, *made.graph.output, *made.graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in known:
                dim.dim_value = known[dim.dim_param]
    return made


def _fix(info: onnx.ValueInfoProto, dims: tuple[int, ...], symbols: dict[str, int | None]) -> None:
    kind = info.type.tensor_type
    declared = kind.shape.dim
    shown = _shown(info)
    if kind.HasField("shape") and len(declared) != len(dims):
        raise UsageError(
            f"the input '{info.name}' has {len(declared)} dimensions, not {len(dims)}",
            f"its declared shape is {shown}",
        )
    if not kind.HasField("shape"):
        declared.extend(onnx.TensorShapeProto.Dimension() for _ in dims)
    for dim, size in zip(declared, dims, strict=True):
        if size < 0:
            raise UsageError(f"a dimension of '{info.name}' cannot be {size}")
        if dim.HasField("dim_value") and dim.dim_value > 0 and dim.dim_value != size:
            raise UsageError(
                f"the input '{info.name}' has a fixed dimension of {dim.dim_value}, not {size}",
                f"its declared shape is {shown}",
            )
        if dim.dim_param:
            # One name with two sizes was only a placeholder: it says nothing about other values.
            same = symbols.setdefault(dim.dim_param, size) == size
            symbols[dim.dim_param] = size if same else None
        dim.dim_value = size


def _shown(info: onnx.ValueInfoProto) -> str:
    dims = info.type.tensor_type.shape.dim
    return "[" + ", ".join(d.dim_param or str(d.dim_value) for d in dims) + "]"
