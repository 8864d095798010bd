"""The second stage of strategy `slr`: residual blocks go by the harm they do for what they save.

Li, Li and Meng (J. Real-Time Image Proc. 21:116, 2024) call it Start-up Latency Reduction. There
the model is trained again after each stage; here its layers are refitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.blocks import Block, lies_inside
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.removal import without


def first_target(whole: float, target: float) -> float:
    """What channels alone are cut to: half of the way, as shares of what is left."""
    return float((whole * target) ** 0.5)


def blocks_in_order(
    proto: onnx.ModelProto, ways: Mapping[Block, Sequence[Way]], meter: Meter, target: float
) -> tuple[Way, ...]:
    """The blocks to remove while the model costs no less than it may, so that channels can meet it.

    One that would save too much is passed over: a later one may fit.
    """
    whole = meter.of(proto)
    rated = []
    for number, found in enumerate(ways.values()):
        way = found[0]
        saved = whole - meter.of(without(proto, {way.block: way.standin}))
        if way.kind == "removed" and saved > 0:
            rated.append((way.damage / saved, number, way))
    taken: list[Way] = []
    for _, _, way in sorted(rated, key=lambda item: item[:2]):
        if any(_overlap(way.block, other.block) for other in taken):
            continue
        tried = [*taken, way]
        if meter.of(without(proto, {w.block: w.standin for w in tried})) >= target:
            taken = tried
    return tuple(taken)


def _overlap(one: Block, other: Block) -> bool:
    """One lies inside of the other."""
    return lies_inside(one, other) or lies_inside(other, one)
