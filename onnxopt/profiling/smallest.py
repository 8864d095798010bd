"""Chains of the smallest kernels there are, as bytes of a model file: what a run costs beside work.

They are written here by hand, for onnx need not be installed where models are measured. The
numbers are those of the fields in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

INPUT = "v0"


def chain(length: int) -> bytes:
    """A model of so many nodes in a row, Sigmoid and Tanh, on one float."""
    nodes = (
        _message(1, f"v{i}") + _message(2, f"v{i + 1}") + _message(4, ("Sigmoid", "Tanh")[i % 2])
        for i in range(length)
    )
    one = _message(1, _number(1, 1))
    kind = _message(1, _number(1, 1) + _message(2, one))
    graph = b"".join(_message(1, node) for node in nodes) + _message(2, "chain")
    graph += _message(11, _message(1, INPUT) + _message(2, kind))
    graph += _message(12, _message(1, f"v{length}") + _message(2, kind))
    return _number(1, 8) + _message(7, graph) + _message(8, _number(2, 13))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _message(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
