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
from onnxopt.pruning.refit import WIDEST_SOLVED, Looked, Refit, Task, refit, solved
from onnxopt.pruning.workers import in_order

MOST_TURNS = 10
"""More than 4 leave 2 % less error in the logits of a ResNet-56 at 0.4 of its FLOPs."""

STEPS = 3
"""Of steepest descent, for one refit of the first layer."""

WORTHWHILE = 0.998
"""Share of the error that a turn may leave at most to be kept."""


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
) -> Turns | None:
    """Refit a layer and the one before it in turns, as long as the error falls.

    Args:
        task: of the second layer.
        inputs: what the first layer gets, for each batch.
        one, two: the present weights of both [1, k + 1, m], the bias last.
        done: the refit of the second layer that led to `two`.
        most: turns.

    Returns:
        None if no turn was worth it, or the first layer is too wide for ridge regression.
    """
    if one.shape[1] - 1 > WIDEST_SOLVED:
        return None
    looked = Looked(first, inputs, [z.shape for z in task.looked.inputs], task.looked.samples)
    known = _moments(task, looked, one.shape)
    best: Turns | None = None
    for _ in range(most):
        # The targets are changes, so that the pull is towards the present weights.
        tried = one + solved(_aimed(known, task, looked, two), np.zeros_like(one), has_bias=True)
        if not np.isfinite(tried).all():
            break
        between = list(in_order(_rectified(first, tried), inputs, task.workers))
        moved = task.moved(between)
        again, fitted = refit(moved, two)
        if not again.after < done.after * WORTHWHILE:
            break
        done = replace(again, before=done.before, kept=again.after < done.before)
        one, two, task = tried, fitted, moved
        best = Turns(one, two, done)
    return best


def _moments(task: Task, looked: Looked, shape: tuple[int, ...]) -> Moments:
    """Of what the first layer gets, without targets: they change from turn to turn."""
    _, rows, outputs = shape
    moments = Moments(rows - 1, outputs)

    def products(number: int) -> Products:
        x = looked.x(number)
        return moments.products(x, np.zeros((len(x), outputs), np.float32))

    for found in in_order(products, task.fold(held_out=False), task.workers):
        moments.take(found)
    return moments


def _aimed(known: Moments, task: Task, looked: Looked, two: Array) -> Moments:
    """The same with the changes that the second layer `two` wants of what lies between."""
    moments, map_ = known.without_targets(), LinearMap(task.layer, two)

    def products(number: int) -> Products:
        between, target = task.looked.inputs[number], task.targets[number]
        change = wanted_between(
            map_, between, target, task.shortcuts[number], rectified=task.rectified
        )
        made = looked.layer.outputs(change, looked.chosen(number))
        return moments.products(looked.x(number), made, aim=True)

    for found in in_order(products, task.fold(held_out=False), task.workers):
        moments.take(found)
    return moments


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
