"""Two layers with a Relu between them, refitted in turns: what the first should make of the rest.

A refit of the first layer alone gives back what its kept channels were. But few channels serve the
second layer better if they may change: the error of the second layer is carried back through its
weights to the values between the two (steepest descent with the exact step), and the first layer
is fitted to these targets by ridge regression, then the second to what it gets now. No gradient of
the model is taken: each step is a least squares problem of one layer (target propagation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.graph import Array, Graph, Value
from onnxopt.pruning.layer import Layer
from onnxopt.runtime import Session


@dataclass(frozen=True)
class Operator:
    """A layer as a function of whole values, and its adjoint (without the bias)."""

    layer: Layer

    def forward(self, x: Array, W: Array) -> Array:
        """What it makes of x with a matrix [1, k + 1, m]."""
        if self.layer.kind == "linear":
            return np.asarray(x @ W[0, :-1].astype(x.dtype) + W[0, -1].astype(x.dtype))
        return _run("Conv", self.layer, x, self._kernel(x, W), W[0, -1].astype(x.dtype))

    def linear(self, x: Array, W: Array) -> Array:
        return self.forward(x, np.concatenate([W[:, :-1], np.zeros_like(W[:, -1:])], axis=1))

    def adjoint(self, r: Array, W: Array, like: Array) -> Array:
        """The inputs that r comes from, in the shape of `like`."""
        if self.layer.kind == "linear":
            return np.asarray(r @ W[0, :-1].T.astype(r.dtype))
        return _run("ConvTranspose", self.layer, r, self._kernel(r, W), None, like.shape[2:])

    def _kernel(self, x: Array, W: Array) -> Array:
        body = W[0, :-1].T.reshape(W.shape[2], -1, *self.layer.kernel)
        return np.ascontiguousarray(body, x.dtype)


def _run(
    op: str,
    layer: Layer,
    x: Array,
    weight: Array,
    bias: Array | None,
    size: Sequence[int] | None = None,
) -> Array:
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    attributes: dict[str, Any] = {
        "strides": layer.strides,
        "dilations": layer.dilations,
        "pads": layer.pads,
    }
    if size is not None:
        attributes["output_padding"] = [
            n - ((r - 1) * s - p - q + d * (k - 1) + 1)
            for n, r, s, p, q, d, k in zip(
                size,
                x.shape[2:],
                layer.strides,
                layer.pads,
                layer.pads[len(layer.kernel) :],
                layer.dilations,
                layer.kernel,
                strict=False,
            )
        ]
    constants = {"w": weight} if bias is None else {"w": weight, "b": bias}
    node = onnx.helper.make_node(op, ["x", *constants], ["y"], **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [onnx.helper.make_tensor_value_info("x", kind, None)],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    proto.ir_version = 8
    made: Array = Session(proto, optimized=True).run({"x": x})["y"]
    return made


def find_pairs(graph: Graph, layers: Iterable[Layer]) -> dict[str, Layer]:
    """For a layer, by its node, the layer before it, where nothing but a Relu lies between."""
    by_output = {layer.output: layer for layer in layers}
    values: dict[str, Value] = {v.name: v for node in graph.nodes for v in node.outputs}
    found = {}
    for layer in by_output.values():
        value = values.get(layer.input)
        if value is None or len(value.consumers) != 1 or value.is_graph_output:
            continue
        relu = value.producer
        if relu is None or relu.op != "Relu" or len(relu.inputs[0].consumers) != 1:
            continue
        first = by_output.get(relu.inputs[0].name)
        if first is not None and not relu.inputs[0].is_graph_output and _fits(first, layer):
            found[layer.node] = first
    return found


def _fits(first: Layer, second: Layer) -> bool:
    return (
        all(
            layer.kind in ("conv", "linear") and layer.groups == 1 and layer.bias
            for layer in (first, second)
        )
        and first.kind == second.kind
    )


def wanted_between(
    second: Operator, W: Array, z: Array, target: Array, shortcut: Array, *, rectified: bool
) -> Array:
    """The change of the values between that would lessen the second layer's error.

    Args:
        z: what lies between, behind the Relu.
        target: of the sum of the layer and `shortcut`.

    Returns:
        as z; zero where the Relu is closed.
    """
    open_ = z > 0
    now = second.forward(z, W)
    total = np.zeros_like(z)
    for _ in range(STEPS):
        left = target - shortcut - now
        if rectified:
            left = np.where((target <= 0) & (now + shortcut <= 0), 0, left)
        step = second.adjoint(left, W, z) * open_
        moved = second.linear(step, W)
        size = float(np.square(moved, dtype=np.float64).sum())
        if size <= 0:
            break
        length = np.float32(float(np.sum(moved * left, dtype=np.float64)) / size)
        total += length * step
        now = now + length * moved
    return total


STEPS = 3
"""Of steepest descent, for one refit of the first layer."""
