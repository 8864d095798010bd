"""Layers that can be refitted: convolutions and products with stored weights, as matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from onnxopt.graph import Array, Constant, Graph, Node, Value
from onnxopt.pruning.moments import (
    Indices,
    im2col,
    im2col_transposed,
    output_spatial,
    transposed_spatial,
)

Weights = Mapping[str, Array]
FLOATS = (np.float32, np.float16, np.float64)


@dataclass(frozen=True)
class Layer:
    """One node that computes W'x + b for every output position.

    Attributes:
        name: of the node.
        kind: "conv", "transposed" or "linear".
        node: name of the value that the node itself makes.
        input, output: names of what it reads, and of what it makes with its bias added.
        weight, bias: names of initializers; bias "" if there is none.
        groups: of a convolution; else 1.
        flipped: a linear weight is stored [outputs, inputs].
        kernel, strides, dilations, pads, extra: of a convolution, as in ONNX.
    """

    name: str
    kind: str
    node: str
    input: str
    output: str
    weight: str
    bias: str
    groups: int = 1
    flipped: bool = False
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    extra: tuple[int, ...] = field(default=())

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def in_axis(self) -> int:
        """Of the weight. A grouped convolution has the inputs of one group there."""
        return {"conv": 1, "transposed": 0}.get(self.kind, 1 if self.flipped else 0)

    def matrix(self, weights: Weights) -> Array:
        """W [groups, k + 1, m] in float64, the bias in its last row (zero without one)."""
        weight = weights[self.weight].astype(np.float64)
        if self.kind == "conv":
            per_group = weight.reshape(self.groups, -1, prod(weight.shape[1:]))
            W = per_group.transpose(0, 2, 1)
        elif self.kind == "transposed":
            W = np.moveaxis(weight, 1, -1).reshape(1, -1, weight.shape[1])
        else:
            W = (weight.T if self.flipped else weight)[None]
        bias = weights[self.bias].astype(np.float64) if self.bias else np.zeros(W[:, 0].size)
        return np.concatenate([W, bias.reshape(self.groups, 1, -1)], axis=1)

    def stored(self, W: Array, weights: Weights) -> dict[str, Array]:
        """The initializers that hold a matrix as `matrix` gives it."""
        old = weights[self.weight]
        body = W[:, :-1]
        if self.kind == "conv":
            made = body.transpose(0, 2, 1).reshape(old.shape)
        elif self.kind == "transposed":
            channels, outputs, *kernel = old.shape
            made = np.moveaxis(body[0].reshape(channels, *kernel, outputs), -1, 1)
        else:
            made = body[0].T if self.flipped else body[0]
        found = {self.weight: np.ascontiguousarray(made, old.dtype)}
        if self.bias:
            bias = weights[self.bias]
            found[self.bias] = W[:, -1].reshape(bias.shape).astype(bias.dtype)
        return found

    def output_shape(self, data: Sequence[int], outputs: int) -> tuple[int, ...]:
        """The shape of the output of a convolution, without the batch, for an input's shape."""
        sizes = (data[2:], self.kernel, self.strides, self.dilations, self.pads)
        if self.kind == "conv":
            return (outputs, *output_spatial(*sizes))
        return (outputs, *transposed_spatial(*sizes, self.extra or None))

    def positions(self, output_shape: Sequence[int]) -> int:
        """Output positions of one sample (of one row of the batch)."""
        return prod(output_shape[2:]) if self.kind != "linear" else prod(output_shape[1:-1])

    def rows(self, x: Array, positions: Indices) -> Array:
        """What it multiplies at [N, P] positions: [N P, channels taps]."""
        if self.kind == "linear":
            return _picked(x.reshape(len(x), -1, x.shape[-1]), positions)
        if self.kind == "conv":
            return im2col(x, self.kernel, self.strides, self.dilations, self.pads, positions)
        return im2col_transposed(
            x, self.kernel, self.strides, self.dilations, self.pads, positions, self.extra or None
        )

    def outputs(self, y: Array, positions: Indices) -> Array:
        """What it gives at these positions: [N P, outputs]."""
        if self.kind == "linear":
            return _picked(y.reshape(len(y), -1, y.shape[-1]), positions)
        return _picked(np.moveaxis(y.reshape(*y.shape[:2], -1), 1, 2), positions)

    def unit_rows(self, roots: Array, units: Iterable[int]) -> list[list[Indices]]:
        """For each group of the convolution the rows of x that each unit takes.

        Args:
            roots: the root of each input channel [channels].
        """
        width = len(roots) // self.groups
        found = []
        for group in range(self.groups):
            part = roots[group * width : (group + 1) * width]
            found.append([self._rows_of(np.flatnonzero(part == unit)) for unit in units])
        return found

    def _rows_of(self, channels: Indices) -> Indices:
        taps = np.arange(self.taps)
        return (channels[:, None] * self.taps + taps).reshape(-1).astype(np.int64)


