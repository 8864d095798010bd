"""Layers that may read a part of the channels that they are given: a Gather selects these.

Channels that many layers read, as those of a residual stream, can only go for all of them at once.
What a single layer does without is its own affair: the columns of its weight go alone (channel
selection: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV
2017, section 3.3).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxopt.graph import Constant, Graph, Node, detach, drop_detached, replace_uses
from onnxopt.macs import macs
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.groups import is_weight
from onnxopt.pruning.tracker import Role, Tracker, is_labelled

SELECTING = ("Conv", "Gemm", "MatMul")


def selective(
    graph: Graph, tracker: Tracker, ignore: Collection[str], least: int = 0
) -> frozenset[str]:
    """The layers, by their first outputs, that do better to choose from what they are given.

    They read channels that other layers read as well, or that have to stay for another reason. What
    a layer reads alone goes together with what makes it.

    Args:
        ignore: names of nodes that stay as they are.
        least: multiply-accumulates of the smallest layer that chooses, in one run with sizes of 1
            where the model leaves them open.
    """
    roles = [role for role in tracker.roles if role.side == "in" and is_weight(role.weight)]
    readers: dict[int, set[Node]] = {}
    for role in roles:
        for root in _roots(tracker, tracker.axes(role.weight)[role.axis]):
            readers.setdefault(root, set()).add(role.node)
    return frozenset(
        role.node.outputs[0].name
        for role in roles
        if _may_select(role, graph)
        and (macs(role.node) or 0) >= least
        and role.node.name not in ignore
        and is_labelled(_given(role.node, tracker))
        and len(roots := _roots(tracker, tracker.axes(role.weight)[role.axis])) > 1
        and any(
            len(readers[root]) > 1 or tracker.atoms.why_pinned(root) is not None for root in roots
        )
    )


def _given(node: Node, tracker: Tracker) -> Axis:
    """What a layer is given to read from."""
    return tracker.axes(node.inputs[0])[tracker.contractions[node][0]]


def _roots(tracker: Tracker, label: Axis) -> list[int]:
    if isinstance(label, str) or not is_labelled(label):
        return []
    return list(dict.fromkeys(tracker.atoms.roots(label).tolist()))


def _may_select(role: Role, graph: Graph) -> bool:
    """One product with a weight of its own, on the right."""
    node, weight = role.node, role.weight
    return (
        node.op in SELECTING
        and node.is_standard
        and node.graph is graph
        and len(node.inputs) > 1
        and weight is node.inputs[1]
        and isinstance(weight, Constant)
        and len(weight.consumers) == 1
        and not weight.is_graph_output
        and not node.attr("transA")
        and int(node.attr("group") or 1) == 1
    )


def select(node: Node, cut: Cut) -> None:
    """Put a Gather before a layer that reads a part of what is left of its input's channels.

    Where a Gather is there already that nothing else reads, one takes the place of both.
    """
    axis, weight_axis = cut.tracker.contractions.get(node, (0, 0))
    data, graph = node.inputs[0], node.graph
    if (node.inputs[1], weight_axis) not in cut.tracker.sources or graph is None:
        return
    there, read = cut.kept(data, axis), cut.kept(node.inputs[1], weight_axis)
    if read is None:
        return
    chosen = np.flatnonzero(read if there is None else read[there])
    if len(chosen) == (len(read) if there is None else there.sum()):
        return
    before = data.producer
    if before is not None and _picks(before, axis, cut) and len(data.consumers) == 1:
        picked = before.inputs[1].array  # after its own adjustment, as it comes first
        assert picked is not None
        data, chosen = before.inputs[0], picked[chosen]
        if not before.outputs[0].is_graph_output:
            detach(before)
    made = graph.new_value(f"{data.name}_selected")
    indices = graph.add_initializer(chosen.astype(np.int64), f"{made.name}_channels")
    gather = Node("Gather", [data, indices], [made], {"axis": axis}, opset=node.opset)
    graph.nodes.insert(graph.nodes.index(node), gather)
    gather.graph = graph
    node.inputs[0] = made


def _picks(node: Node, axis: int, cut: Cut) -> bool:
    """It is a Gather of constant places of this axis."""
    if node.op != "Gather" or not node.is_standard or node.inputs[1].array is None:
        return False
    rank = len(cut.tracker.axes(node.inputs[0]))
    return node.inputs[1].array.ndim == 1 and int(node.attr("axis") or 0) % max(rank, 1) == axis


def drop_idle(graph: Graph, cut: Cut) -> None:
    """Take out Gathers that pick all that a cut has left, in order."""
    for node in list(graph.nodes):
        data = node.inputs[0] if node.inputs else None
        if node.op != "Gather" or data is None or data not in cut.tracker.labels:
            continue
        axis = int(node.attr("axis") or 0) % max(len(cut.tracker.axes(data)), 1)
        stays, made = cut.kept(data, axis), node.outputs[0]
        if stays is None or not _picks(node, axis, cut) or made.is_graph_output:
            continue
        picked = node.inputs[1].array
        if picked is not None and np.array_equal(picked, np.arange(int(stays.sum()))):
            replace_uses(made, data)
            detach(node)
    drop_detached(graph)
