"""The refit of one layer: what it gets now, what it should give, and the weights that come closest.

W = argmin ||W x - t||^2 + pull towards the old W (He, Zhang and Sun, ICCV 2017, section 3.2), by
ridge regression at positions drawn from all samples; a part of the samples only judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.layer import Layer, Weights
from onnxopt.pruning.moments import Indices, Moments, Products
from onnxopt.pruning.ridge import STRENGTH, solve
from onnxopt.pruning.samples import fold, positions
from onnxopt.pruning.workers import in_order

WIDEST_SOLVED = 6000
"""Rows of W above which a layer only gets a gain and an offset for each output."""

RELAXED_STEPS = 2

STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Of the pull towards the old weights: the samples that judge choose for each layer. One strength
for all leaves 3 % more error in the logits of a halved ResNet-20."""

MIDDLE = STRENGTHS[1]

WIDEST_CHOSEN = 2600
"""Rows of W above which the middle strength is taken: each solution takes k^3 operations."""

LARGEST_HELD_BYTES = 128 * 2**20
"""Rows that take more are gathered anew each time they are looked at."""


@dataclass(frozen=True)
class Refit:
    """What was done to one layer.

    Attributes:
        before, after: squared error on samples that took no part, as a share of the target's
            variance.
        kept: the refit was kept, since it was better.

    Refits in turns are told of the second layer alone: the first one's own error means little then.
    """

    layer: str
    form: str
    before: float
    after: float
    kept: bool


class Refitted(NamedTuple):
    """What was done to a layer, and what that led to.

    Attributes:
        weights: the best ones found [groups, k + 1, m].
        strength: of the pull towards the old ones, as it was chosen.
    """

    done: Refit
    weights: Array
    strength: float


@dataclass(frozen=True, eq=False)
class Looked:
    """What a layer gets at the positions that are looked at.

    Attributes:
        inputs: what it reads, for each batch.
        shapes: of its output, for each batch.
        samples: in all batches together.
    """

    layer: Layer
    inputs: Sequence[Array]
    shapes: Sequence[tuple[int, ...]]
    samples: int

    def chosen(self, batch: int) -> Indices:
        return positions(self.layer, self.shapes[batch], self.samples, batch)

    def x(self, batch: int) -> Array:
        """[rows, groups k]"""
        found = self._held.get(batch)
        if found is None:
            found = self.layer.rows(self.inputs[batch], self.chosen(batch))
            if found.nbytes * len(self.shapes) <= LARGEST_HELD_BYTES:
                self._held[batch] = found
        return found

    @cached_property
    def _held(self) -> dict[int, Array]:
        return {}


@dataclass(frozen=True, eq=False)
class Task:
    """One layer with all that its refit looks at.

    Attributes:
        targets: for each batch what the layer should give, or the sum that it is a part of.
        shortcuts: the other part of that sum; zero without a sum.
        rectified: only a Relu reads it: below zero, differences are not seen.
        weights: the present ones, by name.
        judge: the error that weights lead to, where it is not that of the targets.
        workers: batches that are looked at at once.
    """

    looked: Looked
    targets: Sequence[Array]
    shortcuts: Sequence[Array]
    rectified: bool
    weights: Weights
    judge: Callable[[Array], float] | None = None
    workers: int = 1

    @property
    def layer(self) -> Layer:
        return self.looked.layer

    def rows(self, batch: int) -> tuple[Array, Array, Array]:
        """What the layer gets [rows, groups k], the target of the sum [rows, groups m] and the
        shortcut, as the target or one number."""
        return self.looked.x(batch), *self._aims(batch)

    def _aims(self, batch: int) -> tuple[Array, Array]:
        found = self._held.get(batch)
        if found is None:
            chosen = self.looked.chosen(batch)
            found = self._held[batch] = (
                self.layer.outputs(self.targets[batch], chosen),
                self.layer.outputs(self.shortcuts[batch], chosen)
                if self.shortcuts[batch].ndim
                else self.shortcuts[batch],
            )
        return found

    @cached_property
    def _held(self) -> dict[int, tuple[Array, Array]]:
        return {}

    def moved(self, inputs: Sequence[Array]) -> Task:
        """The same with other inputs."""
        made = replace(self, looked=replace(self.looked, inputs=inputs))
        made._held.update(self._held)
        return made

    def fold(self, *, held_out: bool) -> list[int]:
        """The batches that judge, or those that do not."""
        return fold(self.targets, held_out)


