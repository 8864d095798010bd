"""Reshape on another layout, where it keeps the moved axes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxopt.graph import Array, Node, Shape
from onnxopt.passes.layout.absorbing import absorbing
from onnxopt.passes.layout.permutation import Perm
from onnxopt.passes.layout.switch import (
    Rule,
    Switch,
    integers,
    same_rank,
)


@dataclass(frozen=True)
class Group:
    """Neighbouring axes that a Reshape turns into other neighbouring axes."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def groups(before: Shape, after: Shape) -> list[Group] | None:
    """The finest split of a Reshape into groups of axes with as many elements each.

    Axes of unknown size end up in one group together, as all other groups are known to be equal.
    """
    if 0 in before or 0 in after:
        return None
    front, i, j = _matching(list(before), list(after))
    back, m, n = _matching(list(before[i:])[::-1], list(after[j:])[::-1])
    ends = len(before), len(after)
    found = [Group(tuple(a), tuple(b)) for a, b in front]
    middle = Group(tuple(range(i, ends[0] - m)), tuple(range(j, ends[1] - n)))
    if bool(middle.before) != bool(middle.after):
        return None
    if middle.before:
        found.append(middle)
    for a, b in reversed(back):
        turned = (
            [ends[0] - 1 - x for x in reversed(a)],
            [ends[1] - 1 - x for x in reversed(b)],
        )
        found.append(Group(tuple(turned[0]), tuple(turned[1])))
    return found


def _matching(
    before: list[int | str | None], after: list[int | str | None]
) -> tuple[list[tuple[list[int], list[int]]], int, int]:
    """Groups of known sizes from the front, and how many axes of each they take."""
    found: list[tuple[list[int], list[int]]] = []
    done = i = j = start = 0
    left = right = 1
    first, done_after = 0, 0
    while True:
        if left == right and i > first and j > start:
            found.append((list(range(first, i)), list(range(start, j))))
            first, start, left, right = i, j, 1, 1
            done, done_after = i, j
        take_left = i == first or (j > start and left < right)
        if take_left:
            if i == len(before) or not isinstance(size := before[i], int):
                break
            left, i = left * size, i + 1
        else:
            if j == len(after) or not isinstance(size := after[j], int):
                break
            right, j = right * size, j + 1
    return _with_trailing_ones(found, before, after, done, done_after)


def _with_trailing_ones(
    found: list[tuple[list[int], list[int]]],
    before: list[int | str | None],
    after: list[int | str | None],
    i: int,
    j: int,
) -> tuple[list[tuple[list[int], list[int]]], int, int]:
    """Axes of size 1 for which the other side has none left join the last group."""
    if found and j == len(after) and all(size == 1 for size in before[i:]):
        found[-1][0].extend(range(i, len(before)))
        i = len(before)
    if found and i == len(before) and all(size == 1 for size in after[j:]):
        found[-1][1].extend(range(j, len(after)))
        j = len(after)
    return found, i, j


def reshape_input(node: Node, index: int, layout: Perm) -> Switch | None:
    found = _groups(node)
    if index != 0 or found is None or not same_rank(layout, node.inputs[0]):
        return absorbing(node, index, layout)
    order = _order([group.before for group in found], layout)
    if order is None:
        return absorbing(node, index, layout)
    made = tuple(axis for i in order for axis in found[i].after)
    return _reshaped(node, layout, made) or absorbing(node, index, layout)


def reshape_output(node: Node, index: int, layout: Perm) -> Switch | None:
    found = _groups(node)
    if found is None or not same_rank(layout, node.outputs[0]):
        return None
    order = _order([group.after for group in found], layout)
    if order is None:
        return None
    return _reshaped(node, tuple(axis for i in order for axis in found[i].before), layout)


def _groups(node: Node) -> list[Group] | None:
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if node.opset < 5 or before is None or after is None or integers(node, 1) is None:
        return None
    return groups(before, after)


def _order(parts: list[tuple[int, ...]], layout: Perm) -> list[int] | None:
    """The order of the groups in this layout, if it keeps each of them together."""
    starts = {part[0]: i for i, part in enumerate(parts)}
    order: list[int] = []
    place = 0
    while place < len(layout):
        i = starts.get(layout[place])
        if i is None or layout[place : place + len(parts[i])] != parts[i]:
            return None
        order.append(i)
        place += len(parts[i])
    return order


def _reshaped(node: Node, layout: Perm, made: Perm) -> Switch | None:
    before, after = node.inputs[0].shape, node.outputs[0].shape
    assert before is not None and after is not None
    unknown = [axis for axis in made if not isinstance(after[axis], int)]
    if len(unknown) > 1:
        return None
    target = [-1 if axis in unknown else after[axis] for axis in made]
    shape: Array = np.array(target, np.int64)
    attrs = {"allowzero": 0} if node.attrs.get("allowzero") else {}
    return Switch((layout, None), (made,), attrs, {1: shape})


FORWARD: dict[str, Rule] = {"Reshape": reshape_input}
BACKWARD: dict[str, Rule] = {"Reshape": reshape_output}
