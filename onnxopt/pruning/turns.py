"""Two layers with a Relu between them, refitted in turns: what the first should make of the rest.

A refit of the first layer alone gives back what its kept channels were. But few channels serve the
second layer better if they may change: the error of the second layer is carried back through its
weights to the values between the two (steepest descent with the exact step), and the first layer
is fitted to these targets by ridge regression, then the second to what it gets now. No gradient of
the model is taken: each step is a least squares problem of one layer (target propagation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.layer import Layer
from onnxopt.pruning.linear_map import LinearMap
from onnxopt.pruning.moments import Moments, Products
from onnxopt.pruning.refit import (
    MIDDLE,
    WIDEST_SOLVED,
    Looked,
    Refit,
    Task,
    by_all_samples,
    refit,
    result,
    solved,
)
from onnxopt.pruning.workers import in_order

MOST_TURNS = 10
"""More than 4 leave 2 % less error in the logits of a ResNet-56 at 0.4 of its FLOPs."""

STEPS = 3
"""Of steepest descent, for one refit of the first layer."""

WORTHWHILE = 0.998
"""Share of the error that a turn may leave at most to be kept."""

LAST_TURNS = 4
"""Turns at the end in which the samples that judged take part too, and nothing judges any more.
They leave 9 % less error in the logits of a ResNet-56 at 0.4 of its FLOPs; eight leave as much."""

OVERFITTED = 1.01
"""Share of the error that a turn which was not worth it leaves where more turns, with more samples,
would fit these and nothing else. Turns in the last stage of that ResNet-56, of 512 samples, leave
1.000 to 1.004, and the last ones help most there; of 24 samples it is 1.02 to 1.05: they hurt."""


@dataclass(frozen=True, eq=False)
class Turns:
    """What refits in turns have led to.

    Attributes:
        first, second: the weights of both layers [1, k + 1, m].
        done: what was done to the second layer.
    """

    first: Array
    second: Array
    done: Refit


def in_turns(
    task: Task,
    first: Layer,
    inputs: Sequence[Array],
    one: Array,
    two: Array,
    done: Refit,
    most: int = MOST_TURNS,
    last: int = LAST_TURNS,
) -> Turns | None:
    """Refit a layer and the one before it in turns, as long as the error falls.

    Then, if any was worth it and one more would not have harmed, some turns more with all samples.

    Args:
        task: of the second layer.
        inputs: what the first layer gets, for each batch.
        one, two: the present weights of both [1, k + 1, m], the bias last.
        done: the refit of the second layer that led to `two`.
        most, last: turns, and turns with all samples.

    Returns:
        None if no turn was worth it, or the first layer is too wide for ridge regression.
    """
    if one.shape[1] - 1 > WIDEST_SOLVED:
        return None
    looked = Looked(first, inputs, [z.shape for z in task.looked.inputs], task.looked.samples)
    train, judging = task.fold(held_out=False), task.fold(held_out=True)
    known = _moments(task, looked, one.shape, train)
    best: Turns | None = None
    strength = MIDDLE
    for _ in range(most):
        tried = one + _change(known, task, looked, one, two, train)
        if not np.isfinite(tried).all():
            break
        turned = moved(task, first, inputs, tried)
        again, fitted, chosen = refit(turned, two)
        if not again.after < done.after * WORTHWHILE:
            last = last if again.after < done.after * OVERFITTED else 0
            break
        done = replace(again, before=done.before, kept=again.after < done.before)
        one, two, task, strength = tried, fitted, turned, chosen
        best = Turns(one, two, done)
    if best is None or not last or judging == train:
        return best
    known = known.merge(_moments(task, looked, one.shape, judging))
    for _ in range(last):
        one = one + _change(known, task, looked, one, two, [*train, *judging])
        if not np.isfinite(one).all():
            break
        task = moved(task, first, inputs, one)
        two = by_all_samples(task, two, strength)
        if not np.isfinite(two).all():
            break
        best = replace(best, first=one, second=two)
    return best


def moved(task: Task, first: Layer, inputs: Sequence[Array], one: Array) -> Task:
    """The second layer's task with what the first one gives it now."""
    return task.moved(list(in_order(_rectified(first, one), inputs, task.workers)))


