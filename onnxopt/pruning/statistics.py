"""What the layers that read a group of channels get: moments from samples, order, error curve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxopt.graph import Array
from onnxopt.parts import parts
from onnxopt.pruning.cache import NOWHERE, Pieces
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.criteria import Criterion, order
from onnxopt.pruning.layer import Layer
from onnxopt.pruning.moments import Moments
from onnxopt.pruning.problem import Problem, curve
from onnxopt.pruning.readers import Look, Reader, readers
from onnxopt.pruning.recurrent import GATES
from onnxopt.pruning.samples import BATCH, Batch, positions, size_bytes
from onnxopt.pruning.scales import Scales, scales_of
from onnxopt.pruning.stepper import weights_of
from onnxopt.pruning.threads import one_thread
from onnxopt.pruning.workers import in_order
from onnxopt.runtime import Session
from onnxopt.submodel import submodel

LARGEST_MOMENTS_BYTES = 256 * 2**20
LARGEST_SHOWN_BYTES = 256 * 2**20
"""What is looked at together: by each worker, and the moments once more for their sum."""

SHARES = 16
"""Into so many shares samples are divided, each summed alone, by however many workers."""

SENSITIVITY_CUTS = (0.5, 0.75)
"""Shares of a group that are cut to see what that does to the outputs."""

NOTHING_LEFT = 1e-3
"""Share of the weights that counts as left where all are gone."""


@dataclass(frozen=True)
class Ranking:
    """One group, ready for the budget.

    Attributes:
        order: numbers of the units, the least important first.
        curve: [units + 1] relative error of the readers when that many are gone, after refits;
            the sum over the readers.
        trials: for each of SENSITIVITY_CUTS the units that are gone and the refitted weights.
        measured: the curve is from samples; else it is a guess from the weights alone.
        readers: how many layers contract the channels.
    """

    order: Array
    curve: Array
    trials: tuple[Mapping[str, Array], ...]
    measured: bool
    readers: int = 1

    @property
    def tried(self) -> tuple[Array, ...]:
        """The units that are gone in each trial."""
        units = len(self.order)
        return tuple(self.order[: round(share * units)] for share in SENSITIVITY_CUTS)


def chunks(
    groups: Sequence[ChannelGroup], layers: Sequence[Layer], channels: Channels
) -> Iterator[list[int]]:
    """Groups whose moments are taken in one run over the samples, by number."""

    def size(number: int) -> int:
        looks = (reader.look for reader in readers(groups[number], layers, channels))
        return sum(8 * look.groups * look.seen**2 for look in looks)

    return parts(range(len(groups)), size, LARGEST_MOMENTS_BYTES)


@one_thread
def rank(
    proto: onnx.ModelProto,
    channels: Channels,
    groups: Sequence[ChannelGroup],
    layers: Sequence[Layer],
    batches: Sequence[Batch],
    criterion: Criterion = "obs",
    seed: int = 0,
    scales: Scales | None = None,
    *,
    workers: int = 1,
    saved: Pieces = NOWHERE,
    tell: Callable[[str, float], None] = lambda stage, done: None,
) -> list[Ranking]:
    """Order and error curve of each group.

    Args:
        scales: for bn-scale; groups that have none go by the size of their weights.
        saved: where rankings are kept.
        tell: is told what is being done and how much of it is done, 0 to 1.
    """
    kept = {i: saved.get(f"{i:04d}") for i in range(len(groups))}
    ranked = {i: Ranking(**piece) for i, piece in kept.items() if piece is not None}
    missing = [i for i in kept if i not in ranked]
    if missing:
        found = [readers(group, layers, channels) for group in groups]
        # Also for those that are kept: what a session shows is in the last bits.
        wanted = {reader.layer: reader.look for some in found for reader in some}
        moments = _moments(proto, channels, wanted, batches, workers, tell)

        def ranking(number: int) -> Ranking:
            given = channels, groups[number], found[number], moments
            return _ranking(*given, criterion, seed, scales or {})

        for number, made in zip(missing, in_order(ranking, missing, workers), strict=True):
            saved.put(f"{number:04d}", vars(made))
            ranked[number] = made
            tell("ordering channels", len(ranked) / len(groups))
    return [ranked[i] for i in range(len(groups))]


def _moments(
    proto: onnx.ModelProto,
    channels: Channels,
    looks: Mapping[Layer, Look],
    batches: Sequence[Batch],
    workers: int = 1,
    tell: Callable[[str, float], None] = lambda stage, done: None,
) -> dict[Layer, Moments]:
    """E[x x'] of each layer over the samples; of wide ones over their channels alone."""
    total: dict[Layer, Moments] = {}
    samples = len(batches) * len(next(iter(batches[0].values()))) if len(batches) else 0
    step = max(-(-len(batches) // SHARES), 1)
    shares = [range(len(batches))[start : start + step] for start in range(0, len(batches), step)]
    together = list(_shown_together(list(looks), channels))
    for place, part in enumerate(together):
        names = list(dict.fromkeys(n for layer in part for p in layer.places for n in p.reads))
        inputs = {info.name for info in proto.graph.input}
        shown = [name for name in names if name not in inputs]
        session = Session(submodel(proto, shown), optimized=True, threads=1) if shown else None
        stored = weights_of(proto, [name for layer in part for name in layer.parameters])
        shown_part = _Part(part, looks, session, channels, stored, batches, samples)
        for done, summed in enumerate(in_order(shown_part.moments, shares, workers), 1):
            for layer, moments in summed.items():
                total[layer] = total[layer].merge(moments) if layer in total else moments
            tell("looking at samples", (place + done / len(shares)) / len(together))
    return total


@dataclass(frozen=True)
class _Part:
    """Layers whose inputs are looked at together."""

    layers: Sequence[Layer]
    looks: Mapping[Layer, Look]
    session: Session | None
    channels: Channels
    stored: Mapping[str, Array]
    batches: Sequence[Batch]
    samples: int

    def moments(self, numbers: Iterable[int]) -> dict[Layer, Moments]:
        """Those of some batches."""
        total: dict[Layer, Moments] = {}
        for number in numbers:
            batch = self.batches[number]
            values: dict[str, Array] = dict(batch)
            if self.session is not None:
                fed = {port.name for port in self.session.inputs}
                values.update(self.session.run({n: v for n, v in batch.items() if n in fed}))
            for layer in self.layers:
                look = self.looks[layer]
                entry = total.setdefault(layer, Moments(look.seen, 0, look.groups))
                for place in layer.places:
                    values.update(place.completed(values, self.stored))
                    x = place.gathered(values, self.stored)
                    rows = look.shown(_rows(place, self.channels, x, self.samples, number))
                    entry.add(rows, np.zeros((len(rows), 0), np.float32))
        return total


def _rows(layer: Layer, channels: Channels, x: Array, samples: int, batch: int) -> Array:
    shape = layer.made_shape(x.shape, channels.instance.shapes[layer.node])
    return layer.rows(x, positions(layer, shape, samples, batch))


def _shown_together(layers: Sequence[Layer], channels: Channels) -> Iterator[list[Layer]]:
    shapes = channels.instance.shapes

    def size(layer: Layer) -> int:
        names = (name for place in layer.places for name in place.reads)
        return BATCH * sum(size_bytes(shapes.get(name, (1,))[1:]) for name in names)

    return parts(layers, size, LARGEST_SHOWN_BYTES)


def _problems(
    channels: Channels, some: Iterable[Reader], moments: Mapping[Layer, Moments]
) -> Iterator[tuple[Reader, int, Problem]]:
    """One for each group of each reader; together the groups of a node count 1."""
    for reader in some:
        layer = reader.layer
        matrix = layer.matrix(weights_of(channels.proto, layer.parameters))
        block, taken = reader.look.block, moments[layer]
        for group in range(layer.groups):
            W, rows = matrix[group], reader.rows[group]
            if not any(len(r) for r in rows):
                continue
            if block > 1:
                W, rows = _by_channel(W, block), _channels_of(rows, block)
            H = taken.H if layer.groups == 1 else taken.H[group]
            yield reader, group, Problem.of(H, W, rows, weight=layer.share / layer.groups)


def _by_channel(W: Array, block: int) -> Array:
    """[C block + 1, m] as [C + 1, block m]: each row of a block as outputs of its own."""
    body = W[:-1].reshape(-1, block * W.shape[1])
    return np.concatenate([body, np.tile(W[-1:] / block, (1, block))])


def _channels_of(rows: Sequence[Array], block: int) -> list[Array]:
    return [np.unique(r // block) for r in rows]


def _ranking(
    channels: Channels,
    group: ChannelGroup,
    some: Sequence[Reader],
    moments: Mapping[Layer, Moments],
    criterion: Criterion,
    seed: int,
    scales: Scales,
) -> Ranking:
    problems = list(_problems(channels, some, moments))
    producers = producer_weights(channels, group)
    own = scales_of(scales, channels, group)
    if criterion == "bn-scale" and own is None:
        criterion = "l2"
    if not problems:
        kind: Criterion = "l2" if criterion in ("obs", "admm") else criterion
        chosen = order(kind, producers, scales=own, units=len(group.units), seed=seed)
        size = np.square(order("l2", producers, units=len(group.units)).scores)[chosen.units]
        return Ranking(chosen.units, guess(size) * max(len(group.consumers), 1), (), False)
    alone = [problem for _, _, problem in problems]
    chosen = order(criterion, producers, alone, scales=own, units=len(group.units), seed=seed)
    trials = tuple(_trial(channels, problems, chosen.units, share) for share in SENSITIVITY_CUTS)
    lost = curve(alone, chosen.units)
    return Ranking(chosen.units, lost, trials, True, _readers_after(group))


def _readers_after(group: ChannelGroup) -> int:
    """How many layers contract the channels, besides a recurrent node that makes them."""
    makers = {role.node for role in group.producers if role.node.op in GATES}
    return max(sum(role.node not in makers for role in group.consumers), 1)


def guess(sizes: Array) -> Array:
    """A curve from weights alone: what is gone of them by what is left, as noise by signal.

    The share that is gone would rise evenly, and put a whole cut into the cheapest group.

    Args:
        sizes: squared norms of the weights that make each unit, in the order in which they go.

    Returns:
        [units + 1], 0 at first, for each layer that reads the units.
    """
    total = max(float(sizes.sum()), 1e-30)
    gone = np.concatenate([[0.0], np.cumsum(sizes)]) / total
    return np.asarray(gone / (1 - gone + NOTHING_LEFT))


def _trial(
    channels: Channels,
    problems: Sequence[tuple[Reader, int, Problem]],
    units: Array,
    share: float,
) -> dict[str, Array]:
    """The weights of the readers when a share of the units is gone, made up for."""
    gone = units[: round(share * len(units))]
    matrices: dict[Layer, Array] = {}
    for reader, group, problem in problems:
        layer = reader.layer
        weights = weights_of(channels.proto, layer.parameters)
        matrix = matrices.setdefault(layer, layer.matrix(weights))
        W = problem.weights(gone)
        if W.shape != matrix[group].shape:
            rows = W.shape[0] - 1
            body = W[:-1].reshape(rows * reader.look.block, -1)
            last = W[-1:].reshape(reader.look.block, -1).sum(axis=0)
            W = np.concatenate([body, last[None]])
        matrix[group] = W
    made: dict[str, Array] = {}
    for layer, matrix in matrices.items():  # several may be parts of the same initializers
        made.update(layer.stored(matrix, {**weights_of(channels.proto, layer.parameters), **made}))
    return made


def producer_weights(channels: Channels, group: ChannelGroup) -> list[Array]:
    """What makes each unit, from every producer, or what reads it: [units, numbers]."""
    tracker = channels.tracker
    found = []
    for role in group.producers or group.consumers:
        data = role.weight.array
        label = tracker.axes(role.weight)[role.axis]
        if data is None or isinstance(label, str) or data.dtype.kind not in "fiu":
            continue
        roots = tracker.atoms.roots(label)
        rows = np.moveaxis(np.asarray(data, np.float64), role.axis, 0).reshape(len(roots), -1)
        parts = [rows[roots == unit].reshape(-1) for unit in group.units]
        if len({len(p) for p in parts}) == 1:
            found.append(np.stack(parts))
    return found or [np.ones((len(group.units), 1))]
