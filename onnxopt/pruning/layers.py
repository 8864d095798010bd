"""Layers that can be refitted: the convolutions and products of a graph with stored weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from onnxopt.graph import Constant, Graph, Node, Value
from onnxopt.pruning.contraction import Contraction
from onnxopt.pruning.follow.products import einsum_equation
from onnxopt.pruning.layer import Layer
from onnxopt.pruning.moments import transposed_spatial
from onnxopt.pruning.owned import added_bias, bias_of, is_bias, is_stored, is_weight, own
from onnxopt.pruning.quantized import Quantized, quantized
from onnxopt.pruning.recurrent import GATES, gates

__all__ = ["Layer", "find_layers", "find_weights"]

Shape = Callable[[Value], tuple[int, ...] | None]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def find_layers(graph: Graph, shape: Shape) -> Iterator[Layer]:
    """The layers of the main graph, in the order in which they run.

    A layer whose weight something else reads too is left out: it cannot be refitted alone.
    """
    return (layer for layer, reads in _layers_and_reads(graph, shape) if reads == 1)


def find_weights(graph: Graph, shape: Shape) -> Iterator[Layer]:
    """The same, and for each weight that several layers share the first one, with the others.

    They must be alike, and nothing else may read the weight. Their biases are left alone.
    """
    found = list(_layers_and_reads(graph, shape))
    alike: dict[Layer, list[Layer]] = {}
    for layer, _ in found:
        alike.setdefault(_wherever(layer), []).append(layer)
    for layer, reads in found:
        first, *others = alike[_wherever(layer)]
        if reads == 1:
            yield layer
        elif layer is first and layer.groups == 1 and len(others) == reads - 1:
            yield replace(layer, bias="", output=layer.node, others=tuple(others))


def _layers_and_reads(graph: Graph, shape: Shape) -> Iterator[tuple[Layer, int]]:
    """All layers, each with how often its weight is read."""
    reads = {value.name: len(value.consumers) for node in graph.nodes for value in node.inputs}
    for node in graph.nodes:
        if node.is_standard or (node.domain == "com.microsoft" and node.op in _CONTRIB):
            yield from ((layer, reads[layer.weight]) for layer in _layers(node, shape))


def _wherever(layer: Layer) -> Layer:
    """What is the same of layers with one matrix, whatever they read and make."""
    place = replace(layer, name="", node="", input="", output="", bias="", bias_gain=1.0)
    return replace(place, strides=(), dilations=(), pads=(), extra=())


_CONTRIB = ("FusedConv", "FusedGemm", "Attention")


def _layers(node: Node, shape: Shape) -> Iterable[Layer | Contraction]:
    if node.op in GATES:
        return _recurrent(node)
    if len(node.inputs) < 2:
        return ()
    found: Layer | None = None
    if node.op == "MatMul" and not _is_matrix(node):
        found = _contraction(node, _matmul_terms(node, shape), shape)
    elif node.op == "Einsum":
        found = _contraction(node, _einsum_terms(node), shape)
    elif not is_weight(node.inputs[1]):
        return ()
    elif node.op in ("Conv", "ConvTranspose", "FusedConv"):
        found = _convolution(node, shape)
    elif node.op in ("Gemm", "FusedGemm"):
        found = _gemm(node)
    elif node.op == "MatMul":
        found = _matmul(node)
    elif node.op == "Attention" and not node.is_standard:
        found = _attention(node)
    return () if found is None else (found,)


def _convolution(node: Node, shape: Shape) -> Layer | None:
    kernel = tuple(int(d) for d in (shape(node.inputs[1]) or ())[2:])
    data, made = shape(node.inputs[0]), shape(node.outputs[0])
    bias = bias_of(node, made[1]) if made is not None else None
    transposed = node.op == "ConvTranspose"
    if bias is None or data is None or made is None or not kernel or node.input(3) is not None:
        return None
    strides = tuple(node.attr("strides") or [1] * len(kernel))
    dilations = tuple(node.attr("dilations") or [1] * len(kernel))
    pads = tuple(node.attr("pads") or [0] * 2 * len(kernel))
    extra = tuple(node.attr("output_padding") or ()) if transposed else ()
    if node.attr("output_shape") or node.attr("auto_pad") not in (None, "", "NOTSET", "VALID"):
        ends = (made, data) if transposed else (data, made)
        pads = _automatic(node, ends[0][2:], ends[1][2:], kernel, strides, dilations, extra)
    if transposed:
        plain = transposed_spatial(data[2:], kernel, strides, dilations, pads)
        extra = tuple(n - m for n, m in zip(made[2:], plain, strict=True))
    kind = "transposed" if transposed else "conv"
    return replace(
        _layer(node, kind, bias),
        groups=int(node.attr("group") or 1),
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        extra=extra,
        inner=node.op == "FusedConv",
        rectified=node.attr("activation") == "Relu",
    )


def _automatic(
    node: Node,
    data: Sequence[int],
    made: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
) -> tuple[int, ...]:
    """The padding that SAME_UPPER, SAME_LOWER and `output_shape` stand for.

    Args:
        data, made: spatial shapes of what is read and made; of a transposed one the other way.
    """
    sizes = zip(data, made, kernel, strides, dilations, extra or [0] * len(kernel), strict=True)
    totals = [max((o - 1) * s + d * (k - 1) + 1 + e - n, 0) for n, o, k, s, d, e in sizes]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    pads = (small, large) if node.attr("auto_pad") == "SAME_UPPER" else (large, small)
    return (*pads[0], *pads[1])


def _layer(node: Node, kind: str, bias: str, output: Value | None = None) -> Layer:
    made = node.outputs[0]
    integers = [quantized(v) for v in node.inputs[1:3]]
    return Layer(
        name=node.name or made.name,
        kind=kind,
        node=made.name,
        input=node.inputs[0].name,
        output=(output or made).name,
        weight=node.inputs[1].name,
        bias=bias,
        quantized=tuple(q for q in integers if isinstance(q, Quantized)),
    )


def _gemm(node: Node) -> Layer | None:
    flipped = bool(node.attr("transB"))
    bias = bias_of(node, (node.inputs[1].static_shape or (0, 0))[0 if flipped else 1])
    gain, bias_gain = (float(1 if (g := node.attr(n)) is None else g) for n in ("alpha", "beta"))
    if node.attr("transA") or not gain or bias is None:
        return None
    return replace(
        _layer(node, "linear", bias if bias_gain else ""),
        flipped=flipped,
        gain=gain,
        bias_gain=bias_gain or 1.0,
        inner=node.op == "FusedGemm",
        rectified=node.attr("activation") == "Relu",
    )


def _is_matrix(node: Node) -> bool:
    return node.inputs[1].rank == 2 and is_weight(node.inputs[1])


def _matmul(node: Node) -> Layer | None:
    """A product, with the Add of a vector after it if there is one."""
    if (node.inputs[0].rank or 0) < 2:
        return None
    outputs = (node.inputs[1].static_shape or (0, 0))[1]
    other = added_bias(node, lambda value: is_bias(value, outputs) and value.rank == 1)
    if other is None:
        return _layer(node, "linear", "")
    return _layer(node, "linear", other.name, node.outputs[0].consumers[0].outputs[0])


def _attention(node: Node) -> Layer | None:
    """The projection of com.microsoft.Attention: X [B, S, I], W [I, 3 H D], b [3 H D]."""
    bias = bias_of(node, (node.inputs[1].static_shape or (0, 0))[1])
    return None if bias is None else replace(_layer(node, "linear", bias), inner=True)


def _recurrent(node: Node) -> Iterable[Layer]:
    """ONNX Runtime knows no other layout than 0."""
    weights = [v for v in node.inputs[1:4] if not v.omitted]
    fixed = [v for v in node.inputs if isinstance(v, Constant)]
    if (
        not all(map(own, weights))
        or any(v.overridable for v in fixed)
        or node.attr("layout")
        or all(v.omitted for v in node.outputs)
    ):
        return ()
    return gates(node)


def _einsum_terms(node: Node) -> tuple[int, str, str, str] | None:
    """The place of the weight, and the letters of the value, of the weight and of the result."""
    terms, arrow, result = einsum_equation(node).partition("->")
    letters = terms.split(",")
    if not arrow or len(letters) != 2 or not "".join((*letters, result)).isalpha():
        return None
    place = next((i for i, value in enumerate(node.inputs) if is_stored(value)), None)
    return None if place is None else (place, letters[1 - place], letters[place], result)


def _matmul_terms(node: Node, shape: Shape) -> tuple[int, str, str, str] | None:
    """Those of a product with a weight on the left, or with one that is no matrix."""
    place = next((i for i, value in enumerate(node.inputs) if is_stored(value)), None)
    shapes = [shape(value) for value in node.inputs]
    if place is None or any(s is None or len(s) > 20 for s in shapes):
        return None
    left, right = (len(s) for s in shapes if s is not None)
    batch = LETTERS[: max(left, right, 2) - 2]
    terms = [("" if n < 2 else batch[len(batch) - n + 2 :]) for n in (left, right)]
    terms[0] += "y" if left == 1 else "xy"
    terms[1] += "y" if right == 1 else "yz"
    result = batch + ("x" if left > 1 else "") + ("z" if right > 1 else "")
    return place, terms[1 - place], terms[place], result


def _contraction(
    node: Node, terms: tuple[int, str, str, str] | None, shape: Shape
) -> Contraction | None:
    """A product with the weight at a place, with the Add after it if that is its bias."""
    if terms is None:
        return None
    place, value, weight, result = terms
    data, stored, made = node.inputs[1 - place], node.inputs[place], node.outputs[0]
    shapes = [shape(v) for v in (data, stored, made)]
    if not Contraction.fits(value, weight, result) or not _agree(shapes, (value, weight, result)):
        return None
    dims = shapes[1] or ()
    sizes = dict(zip(weight, dims, strict=True))
    groups = int(np.prod([sizes[c] for c in weight if c in value and c in result]))
    found = Contraction(
        name=node.name or made.name,
        kind="contraction",
        node=made.name,
        input=data.name,
        output=made.name,
        weight=stored.name,
        bias="",
        groups=groups,
        value=value,
        stored_as=weight,
        result=result,
        dims=dims,
    )
    wanted = tuple(sizes[c] for c in found.bias_letters)
    bias = added_bias(node, lambda v: bool(wanted) and v.static_shape == wanted)
    if bias is None:
        return found
    return replace(found, bias=bias.name, output=made.consumers[0].outputs[0].name)


def _agree(shapes: Sequence[tuple[int, ...] | None], terms: Sequence[str]) -> bool:
    """Each letter has one size: nothing is broadcast."""
    sizes: dict[str, int] = {}
    for found, term in zip(shapes, terms, strict=True):
        if found is None or len(found) != len(term):
            return False
        if any(sizes.setdefault(c, n) != n for c, n in zip(term, found, strict=True)):
            return False
    return True
