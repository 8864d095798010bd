"""What `onnxopt inspect` tells about one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from onnxopt.cost import Cost, NodeCost, cost, node_costs
from onnxopt.external import size_bytes, uses_external_data
from onnxopt.model import Model

MOST_NODES_LISTED = 10


@dataclass(frozen=True)
class Inspection:
    """One model at a glance.

    Attributes:
        source: path of the file.
        cost: sizes, operators, signature, MACs and memory.
        opsets: version by domain; "ai.onnx" is the standard one.
        ir_version: of the file format.
        producer: name and version of the exporter.
        functions: names of the local functions.
        metadata: the model's own key and value pairs.
        largest: the nodes with most MACs, weights or output, in that order of weight.
    """

    source: str
    cost: Cost
    opsets: Mapping[str, int]
    ir_version: int
    producer: str = ""
    graph_name: str = ""
    functions: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    largest: tuple[NodeCost, ...] = ()


def inspect(proto: onnx.ModelProto, *, source: str = "") -> Inspection:
    """Look at a model without running it.

    Raises:
        BadModelError: the graph does not hang together.
    """
    model = Model.from_proto(proto)
    nodes = node_costs(model)
    return Inspection(
        source=source,
        cost=cost(model, size_bytes=size_bytes(proto)),
        opsets={entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        ir_version=proto.ir_version,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        graph_name=proto.graph.name,
        functions=tuple(_function_name(function) for function in proto.functions),
        metadata={entry.key: entry.value for entry in proto.metadata_props},
        largest=tuple(_largest(nodes)),
    )


def has_external_data(file: Path, proto: onnx.ModelProto) -> bool:
    """Whether the file of a loaded model keeps weights in a second file.

    Args:
        proto: the model with its weights; a file that holds them all is not smaller.
    """
    if file.suffix == ".onnxtxt" or file.stat().st_size >= size_bytes(proto):
        return False
    return uses_external_data(onnx.load(file, load_external_data=False))


def _function_name(function: onnx.FunctionProto) -> str:
    return f"{function.domain}.{function.name}" if function.domain else function.name


def _largest(nodes: list[NodeCost]) -> list[NodeCost]:
    """By their shares in the MACs, in the weights and in the memory of the model, added up."""
    macs = sum(node.macs or 0 for node in nodes) or 1
    weights = sum(node.weight_bytes for node in nodes) or 1
    memory = sum(node.output_bytes for node in nodes) or 1

    def share(node: NodeCost) -> float:
        parts = (node.macs or 0) / macs, node.weight_bytes / weights, node.output_bytes / memory
        return sum(parts)

    ranked = sorted(nodes, key=share, reverse=True)
    return [node for node in ranked[:MOST_NODES_LISTED] if share(node) > 0]
