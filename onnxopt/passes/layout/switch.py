"""What it takes for one node to work on another layout: Switch, and what all operators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from onnxopt.changes import Numerics
from onnxopt.graph import Array, Node, Value
from onnxopt.passes.layout.permutation import Perm, is_identity

LARGEST_COPIED_BYTES = 4096
"""A constant with other readers is copied for a new layout only up to this size."""


@dataclass(frozen=True)
class Edit:
    """Attributes and constant inputs that a node gets."""

    node: Node
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[int, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Switch:
    """The layouts that a node reads and makes once it is switched, and how it is edited for that.

    Attributes:
        inputs: layout wanted of each input; None: as it is.
        outputs: layout made of each output; None: as it is.
        attrs, arrays: attributes and constant inputs of the node.
        numerics: what the switch does to the numbers.
        others: edits of other nodes, which read nothing in another layout.
    """

    inputs: tuple[Perm | None, ...]
    outputs: tuple[Perm | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[int, Array] = field(default_factory=dict)
    numerics: Numerics = "exact"
    others: tuple[Edit, ...] = ()

    @property
    def changes_layout(self) -> bool:
        layouts = (*self.inputs, *self.outputs)
        return any(layout is not None and not is_identity(layout) for layout in layouts)


Rule: TypeAlias = Callable[[Node, int, Perm], Switch | None]
"""(node, index, layout) -> what it takes; the index is that of an input or of an output."""


def only_first(
    node: Node,
    layout: Perm,
    made: Perm | None = None,
    *,
    attrs: Mapping[str, Any] | None = None,
    arrays: Mapping[int, Array] | None = None,
    numerics: Numerics = "exact",
) -> Switch:
    """A switch of a node whose data are its first input and all its outputs."""
    result = layout if made is None else made
    outputs = tuple(None if value.omitted else result for value in node.outputs)
    inputs = (layout, *[None] * (len(node.inputs) - 1))
    return Switch(inputs, outputs, attrs or {}, arrays or {}, numerics)


def rank_of(value: Value) -> int | None:
    """Its rank, from its shape or else from a Transpose beside it."""
    if value.rank is not None:
        return value.rank
    for node in (value.producer, *value.consumers):
        if node is not None and node.op == "Transpose" and node.is_standard:
            perm = node.attrs.get("perm")
            if perm is not None:
                return len(perm)
    return None


def same_rank(layout: Perm, value: Value) -> bool:
    return rank_of(value) == len(layout)


def can_copy(value: Value) -> bool:
    """Whether this constant may be stored in another layout without the model growing much."""
    array = value.array
    if array is None or array.dtype == object:
        return False
    return array.nbytes <= LARGEST_COPIED_BYTES or len(value.consumers) == 1


def integers(node: Node, index: int) -> list[int] | None:
    """A constant integer input, as a list; None if it is omitted or not constant."""
    value = node.input(index)
    array = None if value is None else value.array
    if array is None or array.dtype.kind not in "iu":
        return None
    return [int(i) for i in array.ravel()]


def axis_of(node: Node, rank: int, name: str = "axis") -> int | None:
    """An axis attribute, counted from the front; None if it is unset or out of range."""
    return from_front(node.attr(name), rank)


def from_front(axis: int | None, rank: int) -> int | None:
    if axis is None or not -rank <= axis < rank:
        return None
    return axis % rank


def all_from_front(axes: list[int], rank: int) -> list[int] | None:
    """Axes counted from the front; None if one is out of range or given twice."""
    found = [from_front(axis, rank) for axis in axes]
    known = [axis for axis in found if axis is not None]
    return known if len(known) == len(axes) == len(set(known)) else None


def like(array: Array | None, values: list[int]) -> Array:
    """Integers of the type (and, for a scalar, the shape) of the constant that they replace."""
    dtype = np.int64 if array is None else array.dtype
    made: Array = np.array(values, dtype)
    return made.reshape(array.shape) if array is not None and array.size == made.size else made
