"""Weights and biases that layers may call their own: stored, seen by nobody outside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxopt.graph import Constant, Node, Value
from onnxopt.pruning.quantized import quantized

FLOATS = (np.float32, np.float16, np.float64)


def is_stored(value: Value) -> bool:
    """Floats in an initializer that nobody outside sees."""
    return (
        isinstance(value, Constant)
        and not value.overridable
        and not value.is_graph_output
        and value.dtype in FLOATS
    )


def own(value: Value) -> bool:
    """Stored floats that one node alone reads."""
    return is_stored(value) and len(value.consumers) == 1


def bias_of(node: Node, outputs: int) -> str | None:
    """The name of the bias, "" if there is none; None if it is one that cannot be changed."""
    value = node.input(2)
    if value is None:
        return ""
    return value.name if is_bias(value, outputs) else None


def is_bias(value: Value, outputs: int) -> bool:
    """A number for each output, none of them broadcast."""
    if quantized(value) is not None:
        return value.producer is not None and value.producer.inputs[0].static_shape == (outputs,)
    return own(value) and isinstance(value, Constant) and value.dims in ((outputs,), (1, outputs))


def is_weight(value: Value) -> bool:
    return is_stored(value) or quantized(value) is not None


def added_bias(node: Node, fits: Callable[[Value], bool]) -> Value | None:
    """The bias that the only reader of what a node makes adds to it."""
    made = node.outputs[0]
    if len(made.consumers) != 1 or made.is_graph_output:
        return None
    add = made.consumers[0]
    if add.op != "Add" or add.graph is not node.graph:
        return None
    other = add.inputs[1] if add.inputs[0] is made else add.inputs[0]
    return other if own(other) and fits(other) else None
