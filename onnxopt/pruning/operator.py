"""One operator as a function of arrays: what ONNX Runtime makes of them, its weights among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx.helper

from onnxopt.graph import Array, Node
from onnxopt.runtime import Session


@dataclass(frozen=True)
class Operator:
    """An operator of the ONNX standard with its attributes, each list of them as a tuple."""

    op: str
    attributes: tuple[tuple[str, Any], ...]
    opset: int

    @staticmethod
    def of(node: Node, *, without: Sequence[str] = ()) -> Operator:
        kept = {n: v for n, v in node.attrs.items() if n not in without and v is not None}
        frozen = {n: tuple(v) if isinstance(v, list) else v for n, v in kept.items()}
        return Operator(node.op, tuple(sorted(frozen.items())), node.opset)

    def attribute(self, name: str) -> Any:
        return dict(self.attributes).get(name)

    def run(self, inputs: Sequence[Array | None], **attributes: Any) -> Array:
        """Its first output.

        Args:
            inputs: in order; None where one is omitted.
            attributes: in place of those that it has.
        """
        given = tuple(sorted({**dict(self.attributes), **attributes}.items()))
        kinds = tuple(None if array is None else array.dtype for array in inputs)
        session = _session(self.op, given, self.opset, kinds)
        feeds = {f"x{i}": array for i, array in enumerate(inputs) if array is not None}
        made: Array = session.run(feeds)["y"]
        return made


@lru_cache(maxsize=32)
def _session(
    op: str,
    attributes: tuple[tuple[str, Any], ...],
    opset: int,
    kinds: tuple[np.dtype[Any] | None, ...],
) -> Session:
    """Weights are inputs too: other weights need no other session."""
    names = [f"x{i}" if kind is not None else "" for i, kind in enumerate(kinds)]
    node = onnx.helper.make_node(op, names, ["y"], **dict(attributes))
    values = [
        onnx.helper.make_tensor_value_info(
            name, int(onnx.helper.np_dtype_to_tensor_dtype(kind)), None
        )
        for name, kind in zip(names, kinds, strict=True)
        if kind is not None
    ]
    graph = onnx.helper.make_graph([node], "operator", values, [onnx.ValueInfoProto(name="y")])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    proto.ir_version = 8
    return Session(proto)