def _moments(task: Task, looked: Looked, shape: tuple[int, ...], batches: Sequence[int]) -> Moments:
    """Of what the first layer gets, without targets: they change from turn to turn."""
    _, rows, outputs = shape
    moments = Moments(rows - 1, outputs)

    def products(number: int) -> Products:
        x = looked.x(number)
        return moments.products(x, np.zeros((len(x), outputs), np.float32))

    for found in in_order(products, batches, task.workers):
        moments.take(found)
    return moments


def _change(
    known: Moments, task: Task, looked: Looked, one: Array, two: Array, batches: Sequence[int]
) -> Array:
    """The change of the first layer `one` that comes closest to what the second, `two`, wants.

    In two steps, as below a Relu in `refit`: where it is closed the second layer wants nothing, and
    in the second step the first layer is free to change there, as long as it stays closed. What
    is fitted is the change, so that the pull is towards the present weights.
    """
    map_ = LinearMap(task.layer, two)
    seen: dict[int, tuple[Array, Array]] = {}

    def wanted(number: int) -> Array:
        between, target = task.looked.inputs[number], task.targets[number]
        shortcut, chosen = task.shortcuts[number], looked.chosen(number)
        change = wanted_between(map_, between, target, shortcut, rectified=task.rectified)
        closed = looked.layer.outputs(between, chosen) <= 0
        seen[number] = looked.layer.outputs(change, chosen), closed
        return seen[number][0]

    def freed(number: int) -> Array:
        (change, closed), x = seen[number], looked.x(number)
        room = np.maximum(-result(x, one), 0)
        return np.where(closed, np.minimum(result(x, first), room), change)

    first = _fitted(known, task, looked, wanted, batches)
    return _fitted(known, task, looked, freed, batches) if np.isfinite(first).all() else first


def _fitted(
    known: Moments,
    task: Task,
    looked: Looked,
    targets: Callable[[int], Array],
    batches: Sequence[int],
) -> Array:
    """The change [1, k + 1, m] that gives these targets for each batch."""
    moments = known.without_targets()

    def products(number: int) -> Products:
        return moments.products(looked.x(number), targets(number), aim=True)

    for found in in_order(products, batches, task.workers):
        moments.take(found)
    return solved(moments, np.zeros((1, known.k + 1, known.m)), has_bias=True)


def _rectified(first: Layer, one: Array) -> Callable[[Array], Array]:
    """What lies behind the first layer and its Relu, for what it gets."""
    map_ = LinearMap(first, one)
    return lambda x: np.maximum(map_.forward(x), 0)


def wanted_between(
    second: LinearMap, z: Array, target: Array, shortcut: Array, *, rectified: bool
) -> Array:
    """The change of the values between that would lessen the second layer's error.

    Args:
        z: what lies between, behind the Relu.
        target: of the sum of the layer and `shortcut`.

    Returns:
        as z; zero where the Relu is closed.
    """
    kind = np.promote_types(z.dtype, np.float32)  # squares of float16 overflow
    z, target, shortcut = (np.asarray(a, kind) for a in (z, target, shortcut))
    open_ = z > 0
    now = second.forward(z) + shortcut
    total = np.zeros_like(z)
    for _ in range(STEPS):
        left = target - now
        if rectified:
            left = np.where((target <= 0) & (now <= 0), 0, left)
        step = second.adjoint(left, z.shape[2:]) * open_
        moved = second.linear(step)
        size = float(np.square(moved, dtype=np.float64).sum())
        if size <= 0:
            break
        length = kind.type(float(np.sum(moved * left, dtype=np.float64)) / size)
        total += length * step
        now = now + length * moved
    return total
