"""Tensors as the Open Inference Protocol v2 writes them: type names, raw bytes, JSON numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from onnxopt.errors import OnnxoptError
from onnxopt.signature import Array, Dim

ALIGNMENT = 64
"""Of tensors in a message that is received, where its sender's sizes allow it."""

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_ONLY_BINARY = ("FP16", "BF16")
"""The protocol has no JSON form of them."""

MOST_DIMS = 64


class ProtocolError(OnnxoptError):
    """A message that breaks the protocol, or asks for what the model is not.

    Args:
        status: of HTTP, for the one who sent it.
    """

    def __init__(self, what: str, fix: str = "", *, status: int = 400) -> None:
        super().__init__(what, fix)
        self.status = status


def type_name(dtype: np.dtype[Any]) -> str:
    """FP32 and the like.

    Raises:
        ProtocolError: the protocol has no such type.
    """
    if dtype not in _NAMES:
        raise ProtocolError(f"the Open Inference Protocol has no type for {dtype}")
    return _NAMES[dtype]


def can_cross(dtype: str) -> bool:
    """Whether the protocol has a type for tensors of this one, as numpy names it."""
    return any(str(known) == dtype for known in _NAMES)


def to_bytes(array: Array) -> memoryview:
    """The elements, little endian, row by row; without a copy where they lie so already."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if sys.byteorder == "big":
        flat = flat.byteswap()
    return memoryview(flat.view(np.uint8).data)


def described(entry: object, what: str) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    """Name, type and shape of an entry of `inputs` or `outputs`.

    Raises:
        ProtocolError: one is missing, or makes no sense.
    """
    if not isinstance(entry, Mapping):
        raise ProtocolError(f"an {what} is no JSON object")
    name, shape, kind = (entry.get(key) for key in ("name", "shape", "datatype"))
    if not isinstance(name, str) or not name:
        raise ProtocolError(f"an {what} has no name")
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise ProtocolError(f"{what} '{name}' has no datatype among {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MOST_DIMS or not all(map(_is_size, shape)):
        raise ProtocolError(f"{what} '{name}' has no shape of whole numbers")
    return name, _DTYPES[kind], tuple(shape)


def check_port(
    name: str,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    expected: str,
    dims: Sequence[Dim] | None,
) -> None:
    """Whether a tensor is what a port takes.

    Args:
        expected: the type, as numpy names it.

    Raises:
        ProtocolError: with what is expected.
    """
    if str(dtype) != expected:
        raise ProtocolError(f"'{name}' is {dtype}, but the model takes {expected}")
    if dims is None:
        return
    fixed = [(dim, size) for dim, size in zip(dims, shape, strict=False) if isinstance(dim, int)]
    if len(dims) != len(shape) or any(dim != size for dim, size in fixed):
        wanted = [dim if isinstance(dim, int) else -1 for dim in dims]
        raise ProtocolError(f"'{name}' has the shape {list(shape)}, but the model takes {wanted}")


def from_bytes(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], raw: memoryview) -> Array:
    """The array in these bytes; it shares their memory where that is aligned for its type.

    Raises:
        ProtocolError: there are not as many bytes as the shape needs; a BOOL is neither 0 nor 1.
    """
    if len(raw) != (needed := math.prod(shape) * dtype.itemsize):
        raise ProtocolError(f"'{name}' has {len(raw)} bytes of data, but its shape needs {needed}")
    array = np.frombuffer(raw, np.uint8)
    if dtype == np.bool_ and array.size and array.max() > 1:
        raise ProtocolError(f"'{name}' has a BOOL that is neither 0 nor 1")
    if array.ctypes.data % dtype.itemsize:
        array = array.copy()
    typed = array.view(dtype)
    if sys.byteorder == "big":
        typed = typed.byteswap()
    return typed.reshape(shape)


def from_json(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], data: object) -> Array:
    """The array of numbers in JSON: flat, or nested as the shape says.

    Raises:
        ProtocolError: wrong count, wrong kind, or a number that the type cannot hold.
    """
    if type_name(dtype) in _ONLY_BINARY:
        raise ProtocolError(f"'{name}' is {dtype}, which crosses as binary data only")
    if not isinstance(data, list):
        raise ProtocolError(f"'{name}' has neither a list of data nor a binary_data_size")
    numbers = np.array(data, object)  # of no type yet: numpy would make floats of large integers
    if numbers.size != math.prod(shape) or (numbers.ndim != 1 and numbers.shape != shape):
        raise ProtocolError(f"'{name}' has {numbers.size} numbers, not what {list(shape)} needs")
    kinds: dict[str, tuple[type, ...]] = {"b": (bool,), "f": (int, float)}
    if any(type(number) not in kinds.get(dtype.kind, (int,)) for number in numbers.flat):
        raise ProtocolError(f"the data of '{name}' is not of the type {dtype}")
    if dtype.kind in "iu" and numbers.size:
        limits = np.iinfo(dtype)
        if not limits.min <= numbers.min() <= numbers.max() <= limits.max:
            raise ProtocolError(f"'{name}' has a number that {dtype} cannot hold")
    try:
        with np.errstate(over="raise"):
            return numbers.astype(dtype).reshape(shape)
    except (OverflowError, FloatingPointError):
        raise ProtocolError(f"'{name}' has a number that {dtype} cannot hold") from None


def to_json(name: str, array: Array) -> list[Any]:
    """Its numbers, flat.

    Raises:
        ProtocolError: JSON cannot say them.
    """
    if type_name(array.dtype) in _ONLY_BINARY:
        raise ProtocolError(f"'{name}' is {array.dtype}, so ask for it with binary_data")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ProtocolError(f"'{name}' is not finite all over, so ask for it with binary_data")
    numbers: list[Any] = array.reshape(-1).tolist()
    return numbers


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
