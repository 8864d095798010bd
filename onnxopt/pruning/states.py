"""Initial states that are all zero are left out: shared, they would tie the units of several nodes.

Exporters make zeros for all layers of a stack at once and give each its slice. An operator without
initial states starts from zeros anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.numpy_helper

_MOVES = ("Expand", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Tile")
_KEEPS = frozenset((*_MOVES, "Identity", "Cast"))
"""Operators that make nothing but zeros of a first input that is nothing but zeros."""

_STANDARD = ("", "ai.onnx")
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


def without_zero_states(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose recurrent nodes have no initial states that are always zero.

    What made these may be left over; nothing reads it any more.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    given = {info.name for info in made.graph.input}
    tensors = {t.name: t for t in made.graph.initializer if t.name not in given}
    makers = {name: node for node in made.graph.node for name in node.output if name}
    for node in made.graph.node:
        if node.domain not in _STANDARD:
            continue
        for place in _STATES.get(node.op_type, ()):
            if len(node.input) > place and _is_zero(node.input[place], tensors, makers):
                node.input[place] = ""
                while not node.input[-1]:
                    del node.input[-1]
    return made


def _is_zero(
    name: str, tensors: Mapping[str, onnx.TensorProto], makers: Mapping[str, onnx.NodeProto]
) -> bool:
    """The value is nothing but zeros, whatever the inputs are."""
    if name in tensors:
        return not onnx.numpy_helper.to_array(tensors[name]).any()
    node = makers.get(name)
    if node is None or node.domain not in _STANDARD:
        return False
    if node.op_type == "ConstantOfShape":
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        return value is None or not onnx.numpy_helper.to_array(value).any()
    if node.op_type == "Concat":
        return all(_is_zero(each, tensors, makers) for each in node.input)
    return node.op_type in _KEEPS and _is_zero(node.input[0], tensors, makers)
