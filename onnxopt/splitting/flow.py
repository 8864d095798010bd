"""The best cut of a block that has too many to list: an exact minimum cut of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxopt.mincut import INFINITE, SINK, SOURCE, Network
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.enumeration import Block

PRECISION = 2**50
"""Costs are rounded to this part of all costs together."""

ILLEGAL = INFINITE // 2**20
"""What a tensor costs that cannot be sent, there or back: less than what is not a cut at all."""


@dataclass(frozen=True)
class Prices:
    """What a cut costs, as a sum; all in one unit.

    Attributes:
        device, edge: of each operator there. What an output costs to come back counts as `edge`.
        sent: of each tensor that crosses, however many read it.
        remote: once, as soon as anything runs at the edge.
    """

    device: Sequence[float]
    edge: Sequence[float]
    sent: Sequence[float]
    remote: float


def cheapest(dag: Dag, block: Block, prices: Prices) -> int:
    """The cheapest legal cut through a block: all before it on the device, all behind at the edge.

    Points on the side of SOURCE are on the device. Each tensor has a point of its own, so that
    several readers pay once; a reader on the device has its producer there.

    Returns:
        the operators on the device, as bits. Where no cut of the block is legal, any.
    """
    total = sum(prices.device) + sum(prices.edge) + sum(prices.sent) + prices.remote
    scale = PRECISION / (total or 1.0)
    network = Network()
    points = {v: network.point() for v in range(block.first, block.last)}
    remote = network.point() if block.last == len(dag.operators) else None
    if remote is not None:
        network.edge(SOURCE, remote, round(prices.remote * scale))
    stuck = {tensor.producer for tensor in dag.stuck}
    for v, point in points.items():
        network.edge(point, SINK, round(prices.device[v] * scale))
        illegal = ILLEGAL if v in stuck else 0
        network.edge(SOURCE, point, illegal + round(prices.edge[v] * scale))
        if remote is not None:
            network.edge(remote, point, INFINITE)
    for number, tensor in enumerate(dag.tensors):
        readers = [reader for reader in tensor.readers if reader >= block.first]
        behind = any(reader >= block.last for reader in readers)
        producer = tensor.producer
        if not readers or (producer is not None and producer >= block.last):
            continue
        start = SOURCE if producer is None or producer < block.first else points[producer]
        if start == SOURCE and behind:  # it crosses anyway
            continue
        sent = network.point()
        illegal = ILLEGAL if tensor.why_not else 0
        network.edge(start, sent, illegal + round(prices.sent[number] * scale))
        for reader in readers:
            end = points.get(reader, SINK)
            network.edge(sent, end, INFINITE)
            if end != SINK and start != SOURCE:
                network.edge(end, start, INFINITE)
    at_edge = network.say_yes()
    inside = sum(1 << v for v, point in points.items() if point not in at_edge)
    return (1 << block.first) - 1 | inside
