"""What a model costs less without some residual blocks, at any widths of its groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from onnxopt.graph import Constant, Node
from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.blocks import Block
from onnxopt.pruning.by_widths import CostByWidths
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.removal import without
from onnxopt.pruning.results import BlockChoice, BlockView


class Savings:
    """The cost of one model, and what is saved of it by doing without blocks.

    Attributes:
        cost: by the widths of its groups, up to a constant.
        full: the present widths.
        whole: what it costs at these.
    """

    def __init__(self, channels: Channels, meter: Meter) -> None:
        self.channels, self.meter = channels, meter
        self.cost = meter.by_widths(channels, channels.groups)
        self.full = [len(group.units) for group in channels.groups]
        self.whole = meter.of(channels.proto)
        self._known: dict[object, float] = {}
        self._owners: dict[Block, frozenset[str]] = {}

    def left(self, gone: Iterable[Way]) -> CostByWidths:
        """What the layers cost that are in none of these blocks."""
        owners = frozenset(name for way in gone for name in self.owners(way.block))
        return self.cost.without(owners) if owners else self.cost

    def constant(self, gone: Iterable[Way]) -> float:
        """What the model costs without these blocks beside `left`."""
        return self.whole - self.cost.total(self.full) + sum(self.extra(way) for way in gone)

    def layers(self, block: Block) -> float:
        """What the layers of a block cost at the present widths."""
        return sum(self._each.get(name, 0.0) for name in self.owners(block))

    def saved(self, way: Way) -> float:
        """What one block saves at the present widths."""
        return self.layers(way.block) - self.extra(way)

    def extra(self, way: Way) -> float:
        """What the model costs more this way than it does less the layers of the block.

        A map takes time; below zero where operators beside the layers go too. It is found at the
        present widths, once for blocks that are alike.
        """
        key = (way.kind, self._likeness(way.block))
        if key not in self._known:
            left = self.meter.of(without(self.channels.proto, {way.block: way.standin}))
            self._known[key] = left - (self.whole - self.layers(way.block))
        return self._known[key]

    def owners(self, block: Block) -> frozenset[str]:
        """The nodes of a block, and the weights that only they read."""
        if block not in self._owners:
            nodes = frozenset(block.nodes)
            weights = {name for name, readers in self._readers.items() if readers <= nodes}
            self._owners[block] = nodes | weights
        return self._owners[block]

    def _likeness(self, block: Block) -> object:
        """What blocks have in common that cost the same: operators, and shapes of weights."""
        found = []
        for name in block.nodes:
            if name in self._nodes:
                node = self._nodes[name]
                dims = tuple(v.dims for v in node.reads() if isinstance(v, Constant))
                found.append((node.op, dims))
        return block.shape, tuple(found)

    @cached_property
    def _each(self) -> dict[str, float]:
        return self.cost.by_owner(self.full)

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        nodes = self.channels.model.graph.nodes
        return {value.name: node for node in nodes for value in node.outputs[:1]}

    @cached_property
    def _readers(self) -> dict[str, set[str]]:
        """For each weight the nodes that read it."""
        found: dict[str, set[str]] = {}
        for node in self.channels.model.graph.nodes:
            for value in node.reads():
                if isinstance(value, Constant):
                    found.setdefault(value.name, set()).add(node.outputs[0].name)
        return found


def block_choices(
    savings: Savings, ways: Mapping[Block, Sequence[Way]], gone: Collection[Way]
) -> tuple[BlockChoice, ...]:
    """All blocks that could go as a person sees them, and which of them do."""
    becomes = {way.block: way.kind for way in gone}
    found = []
    for block, each in ways.items():
        damages = {way.kind: way.damage for way in each}
        view = BlockView(
            name=block.name,
            kind=block.kind,
            share=savings.layers(block) / (savings.whole or 1.0),
            removed=damages.get("removed"),
            shifted=damages.get("shifted"),
            replaced=damages.get("replaced"),
        )
        found.append(BlockChoice(view, becomes.get(block)))
    return tuple(found)
