"""Operators that multiply and add: they contract one axis and make another."""

from __future__ import annotations

import re

import numpy as np

from onnxopt.graph import Node, Value
from onnxopt.pruning.atoms import Axis
from onnxopt.pruning.cut import Cut
from onnxopt.pruning.follow.elementwise import broadcast_axes, unknown
from onnxopt.pruning.selecting import select
from onnxopt.pruning.tracker import Tracker


def convolution(node: Node, t: Tracker) -> None:
    """X [N, I, *spatial], W [O, I / group, *kernel], B [O]; quantized forms have them elsewhere."""
    x, w, bias, scales = _convolution_inputs(node)
    data, weight = t.axes(x), t.axes(w)
    group = int(node.attr("group") or 1)
    if group == 1:
        t.contract(node, 1, w, 1)
        made = weight[0]
    else:
        made = _grouped(node, t, data[1], weight, group, (t.shape(w) or (0, 0))[1])
    for value in (bias, *scales):
        if value is not None and len(t.axes(value)) == 1 and (t.shape(value) or (1,))[0] > 1:
            t.unite(made, t.axes(value)[0])
    t.role(node, w, 1, "in")
    t.role(node, w, 0, "out")
    _pin_spatial(node, t, data)
    spatial = [f"{node.label()} moves over this axis"] * (len(data) - 2)
    t.set(node.outputs[0], [data[0], made, *spatial])


def _convolution_inputs(node: Node) -> tuple[Value, Value, Value | None, list[Value | None]]:
    if node.op == "QLinearConv":
        scales = [node.input(4), node.input(5)]
        return node.inputs[0], node.inputs[3], node.input(8), scales
    if node.op == "ConvInteger":
        return node.inputs[0], node.inputs[1], None, [node.input(3)]
    return node.inputs[0], node.inputs[1], node.input(2), []


def _grouped(
    node: Node, t: Tracker, channels: Axis, weight: list[Axis], group: int, per_group: int
) -> Axis:
    """Join input channels and filters as the groups demand; the label of the output channels."""
    if per_group == 1 or group >= per_group:
        # Whole groups go: each is its input channels and its filters.
        t.join_blocks(channels, group)
        t.join_blocks(weight[0], group)
        firsts = [
            a if isinstance(a, str) else a.reshape(group, -1)[:, 0] for a in (channels, weight[0])
        ]
        t.unite(firsts[0], firsts[1])
        t.pin(weight[1], f"{node.label()} keeps its groups whole")
        return weight[0]
    # Each group loses the same ones.
    t.unite(t.join_across(channels, group), weight[1])
    t.join_across(weight[0], group)
    return weight[0]


def _pin_spatial(node: Node, t: Tracker, axes: list[Axis]) -> None:
    for axis in axes[2:]:
        t.pin(axis, f"{node.label()} moves over this axis")


def adjust_convolution(node: Node, cut: Cut) -> None:
    """`group` follows the channels and the width of a group."""
    group = int(node.attr("group") or 1)
    if group == 1:
        select(node, cut)
        return
    x, w, _, _ = _convolution_inputs(node)
    channels = cut.size(x, 1)
    if channels is None:
        return
    width, kept = (cut.tracker.shape(w) or (0, 1))[1], cut.size(w, 1)
    node.attrs["group"] = channels // (width if kept is None else kept)


def transposed_convolution(node: Node, t: Tracker) -> None:
    """X [N, I, *spatial], W [I, O / group, *kernel], B [O]."""
    x, w, bias = node.inputs[0], node.inputs[1], node.input(2)
    data, weight = t.axes(x), t.axes(w)
    group = int(node.attr("group") or 1)
    if group == 1:
        t.unite(data[1], weight[0])
        made = weight[1]
    else:
        for axis in (data[1], weight[0]):
            t.join_blocks(axis, group)
        joined = t.unite(data[1], weight[0])
        t.pin(weight[1], f"{node.label()} keeps its groups whole")
        made = joined
        if not isinstance(joined, str):
            per_group = (t.shape(w) or (0, 1))[1]
            made = np.repeat(joined.reshape(group, -1)[:, 0], per_group)
    if bias is not None:
        t.unite(made, t.axes(bias)[0])
    t.role(node, w, 0, "in")
    t.role(node, w, 1, "out")
    _pin_spatial(node, t, data)
    spatial = [f"{node.label()} moves over this axis"] * (len(data) - 2)
    t.set(node.outputs[0], [data[0], made, *spatial])


def adjust_transposed(node: Node, cut: Cut) -> None:
    group = int(node.attr("group") or 1)
    channels = cut.size(node.inputs[0], 1)
    if group > 1 and channels is not None:
        old = len(cut.tracker.axes(node.inputs[1])[0])
        node.attrs["group"] = group * channels // old


