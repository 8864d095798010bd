"""Sequential refits: each layer of the pruned model makes up for what was cut before it.

In the order of the nodes, W = argmin ||W x - t||^2 + pull towards the old W, where x is what the
layer gets in the pruned model and t is what it gave in the original (He, Zhang and Sun, ICCV 2017,
section 3.2). Where a layer feeds a residual Add, t is the original sum less the pruned shortcut, so
that each block also repairs the drift from above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from onnxopt.graph import Array, Graph, Value
from onnxopt.pruning.cache import NOWHERE, Pieces
from onnxopt.pruning.layers import Layer
from onnxopt.pruning.moments import Moments
from onnxopt.pruning.pairs import Operator, wanted_between
from onnxopt.pruning.ridge import solve
from onnxopt.pruning.samples import Batch, fold, positions
from onnxopt.pruning.stepper import Stepper, set_weights, weights_of
from onnxopt.pruning.threads import one_thread

Compensation: TypeAlias = Literal["ridge", "scale", "none"]

WIDEST_SOLVED = 6000
"""Rows of W above which a layer only gets a gain and an offset for each output."""

RELAXED_STEPS = 2
MOST_TURNS = 4
WORTHWHILE = 0.995

Kept: TypeAlias = Mapping[tuple[str, int], Array]
"""For an axis of a value, by name, whether each of the original's indices is still there."""


@dataclass(frozen=True)
class Refit:
    """What was done to one layer.

    Attributes:
        before, after: squared error on samples that took no part, as a share of the target's
            variance.
        kept: the refit was kept, since it was better.
    """

    layer: str
    form: str
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class After:
    """What follows a layer.

    Attributes:
        output: the value that is compared with the original's: the layer's own, or the sum that
            it is a part of.
        shortcut: the other operand of that sum; "" if there is no sum.
        rectified: only a Relu reads `output`: below zero, differences are not seen.
    """

    output: str
    shortcut: str = ""
    rectified: bool = False


def following(
    graph: Graph, layers: Sequence[Layer], shape: Callable[[Value], tuple[int, ...] | None]
) -> dict[str, tuple[After, ...]]:
    """What follows each layer, by its output: the sum first where there is one, then without."""
    values: dict[str, Value] = {v.name: v for node in graph.nodes for v in node.outputs}
    found: dict[str, tuple[After, ...]] = {}
    for layer in layers:
        made = values[layer.output]
        alone = After(made.name, "", _is_rectified(made))
        added = _sum_after(made, graph, shape)
        found[layer.output] = (alone,) if added is None else (added, alone)
    return found


def _sum_after(
    made: Value, graph: Graph, shape: Callable[[Value], tuple[int, ...] | None]
) -> After | None:
    if len(made.consumers) != 1 or made.is_graph_output:
        return None
    add = made.consumers[0]
    if add.op != "Add" or add.graph is not graph or len(set(add.inputs)) != 2:
        return None
    other = add.inputs[1] if add.inputs[0] is made else add.inputs[0]
    if other.array is not None or other.producer is None:
        return None
    if shape(made) != shape(add.outputs[0]):  # it is broadcast itself
        return None
    return After(add.outputs[0].name, other.name, _is_rectified(add.outputs[0]))


def _is_rectified(value: Value) -> bool:
    return (
        bool(value.consumers)
        and not value.is_graph_output
        and all(node.op == "Relu" for node in value.consumers)
    )


@one_thread
def compensate(
    original: onnx.ModelProto,
    pruned: onnx.ModelProto,
    layers: Sequence[Layer],
    after: Mapping[str, tuple[After, ...]],
    kept: Kept,
    batches: Sequence[Batch],
    form: Compensation = "ridge",
    pairs: Mapping[str, Layer] = MappingProxyType({}),
    tell: Callable[[float], None] = lambda done: None,
    saved: Pieces = NOWHERE,
) -> list[Refit]:
    """Refit the layers of `pruned` in place, in the order in which they run.

    Args:
        layers: of the pruned model, under the names that the original has too.
        after: from `following`.
        kept: which channels of the original's values are still there.
        tell: is told how much is done, 0 to 1.
        saved: where the weights of refitted layers are kept.
    """
    ours, theirs = Stepper(pruned, batches), Stepper(original, batches)
    samples = sum(len(next(iter(batch.values()))) for batch in batches)
    done: list[Refit] = []
    held: dict[str, list[Array]] = {}
    for number, layer in enumerate(layers):
        tell(number / len(layers))
        rest = layers[number:]
        target = next(t for t in after[layer.output] if _is_next(t, rest, ours, theirs))
        ours.advance(ours.made[layer.node])
        theirs.advance(theirs.made[target.output] + 1)
        task = _Task(layer, target, kept, samples, ours.frontier, theirs.frontier)
        first = pairs.get(layer.node)
        inputs = held.pop(first.node) if first is not None else []
        if (known := saved.get(f"{number:04d}")) is not None:
            done.append(_restored(known, ours, layer, first, inputs))
        else:
            was = ours.frontier[0][layer.input]
            weights = weights_of(pruned, [layer.weight, layer.bias])
            old = layer.matrix(weights)
            refit, new = _refit(task, old) if form == "ridge" else _rescale(task, old)
            if refit.kept:
                set_weights(pruned, layer.stored(new, weights))
            done.append(refit)
            if first is not None and refit.form == "ridge":
                _in_turns(ours, task, first, inputs, new)
            moved = ours.frontier[0][layer.input] is not was
            changed = [one for one in (layer, first) if one is layer or (one and moved)]
            names = [name for one in changed for name in (one.weight, one.bias)]
            piece = {"refit": vars(refit), "weights": weights_of(pruned, names), "moved": moved}
            saved.put(f"{number:04d}", piece)
        if layer in pairs.values():
            held[layer.node] = [values[layer.input] for values in ours.frontier]
    return done


