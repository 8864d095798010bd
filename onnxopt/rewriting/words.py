"""Words that several rules share: what is provable about shapes, types and constants."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from onnxopt.graph import Array, Constant, Node, Shape, Value
from onnxopt.rewriting.rule import Op, Skip, attr, op

FLOATS = frozenset(np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16))
"""Element types whose arithmetic a rule may do at another place, up to rounding."""

SMALL_BYTES = 1024
"""A second copy of a weight up to this size is not worth keeping an operator for."""

HEADROOM = 16
"""New weights are so many times smaller than what would overflow."""

LARGEST_INDEX = 2**31 - 1
"""Exporters write this, or something larger, for 'to the end'; no dimension reaches it."""


def is_float(dtype: np.dtype[Any] | None) -> bool:
    return dtype in FLOATS


def shape_of(value: Value) -> Shape | None:
    """Its shape in every run: a caller may override an initializer by one of another shape."""
    if isinstance(value, Constant) and value.overridable:
        return None
    shape: Shape | None = value.shape
    return shape


def rank_of(value: Value) -> int | None:
    shape = shape_of(value)
    return None if shape is None else len(shape)


def same_shape(a: Value, b: Value) -> bool:
    """Both have the same shape in every run."""
    first, second = shape_of(a), shape_of(b)
    return first is not None and None not in first and first == second


def same_after_reshape(x: Value, y: Value, target: Array | None = None) -> bool:
    """`y`, the elements of `x` in order, must have the shape of `x` too.

    One dimension may be unknown, as the number of elements is the same: unless another one is zero,
    where only a -1 in the target excludes that they differ.
    """
    before, after = shape_of(x), shape_of(y)
    if before is None or after is None or len(before) != len(after):
        return False
    open_axes = [i for i, d in enumerate(before) if d is None or d != after[i]]
    if not open_axes:
        return True
    if len(open_axes) > 1 or all(isinstance(s[open_axes[0]], int) for s in (before, after)):
        return False
    others = [d for i, d in enumerate(before) if i != open_axes[0]]
    if all(isinstance(d, int) and d > 0 for d in others):
        return True
    return target is not None and target.ndim == 1 and int(target[open_axes[0]]) == -1


def reshaped(x: Value, y: Node) -> Value | Op | Skip:
    """What the Reshape, Flatten, Squeeze or Unsqueeze `y` makes, made of the elements of `x`.

    Its input has the elements of `x` in the same order, but may have another shape.
    """
    output = y.outputs[0]
    target = y.input(1)
    array = None if target is None or y.op != "Reshape" else target.array
    if same_after_reshape(x, output, array):
        return x
    if y.op == "Reshape" and target is not None:
        if attr(y, "allowzero") or (array is not None and not (array == 0).any()):
            return op("Reshape", x, target, **y.attrs)
    made = target_of(shape_of(x), shape_of(output))
    if made is None:
        return Skip(f"no constant target gives the shape of '{output.name}'")
    return op("Reshape", x, made)


def target_of(before: Shape | None, after: Shape | None) -> Array | None:
    """A Reshape target that takes elements from one shape to the other in every run, if any."""
    if after is None or any(d == 0 for d in after):
        return None
    unknown = [i for i, d in enumerate(after) if not isinstance(d, int)]
    if len(unknown) <= 1:
        return np.array([d if isinstance(d, int) else -1 for d in after], np.int64)
    if before is None:
        return None
    for i in unknown:
        if i >= len(before) or after[i] is None or before[i] != after[i]:
            return None
    return np.array([d if isinstance(d, int) else 0 for d in after], np.int64)


def keeps_shape(x: Value, other: Shape) -> bool:
    """Broadcasting `x` with something of shape `other` gives the shape of `x` in every run."""
    if not other:
        return True
    shape = shape_of(x)
    if shape is None or len(other) > len(shape):
        return False
    aligned = shape[len(shape) - len(other) :]
    return all(d == 1 or (d is not None and d == e) for d, e in zip(other, aligned, strict=True))


def broadcasts_to(value: Value, x: Value) -> bool:
    """Broadcasting `x` with `value` gives the shape of `x` in every run."""
    shape = shape_of(value)
    return shape is not None and keeps_shape(x, shape)


def ints(node: Node, name: str, given: Array | None) -> list[int] | None:
    """Integers that an operator takes as an attribute or, in later versions, as an input.

    None if it takes the default.
    """
    if name in node.attrs:
        return [int(i) for i in node.attrs[name]]
    return None if given is None else [int(i) for i in given.ravel()]


def all_equal(array: Array, number: float) -> bool:
    return array.dtype.kind != "O" and bool((array == number).all())


def narrowed(exact: Array, dtype: np.dtype[Any], axis: int | None = None) -> Array | None:
    """Results of arithmetic in float64 in the type of a weight; None if it cannot hold them.

    Sums of them may not overflow. Underflow, which only float16 is near to, may not cost more than
    a rounding of the number itself, or of the largest one of its channel (along `axis`).
    """
    with np.errstate(over="ignore"):
        made: Array = np.asarray(exact).astype(dtype)
        headroom: Array = np.asarray(exact * HEADROOM).astype(dtype)
    if not np.isfinite(headroom.astype(np.float64)).all():
        return None
    if dtype == np.float16 and made.size:
        others = tuple(i for i in range(made.ndim) if axis is not None and i != axis)
        error = np.abs(made.astype(np.float64) - exact)
        largest = np.abs(exact).max(axis=others, keepdims=True)
        if (error > float(np.finfo(np.float16).eps) * largest).any():
            return None
    return made


def copy_needed(node: Node, index: int) -> Skip | None:
    """Why a changed constant in this place would be a second large one beside the first."""
    value = node.inputs[index]
    array = value.array
    others = [consumer for consumer in value.consumers if consumer is not node]
    if array is None or array.nbytes <= SMALL_BYTES:
        return None
    if others or value.is_graph_output:
        return Skip(f"the constant '{value.name}' is also needed elsewhere")
    return None


def permutation(node: Node) -> list[int] | None:
    """How a Transpose orders the axes; None if that depends on an unknown rank."""
    given = attr(node, "perm")
    if given is not None:
        return [int(axis) for axis in given]
    rank = rank_of(node.inputs[0])
    return None if rank is None else list(reversed(range(rank)))


INTEGER_BITS = {np.dtype(t): np.iinfo(t).bits for t in (np.int8, np.int16, np.int32, np.int64)}
UNSIGNED_BITS = {np.dtype(t): np.iinfo(t).bits for t in (np.uint8, np.uint16, np.uint32, np.uint64)}
EXACT_BITS = {
    np.dtype(np.float16): 11,
    np.dtype(np.float32): 24,
    np.dtype(np.float64): 53,
    np.dtype(ml_dtypes.bfloat16): 8,
}
"""Integers of at most so many bits fit exactly."""

WIDER_FLOATS = {
    np.dtype(np.float16): (np.dtype(np.float32), np.dtype(np.float64)),
    np.dtype(ml_dtypes.bfloat16): (np.dtype(np.float32), np.dtype(np.float64)),
    np.dtype(np.float32): (np.dtype(np.float64),),
}


def loses_nothing(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Every value of one element type is one of the other. False where that is not simple."""
    if source == target:
        return True
    numbers = {**INTEGER_BITS, **UNSIGNED_BITS, **EXACT_BITS}
    if source == np.bool_:
        return target in numbers
    if source not in numbers:
        return False
    if source in EXACT_BITS:
        return target in WIDER_FLOATS.get(source, ())
    signed = source in INTEGER_BITS
    bits = INTEGER_BITS[source] - 1 if signed else UNSIGNED_BITS[source]
    if target in INTEGER_BITS:
        return bits <= INTEGER_BITS[target] - 1
    if target in UNSIGNED_BITS:
        return not signed and bits <= UNSIGNED_BITS[target]
    return bits <= EXACT_BITS.get(target, 0)
