"""Biases that refits need: a zero one for each convolution without, taken out if it stays zero."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

ADDED_BIAS = "_added_bias"


def with_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every convolution has a bias: refits move means, which need one."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    shapes = {t.name: (tuple(t.dims), t.data_type) for t in made.graph.initializer}
    for node in made.graph.node:
        transposed = node.op_type == "ConvTranspose"
        if (node.op_type != "Conv" and not transposed) or node.domain not in ("", "ai.onnx"):
            continue
        found = shapes.get(node.input[1])
        if found is None or (len(node.input) > 2 and node.input[2]):
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        count = found[0][1] * groups if transposed else found[0][0]
        name = _free(f"{node.output[0]}{ADDED_BIAS}", shapes)
        shapes[name] = ((count,), found[1])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(found[1])
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(count, dtype), name))
        del node.input[2:]
        node.input.append(name)
    return made


def _free(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


def without_zero_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take out the biases of `with_biases` that no refit made use of."""
    zero = {
        t.name
        for t in proto.graph.initializer
        if ADDED_BIAS in t.name and not onnx.numpy_helper.to_array(t).any()
    }
    for node in proto.graph.node:
        if len(node.input) == 3 and node.input[2] in zero:
            del node.input[2:]
    return proto
