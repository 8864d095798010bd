"""Sequential refits: each layer of the pruned model makes up for what was cut before it.

In the order of the nodes, W = argmin ||W x - t||^2 + pull towards the old W, where x is what the
layer gets in the pruned model and t is what it gave in the original (He, Zhang and Sun, ICCV 2017,
section 3.2). Where a layer feeds a residual Add, t is the original sum less the pruned shortcut, so
that each block also repairs the drift from above it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from onnxopt.graph import Array, Graph, Value
from onnxopt.pruning.cache import NOWHERE, Pieces
from onnxopt.pruning.inner import Inside
from onnxopt.pruning.layer import Kept, Layer, Weights
from onnxopt.pruning.linear_map import LinearMap
from onnxopt.pruning.refit import Looked, Refit, Task, refit
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.stepper import Stepper, set_weights, weights_of
from onnxopt.pruning.threads import one_thread
from onnxopt.pruning.turns import in_turns
from onnxopt.runtime import DEFAULT_THREADS

Form: TypeAlias = Literal["ridge", "scale"]
Compensation: TypeAlias = Literal["ridge", "scale", "none"]


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
        if layer.inner:
            found[layer.output] = (After(made.name, "", layer.rectified),)
            continue
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
    form: Form = "ridge",
    pairs: Mapping[str, Layer] = MappingProxyType({}),
    workers: int = 1,
    tell: Callable[[float], None] = lambda done: None,
    saved: Pieces = NOWHERE,
    threads: int = DEFAULT_THREADS,
) -> list[Refit]:
    """Refit the layers of `pruned` in place, in the order in which they run.

    Args:
        layers: of the pruned model, under the names that the original has too.
        after: from `following`.
        kept: which channels of the original's values are still there.
        pairs: from `find_pairs`.
        workers: batches that are looked at at once; layers are refitted one after the other.
        tell: is told how much is done, 0 to 1.
        saved: where the weights of refitted layers are kept.
        threads: of ONNX Runtime; the last bits depend on it.
    """
    ours, theirs = Stepper(pruned, batches, threads), Stepper(original, batches, threads)
    done: dict[Layer, Refit] = {}
    firsts = set(pairs.values()) if form == "ridge" else set()
    held: dict[Layer, list[Array]] = {}
    for number, layer in enumerate(layers):
        tell(number / len(layers))
        rest = layers[number:]
        target = next(t for t in after[layer.output] if _is_next(t, rest, ours, theirs))
        theirs.keep = frozenset(t.output for later in rest for t in after[later.output])
        if layer in done:  # with another layer of its operator
            continue
        piece = saved.get(f"{number:04d}")
        if layer.inner:
            parts = [other for other in rest if other.node == layer.node]
            if piece is None:
                piece = _refit_inner(ours, theirs, parts, target, kept, form)
                saved.put(f"{number:04d}", piece)
            set_weights(pruned, piece["weights"])
            done |= zip(parts, (Refit(**each) for each in piece["refits"]), strict=True)
            continue
        ours.advance(ours.made[layer.node])
        theirs.advance(theirs.made[target.output] + 1)
        first = pairs.get(layer.node)
        if layer in firsts:
            held[layer] = [values[layer.input] for values in ours.frontier]
        inputs = held.pop(first) if first in held else None
        if piece is None:
            weights = weights_of(pruned, layer.parameters + (first.parameters if first else ()))
            both = _abreast(ours, theirs, len(batches) if inputs is None else len(inputs))
            task = _task(layer, target, kept, weights, *both, len(both[0]) * ours.size)
            piece = _refit_one(replace(task, workers=workers), first, inputs, form)
            saved.put(f"{number:04d}", piece)
        set_weights(pruned, piece["weights"])
        if piece["turned"] and first is not None and inputs is not None:
            _turn(ours, layer, first, inputs)
        done[layer] = Refit(**piece["refit"])
    return list(done.values())


def _refit_one(
    task: Task, first: Layer | None, inputs: Sequence[Array] | None, form: Form
) -> dict[str, Any]:
    """Refit a layer, in turns with the one before it if there is one.

    Returns:
        what was done, the changed weights, and whether the first layer's are among them.
    """
    layer, weights = task.layer, task.weights
    done, new, _ = refit(task, layer.matrix(weights), form)
    changed = layer.stored(new, weights) if done.kept else {}
    turns = None
    if first is not None and inputs is not None and done.form == "ridge":
        seen = inputs[: len(task.targets)]
        turns = in_turns(task, first, seen, first.matrix(weights), new, done)
    if first is not None and turns is not None:
        done = turns.done
        changed = {**first.stored(turns.first, weights), **layer.stored(turns.second, weights)}
    return {"refit": vars(done), "weights": changed, "turned": turns is not None}


def _abreast(
    ours: Stepper, theirs: Stepper, most: int | None = None
) -> tuple[Sequence[Batch], Sequence[Batch]]:
    """The values of both models for the batches that both hold."""
    count = min(len(ours.frontier), len(theirs.frontier))
    count = count if most is None else min(count, most)
    return ours.frontier[:count], theirs.frontier[:count]


def _turn(ours: Stepper, layer: Layer, first: Layer, inputs: Sequence[Array]) -> None:
    """What a layer gets now that the one before it, behind a Relu, has other weights."""
    made = LinearMap(first, first.matrix(weights_of(ours.proto, first.parameters)))
    del ours.frontier[len(inputs) :]
    for values, x in zip(ours.frontier, inputs, strict=False):
        values[layer.input] = np.maximum(made.forward(x), 0).astype(values[layer.input].dtype)


def _refit_inner(
    ours: Stepper,
    theirs: Stepper,
    parts: Sequence[Layer],
    after: After,
    kept: Kept,
    form: Form,
) -> dict[str, Any]:
    """Refit the layers of one operator, whose results stay inside of it, in turns.

    Returns:
        what was done, and the changed weights.
    """
    for stepper in (ours, theirs):
        stepper.advance(stepper.made[parts[0].node])
    mine, known = _abreast(ours, theirs)
    samples = len(mine) * ours.size
    original = weights_of(theirs.proto, parts[0].parameters)
    known = [parts[0].completed(values, original) for values in known]
    inside = [Inside(layer, mine, known, original, kept) for layer in parts]
    names = dict.fromkeys(name for layer in parts for name in layer.parameters)
    weights, changed = weights_of(ours.proto, names), dict[str, Array]()
    done: dict[Layer, Refit] = {}
    for step in range(inside[0].steps):
        is_better = False
        for part in inside:
            layer, targets = part.layer, part.targets
            inputs = part.inputs(weights, step)
            looked = Looked(layer, inputs, [target.shape for target in targets], samples)
            none = [np.zeros((), target.dtype) for target in targets]
            task = Task(looked, targets, none, after.rectified, weights, part.judge(weights))
            found, new, _ = refit(task, layer.matrix(weights), form)
            if found.kept:
                changed |= layer.stored(new, weights)
                weights = {**weights, **changed}
            is_better |= found.kept
            first = done.get(layer, found)
            done[layer] = replace(found, before=first.before, kept=first.kept or found.kept)
        if not is_better:
            break
    return {"refits": [vars(each) for each in done.values()], "weights": changed}


def _is_next(target: After, layers: Sequence[Layer], ours: Stepper, theirs: Stepper) -> bool:
    """The shortcut is there already, and no layer that is still to come lies before the sum."""
    if not target.shortcut:
        return True
    place = ours.made[layers[0].node]
    if ours.made.get(target.shortcut, place) >= place:
        return False
    end = theirs.made[target.output]
    return all(theirs.made[later.output] > end for later in layers[1:])


def _task(
    layer: Layer,
    after: After,
    kept: Kept,
    weights: Weights,
    ours: Sequence[Batch],
    theirs: Sequence[Batch],
    samples: int,
) -> Task:
    targets = [_narrowed(values[after.output], after.output, kept) for values in theirs]
    shortcuts = [np.zeros((), target.dtype) for target in targets]
    if after.shortcut:
        pairs = zip(ours, targets, strict=True)
        shortcuts = [np.broadcast_to(v[after.shortcut], target.shape) for v, target in pairs]
    inputs = [values[layer.input] for values in ours]
    looked = Looked(layer, inputs, [target.shape for target in targets], samples)
    return Task(looked, targets, shortcuts, after.rectified, weights)


def _narrowed(array: Array, name: str, kept: Kept) -> Array:
    for axis in range(array.ndim):
        mask = kept.get((name, axis))
        if mask is not None:
            array = np.compress(mask, array, axis)
    return array
