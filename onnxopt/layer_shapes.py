"""The distinct layers of a model: what its convolutions and products are, apart from weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import onnx

from onnxopt.kernels import FusedKernel
from onnxopt.profiling.kit import KitWidth
from onnxopt.profiling.tensors import dims_of, kind_of

SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
"""Widths that are measured of each layer, inputs and outputs scaled together."""

UNEVEN = (1.0, 0.75, 0.5, 0.25)
"""Of the inputs and of the outputs, each with each: the groups before and after a layer shrink
unevenly. These are rounded up to whole blocks of channels, as cuts are."""

ODD = ((1.0, 1.0), (0.75, 0.75), (0.5, 0.5), (0.25, 0.25), (1.0, 0.5), (0.5, 1.0))
"""Of the inputs and of the outputs, for convolutions whose inputs are no multiple of four channels:
ONNX Runtime does not run those in blocks."""

FEWEST_SCALED = 5
"""Fewer channels or features than this (an image, a few classes) stay as they are."""

CONVOLUTIONS = ("Conv", "FusedConv")
PRODUCTS = ("Gemm", "FusedGemm", "MatMul")
MEASURED = (*CONVOLUTIONS, "ConvTranspose", *PRODUCTS)
"""Operators that profiles measure at several widths."""


@dataclass(frozen=True)
class LayerShape:
    """A layer without its weights.

    Attributes:
        op: Conv, ConvTranspose, Gemm or MatMul.
        batch: the axes before the channels (Conv: of samples; products: all rows).
        spatial: sizes of what it reads; empty for a product.
        out_spatial: sizes of what it makes.
        kernel: of a convolution.
        groups: of a convolution; None for a depthwise one, which has as many as input channels.
        attributes: strides, dilations, pads and auto_pad, as they are written in the node.
        activation: what is fused behind it, and its parameters; empty for none.
        adds: another value is added before the activation.
        transposed: a Gemm whose weight is stored the other way round.
    """

    op: str
    batch: tuple[int, ...]
    inputs: int
    outputs: int
    spatial: tuple[int, ...] = ()
    out_spatial: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    groups: int | None = 1
    attributes: tuple[tuple[str, str | tuple[int, ...]], ...] = ()
    activation: str = ""
    parameters: tuple[float, ...] = ()
    adds: bool = False
    transposed: bool = False

    def scaled(self, inputs: int, outputs: int) -> LayerShape:
        return replace(self, inputs=inputs, outputs=outputs)

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the weight, as the operator wants it."""
        if self.op == "ConvTranspose":
            return (self.inputs, self.outputs // (self.groups or self.inputs), *self.kernel)
        if self.kernel:
            return (self.outputs, self.inputs // (self.groups or self.inputs), *self.kernel)
        return (self.outputs, self.inputs) if self.transposed else (self.inputs, self.outputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (*self.batch, self.inputs, *self.spatial)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.batch, self.outputs, *self.out_spatial)

    def cost(self) -> KitWidth:
        """Multiply-accumulates, and bytes of what is read and written, as float32."""
        made = prod(self.output_shape)
        reached = prod(self.input_shape) if self.op == "ConvTranspose" else made
        per = prod(self.weight[1:]) if self.kernel else self.inputs
        moved = prod(self.input_shape) + prod(self.weight) + self.outputs
        return KitWidth(
            self.inputs, self.outputs, reached * per, 4 * (moved + made * (2 if self.adds else 1))
        )

    def __str__(self) -> str:
        sizes = f"{self.inputs}->{self.outputs}"
        if not self.kernel:
            return f"{sizes} on {prod(self.batch)} rows" + self._fused()
        kernel = "x".join(map(str, self.kernel))
        strides = dict(self.attributes).get("strides", ())
        stride = f" stride {'x'.join(map(str, strides))}" if set(strides) - {1} else ""
        kind = {None: "depthwise ", 1: ""}.get(self.groups, f"{self.groups} groups ")
        return (
            f"{kind}{kernel}{stride} {sizes} at {'x'.join(map(str, self.spatial))}{self._fused()}"
        )

    def _fused(self) -> str:
        return (" +Add" if self.adds else "") + (f" +{self.activation}" if self.activation else "")


def distinct_layers(
    kernels: Sequence[FusedKernel], proto: onnx.ModelProto
) -> dict[LayerShape, list[str]]:
    """The layers whose weights are stored as float32, each with the nodes of that shape."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    own_nodes = {
        node.name: (node, stored.get(node.input[1], ()))
        for node in proto.graph.node
        if node.op_type in MEASURED and len(node.input) > 1
    }
    found: dict[LayerShape, list[str]] = {}
    for kernel in kernels:
        op = kernel.kernel.op.removesuffix(".nchwc")
        inputs = kernel.kernel.inputs
        if op in MEASURED and 1 in kernel.weights and {kind_of(i) for i in inputs} == {"float"}:
            own = [name for name in kernel.nodes if name in own_nodes]
            layer = (
                _product(kernel, op)
                if op in PRODUCTS
                else _convolution(kernel, op, *own_nodes[own[0]] if own else (None, ()))
            )
            if layer is not None:
                found.setdefault(layer, []).append(own[0] if own else kernel.kernel.name)
    return found


def _convolution(
    fused: FusedKernel, op: str, node: onnx.NodeProto | None, dims: tuple[int, ...]
) -> LayerShape | None:
    """The layer of a convolution.

    Args:
        node, dims: its node in the file and the shape of the weight there, if these are known:
            channels and groups of the kernel are rounded up to blocks.
    """
    data, weight = dims_of(fused.kernel.inputs[0]), fused.weights[1]
    made = dims_of(fused.kernel.outputs[0])
    groups = int(fused.attributes.get("group", 1))
    if node is None or len(dims) != len(weight):
        dims = weight
    else:
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    turned = op == "ConvTranspose"
    inputs = dims[0] if turned else dims[1] * groups
    outputs = dims[1] * groups if turned else dims[0]
    if turned and "output_shape" in fused.attributes:
        return None
    name, parameters = _activation(fused.attributes)
    return LayerShape(
        op="ConvTranspose" if turned else "Conv",
        batch=data[:1],
        inputs=inputs,
        outputs=outputs,
        spatial=data[2:],
        out_spatial=made[2:],
        kernel=weight[2:],
        groups=None if groups == inputs > 1 and outputs % inputs == 0 else groups,
        attributes=_placing(fused.attributes),
        adds=not turned and fused.operands > 1,
        activation=name,
        parameters=parameters,
    )


def _placing(attributes: Mapping[str, Any]) -> tuple[tuple[str, str | tuple[int, ...]], ...]:
    """Where the kernel goes: the attributes that a layer keeps at every width."""
    names = ("auto_pad", "strides", "dilations", "pads", "output_padding")
    return tuple(
        (key, value.decode() if isinstance(value, bytes) else tuple(value))
        for key in names
        if (value := attributes.get(key)) is not None
    )


def _product(fused: FusedKernel, op: str) -> LayerShape | None:
    data, weight = dims_of(fused.kernel.inputs[0]), fused.weights[1]
    if len(weight) != 2 or len(data) < 2 or fused.attributes.get("transA"):
        return None
    name, parameters = _activation(fused.attributes)
    transposed = bool(fused.attributes.get("transB"))
    rows, columns = weight
    return LayerShape(
        op="MatMul" if op == "MatMul" else "Gemm",
        batch=data[:-1],
        inputs=columns if transposed else rows,
        outputs=rows if transposed else columns,
        transposed=transposed,
        activation=name,
        parameters=parameters,
    )


def _activation(attributes: Mapping[str, object]) -> tuple[str, tuple[float, ...]]:
    """What is fused behind a layer, and its parameters."""
    name, parameters = attributes.get("activation", b""), attributes.get("activation_params", ())
    text = name.decode() if isinstance(name, bytes) else str(name)
    return text, tuple(parameters) if isinstance(parameters, list | tuple) else ()


def widths(layer: LayerShape, block: int) -> list[LayerShape]:
    """The layer at all widths that are measured, the whole one first, none twice.

    Args:
        block: channels that kernels take at once.
    """
    inputs, outputs = layer.inputs, layer.outputs
    if layer.groups is None:  # so many outputs for each input at any width
        shares = [_width(layer, inputs, s, size) for size in (1, block) for s in SHARES]
        pairs = [(width, width * (outputs // inputs)) for width in shares]
        return list(dict.fromkeys(layer.scaled(*pair) for pair in pairs))
    pairs = [(_width(layer, inputs, s, 1), _width(layer, outputs, s, 1)) for s in SHARES]
    pairs += [
        (_width(layer, inputs, a, block), _width(layer, outputs, b, block))
        for a in UNEVEN
        for b in UNEVEN
    ]
    if layer.op == "Conv" and layer.groups == 1:
        odd = [(_odd(round(a * inputs)), _width(layer, outputs, b, 1)) for a, b in ODD]
        pairs += [pair for pair in odd if pair[0] > block]
    return list(dict.fromkeys(layer.scaled(*pair) for pair in pairs))


def _odd(channels: int) -> int:
    """So many or a little less, in no multiple of four."""
    return channels - 1 if channels % 4 == 0 else channels


def _width(layer: LayerShape, channels: int, share: float, block: int) -> int:
    """So many channels, whole groups and, where there are more than one, whole blocks of them."""
    groups = layer.groups or 1
    each = channels // groups
    if each < FEWEST_SCALED:
        return channels
    wanted = max(1, round(share * each)) * groups
    return min(channels, -(-wanted // block) * block) if block % groups == 0 else wanted
