"""A part of a model as a model of its own: what some values need, from some others on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx

from onnxopt.graph_protos import bodies


def submodel(
    proto: onnx.ModelProto,
    outputs: Sequence[str],
    given: Mapping[str, onnx.TypeProto] | None = None,
) -> onnx.ModelProto:
    """The nodes of the main graph that `outputs` need, with these as the only outputs.

    Args:
        outputs: names of values of the main graph.
        given: values that are fed instead of computed, with their types.

    Returns:
        a model without declared shapes of inner values; it shares no message with the original.
    """
    given = given or {}
    nodes, needed = _needed(proto.graph, outputs, given)
    made = onnx.ModelProto(ir_version=proto.ir_version)
    made.opset_import.extend(proto.opset_import)
    made.functions.extend(proto.functions)
    graph = made.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(nodes)
    graph.input.extend(
        onnx.ValueInfoProto(name=name, type=kind) for name, kind in given.items() if name in needed
    )
    graph.input.extend(i for i in proto.graph.input if i.name in needed and i.name not in given)
    graph.initializer.extend(
        t for t in proto.graph.initializer if t.name in needed and t.name not in given
    )
    graph.sparse_initializer.extend(
        t for t in proto.graph.sparse_initializer if t.values.name in needed
    )
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return made


def _needed(
    graph: onnx.GraphProto, outputs: Iterable[str], given: Mapping[str, onnx.TypeProto]
) -> tuple[list[onnx.NodeProto], set[str]]:
    needed = set(outputs)
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(name in needed and name not in given for name in node.output):
            nodes.append(node)
            needed |= reads(node)
    return nodes[::-1], needed


def reads(node: onnx.NodeProto) -> set[str]:
    """Names that it or its bodies read, those of inner values among them."""
    found = set(node.input)
    for body in bodies(node):
        for inner in body.node:
            found |= reads(inner)
        found.update(info.name for info in body.output)
    return found


def free_names(node: onnx.NodeProto) -> set[str]:
    """Names from outside that it or its bodies read."""
    found = {name for name in node.input if name}
    for body in bodies(node):
        found |= _free_of_body(body)
    return found


def _free_of_body(body: onnx.GraphProto) -> set[str]:
    found = {info.name for info in body.output}
    defined = {info.name for info in body.input} | {t.name for t in body.initializer}
    defined |= {sparse.values.name for sparse in body.sparse_initializer}
    for node in body.node:
        found |= free_names(node)
        defined.update(node.output)
    return found - defined
