"""Cuts of blocks that have too many to list: all that are best somewhere, found by flows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from onnxopt.splitting.candidates import Coding, Powers, back_bytes
from onnxopt.splitting.choosing import Task
from onnxopt.splitting.context import Box, Context
from onnxopt.splitting.enumeration import Cuts, enumerate_cuts
from onnxopt.splitting.flow import Prices, cheapest
from onnxopt.splitting.growing import bits

SHARES = tuple(
    (a / 4, b / 4, (4 - a - b) / 4) for a, b in product(range(5), repeat=2) if a + b <= 4
)
"""How device, wire and edge are weighed where the slowest of the three counts."""

PENALTIES = tuple(2.0**power for power in range(-6, 7))
"""How dear weights on the device are where they have a budget, by what the objective is."""


@dataclass(frozen=True)
class Sums:
    """Seconds of each operator on both sides."""

    device_s: Sequence[float]
    edge_s: Sequence[float]


def explore(cuts: Cuts, sums: Sums, codings: Sequence[Coding], task: Task, box: Box | None) -> Cuts:
    """The same cuts, and in blocks that are not complete those that flows find.

    For each codec these are: the best one in the conditions of the task, by its objective; with a
    budget for memory also those that are best where weights cost something; and all that are best
    for some bandwidth in the box, at both ends of the other conditions.
    """
    blocks = [block for block in cuts.blocks if not block.is_complete]
    if not blocks:
        return cuts
    found: dict[int, None] = {}
    for block, coding in product(blocks, codings):
        pricing = _Pricing(cuts, sums, coding)

        best = partial(cheapest, cuts.dag, block)
        for prices in pricing.of_task(task):
            found[best(prices)] = None
        for low, high in _edges(box):
            for cut in _sweep(pricing, best, low, high):
                found[cut] = None
    large = frozenset(block.first for block in blocks)
    return enumerate_cuts(cuts.dag, most=cuts.most, more=found, large=large)


def _edges(box: Box | None) -> list[tuple[Context, Context]]:
    """The least and the most bandwidth, at each end of the other conditions."""
    if box is None:
        return []
    ends = sorted({box.least.bandwidth_bits, box.most.bandwidth_bits})
    others = dict.fromkeys(replace(corner, bandwidth_bits=ends[0]) for corner in box.corners())
    return [(low, replace(low, bandwidth_bits=ends[-1])) for low in others]


@dataclass(frozen=True)
class _Pricing:
    """Prices of cuts with one codec."""

    cuts: Cuts
    sums: Sums
    coding: Coding

    def latency(self, context: Context) -> Prices:
        powers = Powers(1.0, 1.0, 1.0)
        return self._weighed(context, powers)

    def of_task(self, task: Task) -> list[Prices]:
        """The prices whose cheapest cut may be the best one of a task."""
        if task.objective == "energy":
            assert task.powers is not None
            first = [self._weighed(task.context, task.powers)]
        elif task.objective == "throughput":
            context = replace(task.context, rtt_s=0.0)
            first = [self._weighed(context, Powers(*shares)) for shares in SHARES]
        else:
            first = [self.latency(task.context)]
        if task.budgets.weight_bytes is None and task.budgets.memory_bytes is None:
            return first
        return first + [self._heavier(prices, by) for prices in first for by in PENALTIES]

    def _weighed(self, context: Context, powers: Powers) -> Prices:
        """Seconds on the device, on the wire and at the edge, each with its weight."""
        device, wire = powers.compute_w * context.device_load, powers.radio_w
        edge, back = powers.idle_w * context.edge_load, back_bytes(self.cuts)
        wire_s = wire * context.seconds_per_byte
        coding = self.coding
        return Prices(
            [device * s for s in self.sums.device_s],
            [edge * s + wire_s * b for s, b in zip(self.sums.edge_s, back, strict=True)],
            [
                wire_s * size + device * encode + edge * decode
                for size, encode, decode in zip(
                    coding.sent_bytes, coding.encode_s, coding.decode_s, strict=True
                )
            ],
            powers.idle_w * context.rtt_s,
        )

    def _heavier(self, prices: Prices, by: float) -> Prices:
        """The same where each byte of weights on the device costs something, too."""
        dag = self.cuts.dag
        weights = [sum(dag.weight_bytes[w] for w in op.weights) for op in dag.operators]
        price = by * (sum(prices.device) + sum(prices.sent)) / max(1, sum(weights))
        device = [own + price * size for own, size in zip(prices.device, weights, strict=True)]
        return replace(prices, device=device)

    def cost(self, device: int, prices: Prices) -> float:
        """Of one cut, by its definition."""
        there = set(bits(device))
        count = len(self.cuts.dag.operators)
        return (
            sum(prices.device[v] if v in there else prices.edge[v] for v in range(count))
            + sum(prices.sent[t] for t in self.cuts.dag.crossing(there))
            + (prices.remote if len(there) < count else 0.0)
        )


def _sweep(
    pricing: _Pricing, best: Callable[[Prices], int], low: Context, high: Context
) -> list[int]:
    """All cuts of a block that are best for some bandwidth between two.

    The time of a cut is linear in 1 / bandwidth. Between two cuts that are best at two ends either
    some other one is better where they are equal, or none is best in between.
    """
    prices = [pricing.latency(context) for context in (low, high)]
    rates = [context.seconds_per_byte for context in (low, high)]
    ends = [best(each) for each in prices]
    found = dict.fromkeys(ends)
    waiting = [(ends[0], ends[1])] if rates[0] != rates[1] else []
    while waiting:
        left, right = waiting.pop()
        if left == right:
            continue
        costs = [[pricing.cost(cut, each) for each in prices] for cut in (left, right)]
        gain, loss = costs[1][0] - costs[0][0], costs[0][1] - costs[1][1]
        if gain + loss <= 0:
            continue
        share = gain / (gain + loss)
        rate = rates[0] + share * (rates[1] - rates[0])
        middle = pricing.latency(replace(low, bandwidth_bits=8 / rate))
        cut = best(middle)
        reached = pricing.cost(left, middle)
        if cut not in found and pricing.cost(cut, middle) < reached * (1 - 1e-9):
            found[cut] = None
            waiting += [(left, cut), (cut, right)]
    return list(found)
