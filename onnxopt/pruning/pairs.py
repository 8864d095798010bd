"""Layers that belong together: nothing but a Relu lies between them."""

from __future__ import annotations

from collections.abc import Iterable

from onnxopt.graph import Graph, Value
from onnxopt.pruning.layer import Layer


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
    return first.kind == second.kind and all(
        type(layer) is Layer
        and layer.kind in ("conv", "linear")
        and layer.groups == 1
        and layer.bias
        and not layer.inner
        and not layer.quantized
        for layer in (first, second)
    )
