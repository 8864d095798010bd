"""What is lost without one residual block, measured: it goes, and the next one is refitted.

Without refits the loss is 5 to 20 times as large, and by far not alike for all blocks: the block
behind a gap learns to give what the missing one gave, since its sum is refitted to the original's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxopt.pruning.blocks import Block
from onnxopt.pruning.cache import NOWHERE, Pieces
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import After, compensate, following
from onnxopt.pruning.layer import Layer
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.pairs import find_pairs
from onnxopt.pruning.removal import Gone, StandIn, without
from onnxopt.pruning.replacement import Fits, fits_of
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.sensitivity import output_change, some
from onnxopt.pruning.stepper import Stepper, type_of
from onnxopt.pruning.threads import one_thread
from onnxopt.pruning.workers import in_order
from onnxopt.submodel import submodel

MOST_FOLLOWING = 6
"""Layers behind a gap that are refitted at most; fewer where a sum comes before."""

JUDGING = 4
"""One of so many batches only judges."""

WORTH_ITS_TIME = 0.9
"""What takes time itself must leave less than this share of the damage of what takes less."""


@dataclass(frozen=True, eq=False)
class Way:
    """One way to do without a block.

    Attributes:
        damage: what is lost, as a share of the outputs' variance, once the next block is refitted.
    """

    block: Block
    kind: Gone
    standin: StandIn
    damage: float


@one_thread
def ways_without(
    proto: onnx.ModelProto,
    channels: Channels,
    blocks: Sequence[Block],
    batches: Sequence[Batch],
    *,
    is_repaired: bool = True,
    workers: int = 1,
    saved: Pieces = NOWHERE,
    tell: Callable[[float], None] = lambda done: None,
) -> dict[Block, tuple[Way, ...]]:
    """How to do without each block, that block alone, and what is lost by it.

    A block of which no output shows that it is gone is left out, and so is what stands for it and
    is hardly better than what takes less time.

    Args:
        channels: of this model.
        is_repaired: layers will be refitted; without, the damage is that of the gap alone.
        saved: where damages are kept.
        tell: is told how much is done, 0 to 1.
    """
    trial = _Trial(proto, channels, some(batches), is_repaired)
    fits = fits_of(proto, blocks, trial.fitting, threads=1)
    numbers = {block: f"{number:04d}" for number, block in enumerate(blocks)}
    kept = {b: piece for b, name in numbers.items() if (piece := saved.get(name)) is not None}
    found = {block: piece["damages"] for block, piece in kept.items()}
    rest = [block for block in blocks if block not in kept]

    def damages(halt: tuple[Block, Stepper]) -> tuple[Block, list[float | None]]:
        block, stepper = halt
        return block, [trial.damage(block, s, stepper) for s in _tried(fits[block]).values()]

    # where the walk halts is in the last bits, so it halts at blocks that are known as well
    halts = (halt for halt in trial.halts(blocks) if halt[0] not in kept) if rest else ()
    for done, (block, lost) in enumerate(in_order(damages, halts, workers), len(kept)):
        saved.put(numbers[block], {"damages": lost})
        found[block] = lost
        tell((done + 1) / len(blocks))
    made = {block: tuple(_ways(block, fits[block], found[block])) for block in blocks}
    return {block: ways for block, ways in made.items() if ways}


def _tried(fits: Fits) -> dict[Gone, StandIn]:
    """What could stand for a block, each closer to it than what takes less time."""
    found: dict[Gone, StandIn] = {}
    least = math.inf
    for becomes, fit in fits.of.items():
        if fit is not None and (not found or fit.error < WORTH_ITS_TIME * least):
            found[becomes], least = fit.standin, fit.error
    return found


def _ways(block: Block, fits: Fits, damages: Sequence[float | None]) -> Iterator[Way]:
    least = math.inf
    for (kind, standin), damage in zip(_tried(fits).items(), damages, strict=True):
        if damage is not None and damage < WORTH_ITS_TIME * least:
            yield Way(block, kind, standin, damage)
            least = damage


class _Trial:
    """One model whose blocks are taken out one at a time."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        channels: Channels,
        batches: Sequence[Batch],
        is_repaired: bool,
    ) -> None:
        self.proto, self.is_repaired = proto, is_repaired
        graph, shape = channels.model.graph, channels.instance.shape
        self.layers = list(find_layers(graph, shape))
        self.after: Mapping[str, tuple[After, ...]] = following(graph, self.layers, shape)
        self.pairs = find_pairs(graph, self.layers)
        self.reference = Stepper(proto, batches, threads=1).finish()
        self.batches = batches[: len(self.reference)]  # not all where inputs are large
        self.fitting = self.batches[: _fitted(len(self.batches))]
        self.made = {name: i for i, node in enumerate(proto.graph.node) for name in node.output}

    def halts(self, blocks: Sequence[Block]) -> Iterator[tuple[Block, Stepper]]:
        """Each block, and the model halted where it begins; in the order of the model."""
        stepper = Stepper(self.proto, self.batches, threads=1)
        for block in sorted(blocks, key=self._start):
            stepper.advance(self._start(block))
            yield block, stepper.halted()

    def _start(self, block: Block) -> int:
        return min(self.made[name] for name in block.nodes)

    def damage(self, block: Block, standin: StandIn, halt: Stepper) -> float | None:
        """Change of the outputs without this block, on batches that only judge."""
        feeds = halt.frontier
        given = {name: type_of([feed[name] for feed in feeds]) for name in feeds[0]}
        outputs = [info.name for info in self.proto.graph.output]
        computed = [name for name in outputs if name not in given]
        tail = submodel(self.proto, computed, given)
        wanted = {info.name for info in tail.graph.input}
        held = [{n: v for n, v in feed.items() if n in wanted} for feed in feeds]
        cut = without(tail, {block: standin})
        fitted = _fitted(len(held))
        if self.is_repaired:
            layers = self._behind(block)
            chosen = {layer.node for layer in layers}
            pairs = {n: first for n, first in self.pairs.items() if n in chosen and first in layers}
            compensate(tail, cut, layers, self.after, {}, held[:fitted], pairs=pairs, threads=1)
        judged = range(fitted, len(held)) if fitted < len(held) else range(len(held))
        found = Stepper(cut, [held[i] for i in judged], threads=1).finish()
        reference = [{n: self.reference[i][n] for n in computed} for i in judged]
        return output_change(reference[: len(found)], found)

    def _behind(self, block: Block) -> list[Layer]:
        """The layers behind a gap, up to the first that feeds a sum."""
        place, found = self.made[block.exit], list[Layer]()
        for layer in self.layers:
            if self.made[layer.output] > place and not layer.inner:
                found.append(layer)
                if self.after[layer.output][0].shortcut or len(found) == MOST_FOLLOWING:
                    break
        return found


def _fitted(batches: int) -> int:
    """How many of so many batches are fitted to; the others only judge."""
    return batches - -(-batches // JUDGING) if batches > 1 else batches