def refit(task: Task, old: Array, form: Literal["ridge", "scale"] = "ridge") -> Refitted:
    """Ridge regression. Below a Relu in two steps more, in which what it hides is left free.

    Where both the target and the present result are negative the Relu makes zero of both: there
    the present result takes the place of the target (Zhang et al., "Accelerating very deep
    convolutional networks", TPAMI 2016, section 3.2).

    In the end the samples that judged take part too, with all that they have chosen.

    Args:
        old: the present weights [groups, k + 1, m], the bias last.
        form: "scale" only finds a gain and an offset for each output, as for very wide layers.
    """
    if form == "scale" or old.shape[1] - 1 > WIDEST_SOLVED:
        return _rescale(task, old)
    train = task.fold(held_out=False)
    before = lowest = error(task, old)
    best: _Fit | None = None
    known: Moments | None = None
    for step in range(1 + (RELAXED_STEPS if task.rectified else 0)):
        start = old if best is None else best.W
        known = _taken(task, train, start, is_relaxed=step > 0, known=known)
        fit = _fitted(task, known, start, is_relaxed=step > 0)
        if fit.error < lowest:
            best, lowest = fit, fit.error
        elif step:
            break
    done = Refit(task.layer.name, "ridge", before, lowest, lowest < before)
    if best is None:
        return Refitted(done, old, MIDDLE)
    return Refitted(done, _on_all(task, best), best.strength)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weights, how they were found, and their error on the samples that judge."""

    W: Array
    start: Array
    strength: float
    moments: Moments
    is_relaxed: bool
    error: float


def _taken(
    task: Task, batches: Sequence[int], W: Array, *, is_relaxed: bool, known: Moments | None = None
) -> Moments:
    """The moments of rows and targets; relaxed, those that W gives where a Relu hides both.

    Args:
        known: moments of the same rows, with other targets.
    """
    groups, rows, m = W.shape
    moments = Moments(rows - 1, m, groups) if known is None else known.without_targets()

    def products(number: int) -> Products:
        x, t, shortcut = task.rows(number)
        if is_relaxed:
            now = result(x, W) + shortcut
            t = np.where((t <= 0) & (now <= 0), now, t)
        return moments.products(x, t - shortcut, aim=known is not None)

    for found in in_order(products, batches, task.workers):
        moments.take(found)
    return moments


def _fitted(task: Task, moments: Moments, start: Array, *, is_relaxed: bool) -> _Fit:
    """The solution of the strength that judges best."""
    strengths = STRENGTHS if start.shape[1] <= WIDEST_CHOSEN else (MIDDLE,)
    fits = []
    for strength in strengths:
        W = solved(moments, start, has_bias=bool(task.layer.bias), strength=strength)
        left = error(task, W) if np.isfinite(W).all() else np.inf
        fits.append(_Fit(W, start, strength, moments, is_relaxed, left))
    return min(fits, key=lambda fit: fit.error)


def _on_all(task: Task, fit: _Fit) -> Array:
    """The same once more, from all samples."""
    judging = task.fold(held_out=True)
    if judging == task.fold(held_out=False):
        return fit.W
    moments = fit.moments.merge(_taken(task, judging, fit.start, is_relaxed=fit.is_relaxed))
    W = solved(moments, fit.start, has_bias=bool(task.layer.bias), strength=fit.strength)
    return W if np.isfinite(W).all() else fit.W


def by_all_samples(task: Task, old: Array, strength: float) -> Array:
    """Ridge regression by all samples, also by those that judge.

    Returns:
        the weights, as `old`; where a Relu hides the target and what `old` gives, that is left.
    """
    batches = range(len(task.targets))
    moments = _taken(task, batches, old, is_relaxed=task.rectified)
    return solved(moments, old, has_bias=bool(task.layer.bias), strength=strength)


def _rescale(task: Task, old: Array) -> Refitted:
    """A gain and an offset for each output: the fast path, as if a BatchNormalization followed.

    With y what the layer gives now, t ~ gain y + offset by least squares for each output.
    """
    groups, m = old.shape[0], old.shape[2]
    outputs = groups * m
    moments = Moments(1, 1, outputs)
    for number in task.fold(held_out=False):
        x, t, shortcut = task.rows(number)
        moments.add(result(x, old), t - shortcut)
    same = np.broadcast_to(np.array([[1.0], [0.0]]), (outputs, 2, 1))
    fitted = solved(moments, same, has_bias=bool(task.layer.bias))
    new = old * fitted[:, 0, 0].reshape(groups, 1, m)
    new[:, -1] += fitted[:, 1, 0].reshape(groups, m)
    before, after = error(task, old), error(task, new)
    return Refitted(Refit(task.layer.name, "scale", before, after, after < before), new, MIDDLE)


def result(x: Array, W: Array) -> Array:
    """What a layer [groups, k + 1, m] makes of rows [rows, groups k]: [rows, groups m]."""
    W = W.astype(x.dtype if x.dtype == np.float64 else np.float32)
    if len(W) == 1:
        return np.asarray(x @ W[0, :-1] + W[0, -1])
    parts = x.reshape(len(x), len(W), -1).transpose(1, 0, 2)
    made = parts @ W[:, :-1] + W[:, -1:]
    return np.asarray(made.transpose(1, 0, 2).reshape(len(x), -1))


def solved(moments: Moments, old: Array, *, has_bias: bool, strength: float = STRENGTH) -> Array:
    """The refitted weights, as `old` [groups, k + 1, m]; a layer without a bias keeps none."""
    parts = (moments.group(g) for g in range(len(old)))
    return np.stack(
        [_solved(part, W, has_bias, strength) for part, W in zip(parts, old, strict=True)]
    )


def _solved(moments: Moments, old: Array, has_bias: bool, strength: float) -> Array:
    if has_bias:
        return solve(moments.H, moments.C, old, strength=strength)
    penalised = np.ones(len(old) - 1, np.bool_)
    H, C = moments.H[:-1, :-1], moments.C[:-1]
    free = solve(H, C, old[:-1], strength=strength, penalised=penalised)
    return np.concatenate([free, np.zeros((1, free.shape[1]))])


def error(task: Task, W: Array) -> float:
    """On the batches that judge: squared error behind the Relu, as a share of the variance."""
    if task.layer.quantized:  # what is stored is not quite W
        W = task.layer.matrix({**task.weights, **task.layer.stored(W, task.weights)})
    if task.judge is not None:
        return task.judge(W)

    def judged(number: int) -> tuple[float, float, float, int]:
        x, t, shortcut = task.rows(number)
        now = result(x, W) + shortcut
        if task.rectified:
            now, t = np.maximum(now, 0), np.maximum(t, 0)
        lost, square = (float(np.square(a, dtype=np.float64).sum()) for a in (now - t, t))
        return lost, square, float(t.sum(dtype=np.float64)), t.size

    judging = in_order(judged, task.fold(held_out=True), task.workers)
    total, squares, sums, count = map(sum, zip(*judging, strict=True))
    spread = squares - sums * sums / max(count, 1)
    return total / spread if spread > 0 else total
