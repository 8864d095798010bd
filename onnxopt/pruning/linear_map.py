"""A layer as a function of whole values, with its adjoint; its weights stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.graph import Array
from onnxopt.pruning.layer import Layer
from onnxopt.runtime import Session


class LinearMap:
    """A convolution or a product with given weights.

    Args:
        layer: of kind "conv" or "linear", with one group.
        W: [1, k + 1, m], the bias last.
    """

    def __init__(self, layer: Layer, W: Array) -> None:
        self.layer, self.W = layer, W
        self._sessions: dict[tuple[Any, ...], Session] = {}

    def forward(self, x: Array) -> Array:
        """What it makes of x."""
        x = _at_least_single(x)
        if self.layer.kind == "linear":
            return np.asarray(x @ self._kernel(x.dtype) + self.W[0, -1].astype(x.dtype))
        return self._run("Conv", x, self.W[0, -1])

    def linear(self, x: Array) -> Array:
        """The same without the bias."""
        x = _at_least_single(x)
        if self.layer.kind == "linear":
            return np.asarray(x @ self._kernel(x.dtype))
        return self._run("Conv", x)

    def adjoint(self, r: Array, size: Sequence[int]) -> Array:
        """What r, in the shape of an output, comes from.

        Args:
            size: the spatial shape of the input; () of a product.
        """
        r = _at_least_single(r)
        if self.layer.kind == "linear":
            return np.asarray(r @ self._kernel(r.dtype).T)
        return self._run("ConvTranspose", r, None, self._output_padding(r.shape[2:], size))

    def _kernel(self, dtype: npt.DTypeLike) -> Array:
        body = self.W[0, :-1]
        if self.layer.kind == "conv":
            body = body.T.reshape(self.W.shape[2], -1, *self.layer.kernel)
        return np.ascontiguousarray(body, dtype)

    def _output_padding(self, made: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
        layer, dims = self.layer, len(self.layer.kernel)
        sizes = zip(
            size, made, layer.strides, layer.dilations, layer.kernel,
            layer.pads[:dims], layer.pads[dims:], strict=True,
        )  # fmt: skip
        return tuple(n - ((r - 1) * s - p - q + d * (k - 1) + 1) for n, r, s, d, k, p, q in sizes)

    def _run(
        self, op: str, x: Array, bias: Array | None = None, padding: tuple[int, ...] | None = None
    ) -> Array:
        key = op, x.dtype, bias is None, padding
        if key not in self._sessions:
            self._sessions[key] = self._session(op, x.dtype, bias, padding)
        made: Array = self._sessions[key].run({"x": x})["y"]
        return made

    def _session(
        self, op: str, dtype: npt.DTypeLike, bias: Array | None, padding: tuple[int, ...] | None
    ) -> Session:
        layer, kind = self.layer, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        attributes: dict[str, Any] = {
            "strides": layer.strides,
            "dilations": layer.dilations,
            "pads": layer.pads,
        }
        if padding is not None:
            attributes["output_padding"] = padding
        constants = {"w": self._kernel(dtype)}
        if bias is not None:
            constants["b"] = bias.astype(dtype)
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
        return Session(proto, optimized=True, threads=1)


def _at_least_single(x: Array) -> Array:
    return np.asarray(x, np.promote_types(x.dtype, np.float32))