def _picked(rows: Array, positions: Indices) -> Array:
    """[N, all, k] at [N, P] to [N P, k]."""
    found = np.take_along_axis(rows, positions[:, :, None], axis=1)
    return found.reshape(-1, rows.shape[-1])


def find_layers(graph: Graph, shape: Callable[[Value], tuple[int, ...] | None]) -> Iterator[Layer]:
    """The layers of the main graph, in the order in which they run.

    A layer whose weight something else reads too is left out: it cannot be refitted alone.
    """
    for node in graph.nodes:
        if not node.is_standard or len(node.inputs) < 2:
            continue
        found: Layer | None = None
        if node.op in ("Conv", "ConvTranspose") and _own(node.inputs[1]):
            found = _convolution(node, shape)
        elif node.op == "Gemm" and _own(node.inputs[1]):
            found = _gemm(node)
        elif node.op == "MatMul" and _own(node.inputs[1]):
            found = _matmul(node)
        if found is not None:
            yield found


def _own(value: Value) -> bool:
    """A weight of floats that one node alone reads."""
    return (
        isinstance(value, Constant)
        and not value.overridable
        and not value.is_graph_output
        and len(value.consumers) == 1
        and value.dtype in FLOATS
    )


def _bias(node: Node, outputs: int) -> str | None:
    """The name of the bias, "" if there is none; None if it is one that cannot be changed."""
    value = node.input(2)
    if value is None:
        return ""
    return value.name if _is_bias(value, outputs) else None


def _is_bias(value: Value, outputs: int) -> bool:
    """A number for each output, none of them broadcast."""
    return _own(value) and isinstance(value, Constant) and value.dims == (outputs,)


def _convolution(node: Node, shape: Callable[[Value], tuple[int, ...] | None]) -> Layer | None:
    kernel = tuple(int(d) for d in (node.inputs[1].static_shape or ())[2:])
    data, made = shape(node.inputs[0]), shape(node.outputs[0])
    bias = _bias(node, made[1]) if made is not None else None
    groups = int(node.attr("group") or 1)
    transposed = node.op == "ConvTranspose"
    if bias is None or data is None or made is None or not kernel or (transposed and groups > 1):
        return None
    strides = tuple(node.attr("strides") or [1] * len(kernel))
    dilations = tuple(node.attr("dilations") or [1] * len(kernel))
    pads = tuple(node.attr("pads") or [0] * 2 * len(kernel))
    if node.attr("auto_pad") not in (None, "", "NOTSET", "VALID"):
        if transposed:
            return None
        pads = _automatic(node, data[2:], made[2:], kernel, strides, dilations)
    if transposed and node.attr("output_shape"):
        return None
    extra = tuple(node.attr("output_padding") or ()) if transposed else ()
    kind = "transposed" if transposed else "conv"
    return replace(
        _layer(node, kind, bias),
        groups=groups,
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        extra=extra,
    )


def _automatic(
    node: Node,
    data: Sequence[int],
    made: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """The padding that SAME_UPPER and SAME_LOWER stand for."""
    sizes = zip(data, made, kernel, strides, dilations, strict=True)
    totals = [max((o - 1) * s + d * (k - 1) + 1 - n, 0) for n, o, k, s, d in sizes]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    pads = (large, small) if node.attr("auto_pad") == "SAME_LOWER" else (small, large)
    return (*pads[0], *pads[1])


def _layer(node: Node, kind: str, bias: str, output: Value | None = None) -> Layer:
    made = node.outputs[0]
    return Layer(
        name=node.name or made.name,
        kind=kind,
        node=made.name,
        input=node.inputs[0].name,
        output=(output or made).name,
        weight=node.inputs[1].name,
        bias=bias,
    )


def _gemm(node: Node) -> Layer | None:
    flipped = bool(node.attr("transB"))
    bias = _bias(node, (node.inputs[1].static_shape or (0, 0))[0 if flipped else 1])
    scaled = node.attr("alpha") != 1 or (bias and node.attr("beta") != 1)
    if node.attr("transA") or scaled or bias is None:
        return None
    return replace(_layer(node, "linear", bias), flipped=flipped)


def _matmul(node: Node) -> Layer | None:
    """A product, with the Add of a vector after it if there is one."""
    if node.inputs[1].rank != 2 or (node.inputs[0].rank or 0) < 2:
        return None
    made = node.outputs[0]
    if len(made.consumers) == 1 and not made.is_graph_output:
        add = made.consumers[0]
        if add.op == "Add" and add.graph is node.graph:
            other = add.inputs[1] if add.inputs[0] is made else add.inputs[0]
            if _is_bias(other, (node.inputs[1].static_shape or (0, 0))[1]):
                return _layer(node, "linear", other.name, add.outputs[0])
    return _layer(node, "linear", "")
