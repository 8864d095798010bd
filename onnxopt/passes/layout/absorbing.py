"""Where a layout ends: weights whose rows are reordered, and entries picked from a Shape."""

from __future__ import annotations

import numpy as np

from onnxopt.graph import Array, Node, Shape, Value
from onnxopt.passes.layout.permutation import Perm
from onnxopt.passes.layout.switch import Edit, Rule, Switch, can_copy, integers


def absorbing(node: Node, index: int, layout: Perm) -> Switch | None:
    """Flatten, or a Reshape to a matrix, before products with constant weights.

    The columns of the matrix come in another order, so the rows of the weights must as well.
    """
    value, output = node.inputs[0], node.outputs[0]
    shape = value.shape
    if index != 0 or shape is None or layout[0] != 0 or output.is_graph_output:
        return None
    columns = _columns(node, shape)
    if columns is None:
        return None
    order = np.arange(columns).reshape([d for d in shape[1:] if isinstance(d, int)])
    order = order.transpose([axis - 1 for axis in layout[1:]]).ravel()
    edits = [_with_rows(consumer, output, order) for consumer in output.consumers]
    known = [edit for edit in edits if edit is not None]
    if len(known) != len(edits) or not edits:
        return None
    inputs = (layout, *[None] * (len(node.inputs) - 1))
    return Switch(inputs, (None,), numerics="rounding", others=tuple(known))


def _columns(node: Node, shape: Shape) -> int | None:
    """The width of the matrix if its rows are the entries of the first axis."""
    rest = shape[1:]
    if not rest or not all(isinstance(size, int) and size > 0 for size in rest):
        return None
    columns = int(np.prod([size for size in rest if isinstance(size, int)]))
    if node.op == "Flatten":
        return columns if node.attr("axis") == 1 else None
    target = integers(node, 1)
    if target is None or len(target) != 2 or node.attr("allowzero"):
        return None
    if target[1] == columns or (target[1] == -1 and target[0] in (0, shape[0])):
        return columns
    return None


def _with_rows(node: Node, matrix: Value, order: Array) -> Edit | None:
    """A product of the matrix with constant weights that takes its columns in this order."""
    if node.op not in ("MatMul", "Gemm") or not node.is_standard or len(node.inputs) < 2:
        return None
    weights = node.inputs[1]
    array = weights.array
    if node.inputs[0] is not matrix or weights is matrix or array is None or array.ndim != 2:
        return None
    if node.op == "Gemm" and (node.attr("transA") or node.input(2) is matrix):
        return None
    axis = 1 if node.op == "Gemm" and node.attr("transB") else 0
    if not can_copy(weights) or array.shape[axis] != len(order):
        return None
    return Edit(node, arrays={1: np.ascontiguousarray(np.take(array, order, axis))})


def shape_of(node: Node, index: int, layout: Perm) -> Switch | None:
    """Shape whose every reader picks entries by constant indices: they pick others."""
    output = node.outputs[0]
    if output.is_graph_output or node.attr("start") or node.attr("end") is not None:
        return None
    edits = [_picking_others(consumer, output, layout) for consumer in output.consumers]
    known = [edit for edit in edits if edit is not None]
    if not known or len(known) != len(edits):
        return None
    return Switch((layout,), (None,), others=tuple(known))


def _picking_others(node: Node, sizes: Value, layout: Perm) -> Edit | None:
    """A Gather or Slice of the sizes that picks those of the same axes in another layout."""
    if not node.is_standard or node.inputs[0] is not sizes:
        return None
    if node.op == "Gather" and node.attr("axis") in (0, -1):
        return _gathering_others(node, layout)
    return _slicing_others(node, layout) if node.op == "Slice" and node.opset >= 10 else None


def _gathering_others(node: Node, layout: Perm) -> Edit | None:
    picked, old = integers(node, 1), node.inputs[1].array
    rank = len(layout)
    if picked is None or old is None or any(not -rank <= i < rank for i in picked):
        return None
    new = [layout.index(i % rank) for i in picked]
    return Edit(node, arrays={1: np.array(new, old.dtype).reshape(old.shape)})


def _slicing_others(node: Node, layout: Perm) -> Edit | None:
    start, end, axes, steps = (integers(node, i) for i in range(1, 5))
    old = node.inputs[1].array
    if start is None or end is None or old is None or len(start) != 1 or len(end) != 1:
        return None
    if (axes is None and node.input(3) is not None) or axes not in (None, [0], [-1]):
        return None
    if (steps is None and node.input(4) is not None) or steps not in (None, [1]):
        return None
    picked = range(len(layout))[start[0] : end[0]]
    new = [layout.index(i) for i in picked]
    if not new or new != list(range(new[0], new[0] + len(new))):
        return None
    bounds = np.array([new[0]], old.dtype), np.array([new[-1] + 1], old.dtype)
    return Edit(node, arrays={1: bounds[0], 2: bounds[1]})


FORWARD: dict[str, Rule] = {"Flatten": absorbing, "Shape": shape_of}
