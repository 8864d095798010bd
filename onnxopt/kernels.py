"""The kernels that ONNX Runtime makes of a model: fused, with the shapes of one run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.helper

from onnxopt.model import save
from onnxopt.profiling.events import Kernel, read_trace
from onnxopt.profiling.feeds import Array, drawn, input_shapes
from onnxopt.profiling.naming import NodeName, nodes_of
from onnxopt.profiling.sessions import Measured


@dataclass(frozen=True)
class FusedKernel:
    """One kernel with all that determines what it does.

    Attributes:
        attributes: of its node in the model that ONNX Runtime made.
        weights: shapes of the inputs that are stored, by number: ONNX Runtime shows no shape of
            those that it packed.
        operands: how many inputs are not stored.
        nodes: names of the nodes of the original that it does the work of, as far as known.
    """

    kernel: Kernel
    attributes: Mapping[str, Any]
    weights: Mapping[int, tuple[int, ...]]
    operands: int
    nodes: tuple[str, ...]


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes all have names of their own: kernels are found by them again."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    taken = {node.name for node in made.graph.node}
    seen: set[str] = set()
    for number, node in enumerate(made.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{next(iter(node.output), '') or number}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)
    return made


def node_names(proto: onnx.ModelProto) -> tuple[NodeName, ...]:
    """The nodes of the main graph, as a profile needs to know them."""
    return tuple(
        NodeName(node.name, node.op_type, tuple(node.input), tuple(node.output))
        for node in proto.graph.node
    )


def fused_kernels(
    proto: onnx.ModelProto,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    feeds: Mapping[str, Array] | None = None,
) -> list[FusedKernel]:
    """Let ONNX Runtime optimize a model for this machine's processor, and run it once.

    Args:
        proto: with a name for every node, see `named`.
        shapes: of the inputs, where they are open.
        feeds: the inputs; drawn if not given.

    Raises:
        UsageError: the shapes do not fit the inputs.
        MeasureError: ONNX Runtime does not load or run the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxopt-kernels-") as temporary:
        folder = Path(temporary)
        save(proto, folder / "model.onnx")
        optimized = folder / "optimized.onnx"
        session = Measured(
            folder / "model.onnx", threads=1, trace=folder / "trace", optimized=optimized
        )
        if feeds is None:
            feeds = drawn(session.inputs, input_shapes(session.inputs, shapes or {}, None))
        session.run(feeds)
        kernels = [entry.kernel for entry in read_trace(session.end_trace())]
        made = onnx.load(optimized)
    nodes = {node.name: node for node in made.graph.node}
    stored = {tensor.name: tuple(tensor.dims) for tensor in made.graph.initializer}
    owners = nodes_of(kernels, node_names(proto))
    return [
        _fused(kernel, nodes.get(kernel.name), stored, owner)
        for kernel, owner in zip(kernels, owners, strict=True)
    ]


def _fused(
    kernel: Kernel,
    node: onnx.NodeProto | None,
    stored: Mapping[str, tuple[int, ...]],
    owner: tuple[str, ...],
) -> FusedKernel:
    if node is None:
        return FusedKernel(kernel, {}, {}, len(kernel.inputs), owner)
    return FusedKernel(
        kernel,
        {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
        {number: stored[name] for number, name in enumerate(node.input) if name in stored},
        sum(bool(name) and name not in stored for name in node.input),
        owner,
    )
