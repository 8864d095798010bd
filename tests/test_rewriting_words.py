"""What rules take for granted about shapes, element types and constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rewriting import made_by, model

from onnxopt.graph import Shape
from onnxopt.rewriting.words import (
    broadcasts_to,
    copy_needed,
    keeps_shape,
    loses_nothing,
    narrowed,
    rank_of,
    same_after_reshape,
    shape_of,
    target_of,
)

NUMBERS = [np.dtype(t) for t in "bBhHiIqQefd"]


def test_an_initializer_that_callers_may_override_has_no_known_shape() -> None:
    text = "g (float[N,2] x, float[2] k = {1, 2}) => (float[N,2] y) { y = Add(x, k) }"
    graph = model(text).graph
    (constant,) = graph.initializers
    assert constant.shape == (2,)
    assert shape_of(constant) is None
    assert rank_of(constant) is None
    assert not broadcasts_to(constant, graph.inputs[0])


@pytest.mark.parametrize(
    ("other", "kept"),
    [((), True), ((1,), True), ((2,), True), ((3,), False), ((1, 2), True), ((1, 1, 2), False)],
)
def test_broadcasting_keeps_the_shape_only_of_what_is_at_least_as_large(
    other: Shape, kept: bool
) -> None:
    graph = model("g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }").graph
    assert keeps_shape(graph.inputs[0], other) == kept


def test_two_dimensions_that_are_not_known_may_swap_in_a_reshape() -> None:
    text = "g (float[N,M] x, int64[2] s) => (float[A,B] y) { y = Reshape(x, s) }"
    graph = model(text).graph
    assert not same_after_reshape(graph.inputs[0], made_by(graph, "y").outputs[0])


def test_a_dimension_beside_one_that_may_be_empty_is_not_known_to_stay() -> None:
    text = """g (float[N,M] x, int64[1] s) => (float[N,A] y) {
        h = Shape<end = 1>(x)
        t = Concat<axis = 0>(h, s)
        y = Reshape(x, t)
    }"""
    graph = model(text).graph
    x, y = graph.inputs[0], made_by(graph, "y").outputs[0]
    assert not same_after_reshape(x, y)


@pytest.mark.parametrize(
    ("before", "after", "target"),
    [
        (None, (2, 3), [2, 3]),
        (None, (), []),
        (None, ("n", 3), [-1, 3]),
        (("n", "m", 3), ("n", "m", 1, 3), [0, 0, 1, 3]),
        (("n", "m"), ("m", "n"), None),
        (None, ("n", "m"), None),
        (("n", 3), ("n", 0), None),
        (("n", None), (None, None), None),
    ],
)
def test_a_reshape_target_says_the_same_in_every_run(
    before: Shape | None, after: Shape, target: list[int] | None
) -> None:
    made = target_of(before, after)
    assert (None if made is None else made.tolist()) == target


@pytest.mark.parametrize("source", NUMBERS)
@pytest.mark.parametrize("target", NUMBERS)
def test_a_cast_that_loses_nothing_can_be_undone(
    source: np.dtype[Any], target: np.dtype[Any]
) -> None:
    if source.kind == "f":
        info = np.finfo(source)
        ends = np.array([info.min, info.max, info.tiny, 1 + info.eps, 0.1], source)
    else:
        bounds = np.iinfo(source)
        ends = np.array([bounds.min, bounds.max, bounds.max - 1, 1, 0], source)
    if loses_nothing(source, target):
        there = ends.astype(target)
        assert [item.item() for item in there] == [item.item() for item in ends]


@pytest.mark.parametrize("kind", [object, np.complex64])
def test_of_other_types_nothing_is_claimed(kind: type) -> None:
    assert not loses_nothing(np.dtype(kind), np.dtype(np.uint64))
    assert not loses_nothing(np.dtype(np.float32), np.dtype(kind))


def test_numbers_that_overflow_or_vanish_in_a_narrow_type_are_refused() -> None:
    half = np.dtype(np.float16)
    assert narrowed(np.array([1e4]), half) is None
    assert narrowed(np.array([1e-7]), half) is None
    assert narrowed(np.array([[1.0, 1e-7]]), half, axis=0) is not None
    assert narrowed(np.array([[1.0, 1e-7]]), half, axis=1) is None
    assert narrowed(np.array([1e-7]), np.dtype(np.float32)) is not None
    assert narrowed(np.array([np.inf]), np.dtype(np.float64)) is None


def test_a_large_constant_that_others_read_is_not_copied() -> None:
    for count, refused in ((4, False), (300, True)):
        kind = f"float[{count}]"
        numbers = ", ".join("1" for _ in range(count))
        text = f"g ({kind} x) => ({kind} y, {kind} z) <{kind} k = {{{numbers}}}>"
        graph = model(text + "{ y = Add(x, k) z = Mul(x, k) }").graph
        assert (copy_needed(made_by(graph, "y"), 1) is not None) == refused
