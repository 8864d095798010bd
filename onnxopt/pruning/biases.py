"""Biases that refits need: a zero one for each layer without, taken out if it stays zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.submodel import reads

ADDED_BIAS = "_added_bias"
OWN_BIAS = "_own_bias"

_RECURRENT = ("LSTM", "GRU", "RNN")
_STANDARD = ("", "ai.onnx")
_GIVEN = {
    **dict.fromkeys(("Conv", "ConvTranspose", *_RECURRENT), _STANDARD),
    **dict.fromkeys(("FusedConv", "Attention"), ("com.microsoft",)),
}
"""Operators that are given a bias, by their domains."""

_UNSHARED = {**_GIVEN, "Gemm": _STANDARD, "FusedGemm": ("com.microsoft",)}


def with_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every convolution has a bias: refits move means, which need one.

    Recurrent operators and projections of attention get one too. Where several layers share a
    bias, as they do if it is zero, each gets a copy: their channels have nothing else in common.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    tensors = {t.name: t for t in made.graph.initializer}
    taken = set(tensors) | {name for node in made.graph.node for name in node.output}
    fixed = {info.name for info in (*made.graph.input, *made.graph.output)}
    readers = Counter(name for node in made.graph.node for name in reads(node))
    for node in made.graph.node:
        place, old = _place(node), _bias(node)
        if old in tensors and old not in fixed and readers[old] > 1 and _is_one_of(node, _UNSHARED):
            array, suffix = onnx.numpy_helper.to_array(tensors[old]), OWN_BIAS
        elif not old and _is_one_of(node, _GIVEN) and node.input[1] in tensors:
            weight = tensors[node.input[1]]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
            array, suffix = np.zeros(_shape(node, weight.dims), dtype), ADDED_BIAS
        else:
            continue
        name = _free(f"{next(filter(None, node.output))}{suffix}", taken)
        taken.add(name)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        node.input.extend([""] * (place + 1 - len(node.input)))
        node.input[place] = name
    return made


def _is_one_of(node: onnx.NodeProto, operators: Mapping[str, Sequence[str]]) -> bool:
    return node.domain in operators.get(node.op_type, ())


def _place(node: onnx.NodeProto) -> int:
    return 3 if node.op_type in _RECURRENT else 2


def _bias(node: onnx.NodeProto) -> str:
    place = _place(node)
    return str(node.input[place]) if len(node.input) > place else ""


def _shape(node: onnx.NodeProto, weight: Sequence[int]) -> tuple[int, ...]:
    """Of the bias of an operator with this weight."""
    if node.op_type in _RECURRENT:
        return weight[0], 2 * weight[1]
    if node.op_type == "ConvTranspose":
        return (weight[1] * next((a.i for a in node.attribute if a.name == "group"), 1),)
    return (weight[1] if node.op_type == "Attention" else weight[0],)


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
        if _bias(node) in zero:
            node.input[_place(node)] = ""
            while not node.input[-1]:
                del node.input[-1]
    return proto