def _restored(
    known: Any, ours: Stepper, layer: Layer, first: Layer | None, inputs: Sequence[Array]
) -> Refit:
    """A refit that is kept, put into place: weights, and what the layer before then gives."""
    set_weights(ours.proto, known["weights"])
    if known["moved"] and first is not None:
        W = first.matrix(weights_of(ours.proto, [first.weight, first.bias]))
        for values, x in zip(ours.frontier, inputs, strict=True):
            values[layer.input] = np.maximum(Operator(first).forward(x, W), 0)
    return Refit(**known["refit"])


def _in_turns(
    ours: Stepper, task: _Task, first: Layer, inputs: Sequence[Array], new: Array
) -> None:
    """Refit a layer and the one before it in turns, as long as the error falls."""
    layer = task.layer
    weights = weights_of(ours.proto, [layer.weight, layer.bias, first.weight, first.bias])
    one, two = first.matrix(weights), layer.matrix(weights)
    a, b = Operator(first), Operator(layer)
    lowest = _error(task, two)
    for _ in range(MOST_TURNS):
        moments = Moments(one.shape[1] - 1, one.shape[2])
        for number in fold(task.ours, held_out=False):
            x, z = inputs[number], task.ours[number][layer.input]
            target, shortcut = task.whole(number)
            change = wanted_between(b, two, z, target, shortcut, rectified=task.after.rectified)
            wanted = a.forward(x, one) + change
            chosen = positions(first, wanted.shape, task.samples, number)
            moments.add(first.rows(x, chosen), first.outputs(wanted, chosen))
        tried = np.stack([_solved(moments.group(0), one[0], True)])
        between = [np.maximum(a.forward(x, tried), 0) for x in inputs]
        values = [{**v, layer.input: z} for v, z in zip(task.ours, between, strict=True)]
        moved = replace(task, ours=values)
        refit, fitted = _refit(moved, two)
        if not refit.after < lowest * WORTHWHILE:
            break
        lowest, one, two, task = refit.after, tried, fitted, moved
    else_weights = {**first.stored(one, weights), **layer.stored(two, weights)}
    set_weights(ours.proto, else_weights)
    for kept_values, moved_values in zip(ours.frontier, task.ours, strict=True):
        kept_values[layer.input] = moved_values[layer.input]


def _is_next(target: After, layers: Sequence[Layer], ours: Stepper, theirs: Stepper) -> bool:
    """The shortcut is there already, and no layer that is still to come lies before the sum."""
    if not target.shortcut:
        return True
    place = ours.made[layers[0].node]
    if ours.made.get(target.shortcut, place) >= place:
        return False
    end = theirs.made[target.output]
    return all(theirs.made[later.output] > end for later in layers[1:])


@dataclass(frozen=True)
class _Task:
    """One layer with all that its refit looks at."""

    layer: Layer
    after: After
    kept: Kept
    samples: int
    ours: Sequence[Batch]
    theirs: Sequence[Batch]

    def whole(self, number: int) -> tuple[Array, Array]:
        """The target of the sum and the shortcut, at all positions of a batch."""
        target = _narrowed(self.theirs[number][self.after.output], self.after.output, self.kept)
        if not self.after.shortcut:
            return target, np.zeros((), target.dtype)
        return target, np.broadcast_to(self.ours[number][self.after.shortcut], target.shape)

    def rows(self, held_out: bool) -> Iterator[tuple[Array, Array, Array]]:
        """For each batch what the layer gets [rows, k], the target of the sum and the shortcut."""
        for number in fold(self.ours, held_out):
            ours, theirs = self.ours[number], self.theirs[number]
            target = _narrowed(theirs[self.after.output], self.after.output, self.kept)
            chosen = positions(self.layer, target.shape, self.samples, number)
            x = self.layer.rows(ours[self.layer.input], chosen)
            t = self.layer.outputs(target, chosen)
            shortcut = np.zeros((), t.dtype)
            if self.after.shortcut:
                whole = np.broadcast_to(ours[self.after.shortcut], target.shape)
                shortcut = self.layer.outputs(whole, chosen)
            yield x, t, shortcut


