"""Legal values for inputs that are no data but shapes, axes, counts, scales or lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onnxopt.signature import Array, Port
from onnxopt.verification.element_types import attribute
from onnxopt.verification.hints import GraphFacts, Hint, Use
from onnxopt.verification.recipes import RECIPES, Surroundings, Values

COMMON_NUMBERS = (1, 0, 2, 3, 16000, 8000, -1, 4, 5, 8, 10, 16, 32, 64, 100, 512)
MOST_CANDIDATES = 16


def parameter_candidates(
    port: Port, hint: Hint, facts: GraphFacts, sizes: Mapping[str, int]
) -> list[Array]:
    """Values that may be legal for one input, the likeliest first.

    Args:
        sizes: chosen size for each symbol.
    """
    fixed = _resolve(port.dims, sizes, default=None)
    count = None if fixed is None else math.prod(fixed)
    found: dict[Any, Array] = {}
    for values in _proposals(hint, facts, sizes, count):
        array = _as_input(values, port, fixed)
        if array is not None:
            found.setdefault((array.shape, array.tobytes()), array)
        if len(found) >= MOST_CANDIDATES:
            break
    return list(found.values())


def _proposals(
    hint: Hint, facts: GraphFacts, sizes: Mapping[str, int], count: int | None
) -> Iterator[Values]:
    for use in hint.uses:
        yield from _for_use(use, facts, sizes, count)
    for value in hint.constants:
        yield [value]
    for value in hint.constants:
        yield from ([value // 2], [value + 1], [value - 1])
    numbers: list[float] = list(COMMON_NUMBERS)
    if hint.sizes_things:
        numbers = [n for n in numbers if n <= 16]
    if hint.uses:
        # Zero and less only where a recipe proposes them: some kernels divide by a step of zero
        # without looking, and the process dies of it.
        numbers = [n for n in numbers if n > 0]
    if hint.below is not None:
        numbers = [n for n in numbers if 0 <= n < hint.below]
    yield from ([n] for n in numbers)
    length = 1 if count is None else count
    if length != 1:
        yield from ([1] * length, [2] * length)
        if not hint.uses:
            yield from ([0] * length, list(range(length)))


def _as_input(values: Values, port: Port, fixed: tuple[int, ...] | None) -> Array | None:
    try:
        array: Array = np.asarray(list(values)).astype(port.dtype)
    except (ValueError, OverflowError):
        return None
    if port.dtype.kind == "u" and any(v < 0 for v in values):
        return None
    if fixed is not None:
        return array.reshape(fixed) if array.size == math.prod(fixed) else None
    return array if port.dims is None or len(port.dims) == 1 else None


def _resolve(
    dims: Sequence[Any] | None, sizes: Mapping[str, int], default: int | None
) -> tuple[int, ...] | None:
    if dims is None:
        return None
    found = []
    for dim in dims:
        size = dim if isinstance(dim, int) else sizes.get(dim, default)
        if size is None:
            return None
        found.append(size)
    return tuple(found)


def _for_use(
    use: Use, facts: GraphFacts, sizes: Mapping[str, int], count: int | None
) -> Iterator[Values]:
    node = use.node
    data = _resolve(facts.shapes.get(node.input[0]), sizes, default=2)
    outs = tuple(_resolve(facts.shapes.get(name), sizes, default=2) for name in node.output)
    axis = attribute(node, "axis") or attribute(node, "time_axis")
    around = Surroundings(data, outs, count, int(axis.i) if axis is not None else _axis(node))
    make = RECIPES.get((node.op_type, use.index))
    if make is not None:
        yield from make(around)


def _axis(node: Any) -> int:
    return -1 if node.op_type in ("TopK", "OneHot") else 0
