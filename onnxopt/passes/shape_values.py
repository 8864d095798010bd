"""What is known of small integer tensors: numbers, symbols, or nothing, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from onnxopt.graph import Array, Node, Value

Entry: TypeAlias = int | str | None
MOST_ENTRIES = 64
"""Longer tensors are data, not shapes."""


@dataclass(frozen=True)
class Known:
    """A scalar or 1-D integer tensor: its entries, and whether it is a scalar."""

    entries: tuple[Entry, ...]
    scalar: bool = False


@dataclass
class ShapeValues:
    """Evaluates on demand and remembers; good as long as the graph does not change."""

    _known: dict[Value, Known | None] = field(default_factory=dict)

    def entries(self, value: Value) -> tuple[Entry, ...] | None:
        """The entries of a 1-D integer tensor; None if not even its length is known."""
        known = self.get(value)
        return None if known is None or known.scalar else known.entries

    def array(self, value: Value) -> Array | None:
        """The tensor if all its entries are numbers and its element type is known, else None."""
        known = self.get(value)
        dtype = value.dtype
        if known is None or dtype is None or dtype.kind not in "iu":
            return None
        numbers = [e for e in known.entries if isinstance(e, int)]
        if len(numbers) != len(known.entries):
            return None
        return np.array(numbers[0] if known.scalar else numbers, dtype)

    def get(self, value: Value) -> Known | None:
        stack = [value]
        while stack:
            top = stack[-1]
            if top in self._known:
                stack.pop()
                continue
            waiting = [v for v in _needed(top) if v not in self._known]
            if waiting:
                stack.extend(waiting)
                continue
            self._known[top] = self._evaluate(top)
            stack.pop()
        return self._known[value]

    def _evaluate(self, value: Value) -> Known | None:
        array = value.array
        if array is not None:
            return _from_array(array)
        node = value.producer
        if node is None or not node.is_standard or node.outputs[0] is not value:
            return None
        if node.op == "Shape":
            return _shape(node)
        rule = RULES.get(node.op)
        if rule is None:
            return None
        inputs = [None if v.omitted else self._known.get(v) for v in node.inputs]
        if any(known is None for known in inputs):
            return None
        found = rule(node, [known for known in inputs if known is not None])
        return found if found is not None and len(found.entries) <= MOST_ENTRIES else None


def _needed(value: Value) -> list[Value]:
    node = value.producer
    if value.array is not None or node is None or node.op not in RULES:
        return []
    return [v for v in node.inputs if not v.omitted]


def _from_array(array: Array) -> Known | None:
    if array.dtype.kind not in "iu" or array.ndim > 1 or array.size > MOST_ENTRIES:
        return None
    return Known(tuple(int(x) for x in array.ravel()), scalar=array.ndim == 0)


def _shape(node: Node) -> Known | None:
    shape = node.inputs[0].shape
    if shape is None:
        return None
    start, end = node.attrs.get("start", 0), node.attrs.get("end")
    return Known(tuple(shape[slice(start, end)]))


def _cast(node: Node, inputs: list[Known]) -> Known | None:
    kind = node.outputs[0].dtype
    return inputs[0] if kind is not None and kind.kind == "i" and kind.itemsize >= 4 else None


def _same(node: Node, inputs: list[Known]) -> Known | None:
    return inputs[0]


def _concat(node: Node, inputs: list[Known]) -> Known | None:
    if any(known.scalar for known in inputs):
        return None
    return Known(tuple(entry for known in inputs for entry in known.entries))


def _gather(node: Node, inputs: list[Known]) -> Known | None:
    data, index = inputs
    if data.scalar or any(not isinstance(i, int) for i in index.entries):
        return None
    count = len(data.entries)
    picks = [i for i in index.entries if isinstance(i, int) and -count <= i < count]
    if len(picks) != len(index.entries):
        return None
    return Known(tuple(data.entries[i] for i in picks), scalar=index.scalar)


def _squeeze(node: Node, inputs: list[Known]) -> Known | None:
    known = inputs[0]
    return Known(known.entries, scalar=True) if len(known.entries) == 1 else None


def _unsqueeze(node: Node, inputs: list[Known]) -> Known | None:
    shape = node.outputs[0].shape
    known = inputs[0]
    if not known.scalar or (shape is not None and len(shape) != 1):
        return None
    axes = node.attrs.get("axes")
    if axes is None:
        axes = list(inputs[1].entries) if len(inputs) > 1 else []
    return Known(known.entries) if len(axes) == 1 else None


def _reshape(node: Node, inputs: list[Known]) -> Known | None:
    target = inputs[1].entries
    known = inputs[0]
    if target == ():
        return Known(known.entries, scalar=True) if len(known.entries) == 1 else None
    if len(target) == 1 and target[0] in (-1, len(known.entries)):
        return Known(known.entries)
    return None


def _slice(node: Node, inputs: list[Known]) -> Known | None:
    if len(node.inputs) == 1:
        starts, ends = node.attrs.get("starts"), node.attrs.get("ends")
        axes: list[Entry] = node.attrs.get("axes", [0])
        steps: list[Entry] = [1]
    else:
        parts = [list(known.entries) for known in inputs[1:]]
        if len(parts) < 2 or any(v.omitted for v in node.inputs):
            return None
        starts, ends = parts[0], parts[1]
        axes = parts[2] if len(parts) > 2 else [0]
        steps = parts[3] if len(parts) > 3 else [1]
    bounds = [*(starts or []), *(ends or []), *steps]
    if len(bounds) != 3 or any(not isinstance(b, int) for b in bounds) or axes not in ([0], [-1]):
        return None
    if inputs[0].scalar or bounds[2] == 0:
        return None
    first, last, step = bounds
    return Known(inputs[0].entries[_python_slice(first, last, step, len(inputs[0].entries))])


def _python_slice(start: int, end: int, step: int, count: int) -> slice:
    """ONNX clamps as Python does, but with a negative step an end below -count is the start."""
    if step < 0 and end < -count:
        return slice(start, None, step)
    return slice(start, end, step)


def _arithmetic(compute: Callable[[int, int], int | None]) -> Rule:
    def evaluate(node: Node, inputs: list[Known]) -> Known | None:
        if len(inputs) != 2:
            return None
        a, b = inputs
        length = max(len(a.entries), len(b.entries))
        if not {len(a.entries), len(b.entries)} <= {1, length}:
            return None
        left = a.entries * (length // len(a.entries)) if a.entries else ()
        right = b.entries * (length // len(b.entries)) if b.entries else ()
        made = tuple(_combine(compute, x, y) for x, y in zip(left, right, strict=True))
        return Known(made, scalar=a.scalar and b.scalar)

    return evaluate


def _combine(compute: Callable[[int, int], int | None], x: Entry, y: Entry) -> Entry:
    if not isinstance(x, int) or not isinstance(y, int):
        return None
    result = compute(x, y)
    return result if result is not None and abs(result) < 2**31 else None


def _divide(x: int, y: int) -> int | None:
    """ONNX truncates; for numbers that are not negative that is Python's floor."""
    return x // y if x >= 0 and y > 0 else None


def _modulo(x: int, y: int) -> int | None:
    return x % y if x >= 0 and y > 0 else None


Rule: TypeAlias = Callable[[Node, list[Known]], Known | None]
RULES: dict[str, Rule] = {
    "Identity": _same,
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Slice": _slice,
    "Add": _arithmetic(lambda x, y: x + y),
    "Sub": _arithmetic(lambda x, y: x - y),
    "Mul": _arithmetic(lambda x, y: x * y),
    "Div": _arithmetic(_divide),
    "Mod": _arithmetic(_modulo),
    "Min": _arithmetic(min),
    "Max": _arithmetic(max),
}
