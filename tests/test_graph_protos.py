"""The one walk through bodies of nodes: single ones, lists of them, and bodies in bodies."""

from __future__ import annotations

import onnx
from onnx.helper import make_graph, make_model, make_node

from onnxopt.graph_protos import bodies, graph_protos, operators


def graph(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return make_graph([*nodes, make_node(name, ["x"], ["y"])], name, [], [])


def test_bodies_are_found_in_single_attributes_in_lists_and_in_each_other() -> None:
    inner = make_node("One", ["x"], ["z"], body=graph("Deep"))
    node = make_node(
        "Several", ["x"], ["a"], domain="other", branches=[graph("A", inner), graph("B")]
    )
    both = make_node("If", ["c"], ["b"], then_branch=graph("T"), else_branch=graph("E"))
    assert [body.name for body in bodies(node, both)] == ["A", "B", "E", "T"]
    whole = graph("Main", node, both)
    assert [g.name for g in graph_protos(whole)] == ["Main", "A", "Deep", "B", "E", "T"]
    proto = make_model(whole)
    proto.functions.add(name="f", domain="other").node.append(both)
    found = sorted(operators(proto))
    assert found == sorted(
        ["If", "T", "E", "Main", "Several", "If", "One", "Deep", "A", "B", "T", "E"]
    )