def gemm(node: Node, t: Tracker) -> None:
    """A' [M, K] times B' [K, N] plus C that broadcasts to [M, N]."""
    a, b = t.axes(node.inputs[0]), t.axes(node.inputs[1])
    flip_a, flip_b = bool(node.attr("transA")), bool(node.attr("transB"))
    rows = a[1] if flip_a else a[0]
    columns = b[0] if flip_b else b[1]
    t.contract(node, 0 if flip_a else 1, node.inputs[1], 1 if flip_b else 0)
    t.role(node, node.inputs[1], 1 if flip_b else 0, "in")
    t.role(node, node.inputs[1], 0 if flip_b else 1, "out")
    t.role(node, node.inputs[0], 0 if flip_a else 1, "in")
    output = node.outputs[0]
    t.set(output, [rows, columns])
    if (c := node.input(2)) is not None:
        t.set(output, _with_bias(c, output, t))


def _with_bias(c: Value, output: Value, t: Tracker) -> list[Axis]:
    return broadcast_axes([output, c], output, t)


def matmul(node: Node, t: Tracker) -> None:
    """Numpy's matmul: [..., M, K] times [..., K, N]; quantized forms have the factors elsewhere."""
    left, right = _factors(node)
    a, b = list(t.axes(left)), list(t.axes(right))
    output = node.outputs[0]
    shape = t.shape(output)
    if shape is None or not a or not b:
        t.set(output, unknown([left, right], output, t))
        return
    t.contract(node, len(a) - 1, right, max(len(b) - 2, 0))
    t.role(node, right, max(len(b) - 2, 0), "in")
    t.role(node, left, len(a) - 1, "in")
    result = _batch(node, t, left, right, shape)
    if len(a) > 1:
        result.append(a[-2])
        t.role(node, left, len(a) - 2, "out")
    if len(b) > 1:
        result.append(b[-1])
        t.role(node, right, len(b) - 1, "out")
    t.set(output, result)
    _per_column(node, t, result)


def _factors(node: Node) -> tuple[Value, Value]:
    if node.op == "QLinearMatMul":
        return node.inputs[0], node.inputs[3]
    return node.inputs[0], node.inputs[1]


def _batch(node: Node, t: Tracker, left: Value, right: Value, shape: tuple[int, ...]) -> list[Axis]:
    """Labels of the axes before the last two of both."""
    pair = [(v, (t.shape(v) or ())[:-2]) for v in (left, right)]
    count = max(len(own) for _, own in pair)
    result: list[Axis] = []
    for axis in range(count):
        label: Axis | None = None
        for value, own in pair:
            place = axis - (count - len(own))
            if place >= 0 and own[place] == shape[axis]:
                found = t.axes(value)[place]
                label = found if label is None else t.unite(label, found)
        result.append("no input has this axis" if label is None else label)
    return result


def _per_column(node: Node, t: Tracker, result: list[Axis]) -> None:
    """Scales and zero points of quantized weights, one for each column; of others only one."""
    columns = {"QLinearMatMul": (4, 5), "MatMulInteger": (3,)}.get(node.op, ())
    others = {"QLinearMatMul": (1, 2, 6, 7), "MatMulInteger": (2,)}.get(node.op, ())
    for place in (*columns, *others):
        value = node.input(place)
        if value is None or (t.shape(value) or (1,))[-1] == 1:
            continue
        if place in columns:
            t.unite(result[-1], t.axes(value)[-1])
        else:
            t.pin_value(value, why := f"{node.label()} quantizes row by row")
            t.pin(result[-2], why)


def einsum(node: Node, t: Tracker) -> None:
    """Axes with the same letter are one."""
    equation = einsum_equation(node)
    operands = [value for value in node.inputs if not value.omitted]
    if not re.fullmatch(r"[A-Za-z]+(,[A-Za-z]+)*->[A-Za-z]*", equation):
        why = f"{node.label()} has an equation that is not followed"
        for value in operands:
            t.pin_value(value, why)
        t.set(node.outputs[0], [why] * (t.rank(node.outputs[0]) or 0))
        return
    terms, result = equation.split("->")
    letters: dict[str, Axis] = {}
    for term, value in zip(terms.split(","), operands, strict=True):
        for letter, axis in zip(term, t.axes(value), strict=True):
            letters[letter] = t.unite(letters[letter], axis) if letter in letters else axis
    for term, value in zip(terms.split(","), operands, strict=True):
        for place, letter in enumerate(term):
            t.role(node, value, place, "out" if letter in result else "in")
    t.set(node.outputs[0], [letters[letter] for letter in result])


def einsum_equation(node: Node) -> str:
    """With the letters of the result, which may be left out."""
    equation = str(node.attr("equation")).replace(" ", "")
    if "->" in equation or "." in equation:
        return equation
    once = sorted(c for c in set(equation) if c != "," and equation.count(c) == 1)
    return f"{equation}->{''.join(once)}"


FOLLOW = {
    **dict.fromkeys(("Conv", "QLinearConv", "ConvInteger", "FusedConv"), convolution),
    "ConvTranspose": transposed_convolution,
    **dict.fromkeys(("Gemm", "FusedGemm"), gemm),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), matmul),
    "Einsum": einsum,
}

ADJUST = {
    **dict.fromkeys(("Conv", "QLinearConv", "ConvInteger", "FusedConv"), adjust_convolution),
    "ConvTranspose": adjust_transposed,
    **dict.fromkeys(("Gemm", "MatMul"), select),
}
