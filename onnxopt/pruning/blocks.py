"""Residual blocks of a model: a branch from one value to an Add with that value; and what is none.

    exit = entry + branch(entry)

A block can be taken out and leaves a model of the same inputs and outputs (Veit, Wilber and
Belongie, "Residual networks behave like ensembles of relatively shallow networks", NeurIPS 2016;
Li, Li and Meng, J. Real-Time Image Proc. 21:116, 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxopt.graph import Graph, Node, Value
from onnxopt.model import Model
from onnxopt.pruning.branch_kind import Kind, channel_axis, is_layer, kind_of
from onnxopt.pruning.branch_refusals import Shape, elsewhere, unequal, why_not
from onnxopt.pruning.branches import Flow
from onnxopt.pruning.instance import run_instance
from onnxopt.shapes import infer

_SUMS_INSIDE = {
    "SkipLayerNormalization": 1,
    "SkipSimplifiedLayerNormalization": 1,
    "SkipGroupNorm": 4,
    "FusedConv": 3,
    "QLinearAdd": 3,
}
"""Operators of com.microsoft that add another value, and where they read it."""


@dataclass(frozen=True)
class Block:
    """A residual block of the main graph.

    Attributes:
        name: of the node that adds, or of what it makes if it has no name.
        entry, branch, exit: names of values: exit = entry + branch, all of one shape.
        nodes: of the branch, in order, each by the first value that it makes. Nothing but the sum
            needs any of them.
        sides: other values that the branch reads and that do not depend on the entry, as the mask
            of attention. Constants and shapes are not among them.
        inner: the blocks inside of the branch that lie in no other one there.
        kind: what the branch is apart from its inner blocks.
        shape: of entry, branch and exit, in the run that was looked at.
        axis: of their channels: 1, -1 for the last, or None if unknown.
        rectified: nothing but Relus read the exit.
    """

    name: str
    entry: str
    branch: str
    exit: str
    nodes: tuple[str, ...]
    sides: tuple[str, ...] = ()
    inner: tuple[Block, ...] = ()
    kind: Kind = "other"
    shape: tuple[int, ...] = ()
    axis: int | None = None
    rectified: bool = False


def lies_inside(one: Block, other: Block) -> bool:
    """One block lies in the branch of the other, and goes with it."""
    return one.exit in other.nodes


@dataclass(frozen=True)
class DeclinedSum:
    """A sum of two computed values that belongs to no block, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class Blocks:
    """What was found in a model.

    Attributes:
        found: all blocks, inner ones too, in the order of their sums.
    """

    found: tuple[Block, ...]
    declined: tuple[DeclinedSum, ...]

    @property
    def outermost(self) -> tuple[Block, ...]:
        """Those that lie in no other one."""
        inner = {block.exit for outer in self.found for block in outer.inner}
        return tuple(block for block in self.found if block.exit not in inner)


def blocks_of(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> Blocks:
    """The residual blocks of a model that is run once, for its shapes.

    Raises:
        RunError, UnverifiableError: ONNX Runtime cannot run it on these inputs.
    """
    instance = run_instance(proto, feeds)
    model = Model.from_proto(proto)
    infer(model)
    return find_blocks(model.graph, instance.shape)


def find_blocks(graph: Graph, shape: Shape) -> Blocks:
    """The residual blocks of a main graph.

    Args:
        shape: of a value, in numbers; None if unknown.
    """
    flow = Flow(graph)
    found: list[Block] = []
    declined: list[DeclinedSum] = []
    for node in graph.nodes:
        operands = _operands(node, flow)
        made = _block(node, operands, flow, shape, found) if operands else None
        if isinstance(made, Block):
            found.append(made)
        elif made is not None:
            declined.append(DeclinedSum(node.label(), made))
        for body in node.bodies:
            inner = (n for g in body.walk() for n in g.nodes if _operands(n, flow))
            why = f"it stands in a body of {node.label()}"
            declined.extend(DeclinedSum(each.label(), why) for each in inner)
    return Blocks(tuple(found), tuple(declined))


def _operands(node: Node, flow: Flow) -> list[Value]:
    """The computed values that a node adds, none if these are fewer than two."""
    if node.is_standard and node.op in ("Add", "Sum"):
        places: Sequence[int] = range(len(node.inputs))
    elif node.domain == "com.microsoft" and node.op in _SUMS_INSIDE:
        places = (0, _SUMS_INSIDE[node.op])
    else:
        return []
    values = [value for place in places if (value := node.input(place)) is not None]
    computed = [value for value in values if not flow.is_fixed(value)]
    is_number = node.op != "QLinearAdd" and any(
        value.dtype is not None and np.dtype(value.dtype).kind in "iub" for value in computed
    )
    return [] if is_number or len(computed) < 2 else computed


def _block(
    add: Node, operands: Sequence[Value], flow: Flow, shape: Shape, before: Sequence[Block]
) -> Block | str:
    """The block that ends at a sum, or why none does."""
    if not add.is_standard:
        return f"the sum is inside of {add.op}"
    if len(add.inputs) != 2:
        return f"it adds {len(add.inputs)} values, not two"
    first, second = operands
    if first is second:
        return "it adds a value to itself"
    for entry, branch in ((first, second), (second, first)):
        twins = flow.twins(entry)
        later = flow.after(twins, add)
        if branch in later:
            why = elsewhere(branch, [add], flow) or unequal(entry, branch, add, shape)
            if why:
                return why
            nodes = flow.only_for(branch)
            return why_not(branch, nodes, twins, later, flow) or _made(
                add, entry, branch, nodes, twins, flow, shape, before
            )
    names = " nor ".join(f"'{v.name}' ({_maker(v)})" for v in (first, second))
    return f"neither {names} is computed from the other"


def _maker(value: Value) -> str:
    return value.producer.op if value.producer is not None else "an input"


def _made(
    add: Node,
    entry: Value,
    branch: Value,
    nodes: Sequence[Node],
    twins: Sequence[Value],
    flow: Flow,
    shape: Shape,
    before: Sequence[Block],
) -> Block:
    names = tuple(_name(node) for node in nodes)
    contained = [block for block in before if block.exit in names]
    deeper = {name for block in contained for name in block.nodes}
    inner = tuple(block for block in contained if block.exit not in deeper)
    own = [node for node, name in zip(nodes, names, strict=True) if name not in deeper]
    others = [node for node in nodes if not any(v in twins for v in node.outputs)]
    made = add.outputs[0]
    return Block(
        name=add.name or made.name,
        entry=entry.name,
        branch=branch.name,
        exit=made.name,
        nodes=names,
        sides=tuple(v.name for v in flow.outside(others) if v not in twins),
        inner=inner,
        kind=kind_of(own if any(map(is_layer, own)) else nodes, flow.is_fixed),
        shape=shape(made) or (),
        axis=channel_axis(branch, shape, flow.is_fixed),
        rectified=made not in flow.outputs
        and all(node.op == "Relu" and node.is_standard for node in flow.readers(made)),
    )


def _name(node: Node) -> str:
    return next(value.name for value in node.outputs if not value.omitted)
