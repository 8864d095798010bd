"""The graph of a model file and all that its nodes hold, as protobuf."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def graph_protos(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and the bodies of its nodes, however deep."""
    yield graph
    for body in bodies(*graph.node):
        yield from graph_protos(body)


def bodies(*nodes: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that nodes hold themselves."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def operators(proto: onnx.ModelProto) -> Iterator[str]:
    """The operators of all nodes of a model, those of bodies and local functions among them."""
    inside = (body for function in proto.functions for body in bodies(*function.node))
    for function in proto.functions:
        yield from (node.op_type for node in function.node)
    for outer in (proto.graph, *inside):
        for graph in graph_protos(outer):
            yield from (node.op_type for node in graph.node)