def _narrowed(array: Array, name: str, kept: Kept) -> Array:
    for axis in range(array.ndim):
        mask = kept.get((name, axis))
        if mask is not None:
            array = np.compress(mask, array, axis)
    return array


def _refit(task: _Task, old: Array) -> tuple[Refit, Array]:
    """Ridge regression. Below a Relu in two steps more, in which what it hides is left free.

    Where both the target and the present result are negative the Relu makes zero of both: there
    the present result takes the place of the target (Zhang et al., "Accelerating very deep
    convolutional networks", TPAMI 2016, section 3.2).
    """
    groups, k, m = old.shape[0], old.shape[1] - 1, old.shape[2]
    if k > WIDEST_SOLVED:
        return _rescale(task, old)
    best, before = old, _error(task, old)
    lowest = before
    for step in range(1 + (RELAXED_STEPS if task.after.rectified else 0)):
        moments = Moments(k, m, groups)
        for x, t, shortcut in task.rows(held_out=False):
            if step:
                now = _result(x, best) + shortcut
                t = np.where((t <= 0) & (now <= 0), now, t)
            moments.add(x, t - shortcut)
        has_bias = bool(task.layer.bias)
        new = np.stack([_solved(moments.group(g), best[g], has_bias) for g in range(groups)])
        error = _error(task, new) if np.isfinite(new).all() else np.inf
        if error < lowest:
            best, lowest = new, error
        elif step:
            break
    return Refit(task.layer.name, "ridge", before, lowest, lowest < before), best


def _result(x: Array, W: Array) -> Array:
    """What a layer [groups, k + 1, m] makes of rows [rows, groups k]: [rows, groups m]."""
    W = W.astype(x.dtype if x.dtype == np.float64 else np.float32)
    if len(W) == 1:
        return np.asarray(x @ W[0, :-1] + W[0, -1])
    parts = x.reshape(len(x), len(W), -1).transpose(1, 0, 2)
    made = parts @ W[:, :-1] + W[:, -1:]
    return np.asarray(made.transpose(1, 0, 2).reshape(len(x), -1))


def _solved(moments: Moments, old: Array, has_bias: bool) -> Array:
    """The refitted W [k + 1, m]; a layer without a bias keeps none."""
    if has_bias:
        return solve(moments.H, moments.C, old)
    free = solve(
        moments.H[:-1, :-1], moments.C[:-1], old[:-1], penalised=np.ones(len(old) - 1, np.bool_)
    )
    return np.concatenate([free, np.zeros((1, free.shape[1]))])


def _error(task: _Task, W: Array) -> float:
    """On the batches that judge: squared error behind the Relu, as a share of the variance."""
    total = squares = sums = 0.0
    count = 0
    for x, t, shortcut in task.rows(held_out=True):
        now = _result(x, W) + shortcut
        if task.after.rectified:
            now, t = np.maximum(now, 0), np.maximum(t, 0)
        total += float(np.square(now - t, dtype=np.float64).sum())
        squares += float(np.square(t, dtype=np.float64).sum())
        sums += float(t.sum(dtype=np.float64))
        count += t.size
    spread = squares - sums * sums / max(count, 1)
    return total / spread if spread > 0 else total


def _rescale(task: _Task, old: Array) -> tuple[Refit, Array]:
    """A gain and an offset for each output: the fast path, as if a BatchNormalization followed.

    With y what the layer gives now, t ~ gain y + offset by least squares for each output.
    """
    groups, m = old.shape[0], old.shape[2]
    outputs = groups * m
    moments = Moments(1, 1, outputs)
    for x, t, shortcut in task.rows(held_out=False):
        moments.add(_result(x, old), t - shortcut)
    same = np.array([[1.0], [0.0]])
    has_bias = bool(task.layer.bias)
    fitted = np.stack([_solved(moments.group(g), same, has_bias) for g in range(outputs)])
    new = old * fitted[:, 0, 0].reshape(groups, 1, m)
    new[:, -1] += fitted[:, 1, 0].reshape(groups, m)
    before, after = _error(task, old), _error(task, new)
    return Refit(task.layer.name, "scale", before, after, after < before), new
