"""Take residual blocks out of a model: an identity, a constant or a linear map stands for each.

What is left is an ordinary model under the old names. Only the nodes of the branches go: what else
nothing needs any more, an Identity, a Relu of a Relu or a map before a convolution, the lossless
rewriter takes out or folds (`onnxopt.optimizer.optimize`), where that is exact:

- a constant goes into the bias of a linear layer right before it (fold-offset-into-bias) or right
  after it (fold-offset-into-next-bias), unless that one pads its input with zeros, which the
  constant is not added to. Before a Relu or a normalization it stays, one cheap Add;
- a map without a constant goes into any convolution or product right after or before it; one with
  a constant only where the next convolution does not pad (merge-pointwise-convs, merge-products).
  Before a Relu or a normalization it stays, one 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx

from onnxopt.graph import Array, Constant, Graph, Node, Value, detach, drop_detached, link
from onnxopt.model import Model
from onnxopt.pruning.blocks import Block


@dataclass(frozen=True, eq=False)
class Removed:
    """exit = entry + offset.

    Attributes:
        offset: [channels], what the branch gave in the mean; None for nothing.
    """

    offset: Array | None = None


@dataclass(frozen=True, eq=False)
class Replaced:
    """exit = entry M + offset at every position.

    Attributes:
        matrix: M, [channels, channels].
        offset: [channels].
    """

    matrix: Array
    offset: Array


StandIn: TypeAlias = Removed | Replaced

Gone: TypeAlias = Literal["removed", "shifted", "replaced"]
"""What stands for a residual block that does not stay: nothing, the mean of what it gave, or a
linear map of its entry."""


def without(proto: onnx.ModelProto, standins: Mapping[Block, StandIn]) -> onnx.ModelProto:
    """The model without the branches of these blocks.

    Inputs, outputs and the names of all that is left stay. If the branches give zero, nothing
    changes but that -0.0 stays where it was.

    Args:
        proto: the model that the blocks were found in, or one of the same names; not changed.
        standins: what stands for each; of blocks inside of others only the outer ones count.
    """
    model = Model.from_proto(proto)
    graph = model.graph
    gone = {name for block in standins for name in block.nodes}
    values = {v.name: v for v in (*graph.inputs, *graph.initializers)}
    values |= {v.name: v for node in graph.nodes for v in node.outputs}
    read: dict[Constant, None] = {}
    for block, standin in standins.items():
        if block.exit in gone:
            continue
        add = values[block.exit].producer
        assert add is not None and add.graph is graph
        place = graph.nodes.index(add)
        detach(add)
        made = _made(graph, block, standin, values[block.entry], values[block.exit], add.name)
        graph.nodes[place : place + 1] = made
        link(graph, made)
    for name in sorted(gone):
        node = values[name].producer
        if node is not None:
            read.update((v, None) for v in node.reads() if isinstance(v, Constant))
            detach(node)
    drop_detached(graph)
    dead = {v for v in read if not (v.is_used or v.overridable or v.name in graph.protected)}
    graph.initializers[:] = [v for v in graph.initializers if v not in dead]
    return model.to_proto()


def _made(
    graph: Graph, block: Block, standin: StandIn, entry: Value, made: Value, name: str
) -> list[Node]:
    """The nodes that make the exit now."""
    opset = graph.opsets.get("", 1)
    offset = standin.offset if standin.offset is not None and standin.offset.any() else None
    added = None if offset is None else graph.add_initializer(offset, f"{made.name}_offset")
    if isinstance(standin, Removed):
        if added is None:
            return [Node("Identity", [entry], [made], name=name, opset=opset)]
        added.replace_data(_along(added.data, block))
        return [Node("Add", [entry, added], [made], name=name, opset=opset)]
    assert block.axis is not None
    matrix, extra = standin.matrix, [] if added is None else [added]
    if block.axis == 1:
        kernel = (1,) * (len(block.shape) - 2)
        stored = np.ascontiguousarray(matrix.T.reshape(*matrix.T.shape, *kernel))
        weight = graph.add_initializer(stored, f"{made.name}_map")
        return [Node("Conv", [entry, weight, *extra], [made], name=name, opset=opset)]
    weight = graph.add_initializer(matrix, f"{made.name}_map")
    if not extra:
        return [Node("MatMul", [entry, weight], [made], name=name, opset=opset)]
    if len(block.shape) == 2:
        return [Node("Gemm", [entry, weight, *extra], [made], name=name, opset=opset)]
    product = graph.new_value(f"{made.name}_product")
    return [
        Node("MatMul", [entry, weight], [product], opset=opset),
        Node("Add", [product, *extra], [made], name=name, opset=opset),
    ]


def _along(offset: Array, block: Block) -> Array:
    """In a shape that is added along the channels."""
    if block.axis == 1:
        return offset.reshape(-1, *(1,) * (len(block.shape) - 2))
    return offset
