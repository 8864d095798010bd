"""The second stage of strategy `slr`: residual blocks go by the harm they do for what they save.

Li, Li and Meng (J. Real-Time Image Proc. 21:116, 2024) call it Start-up Latency Reduction. There
the model is trained again after each stage; here its layers are refitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.blocks import Block, lies_inside
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.removal import without

SHARES = (0.25, 0.5, 0.75)
"""What channels may be cut first, as shares of the way from the whole cost to the target. The paper
names no split; which of these leaves least error is measured (`contest.py`)."""

HALF = 0.5


def first_target(whole: float, target: float, share: float = HALF) -> float:
    """What channels alone are cut to: so much of the way, in steps that leave equal shares."""
    return float(whole ** (1 - share) * target**share)


def blocks_in_order(
    proto: onnx.ModelProto,
    ways: Mapping[Block, Sequence[Way]],
    meter: Meter,
    target: float,
    reach: Callable[[Sequence[Way]], float] = lambda taken: 0.0,
) -> tuple[Way, ...]:
    """The blocks to do without while the model costs no less than it may, so that channels meet it.

    One that would save too much is passed over: a later one may fit. Where channels could not meet
    the target then, further blocks go, in the same order, until they can.

    Args:
        reach: what the model costs without some blocks and with channels cut as far as they go.
    """
    whole = meter.of(proto)
    rated: list[tuple[float, int, Way]] = []
    for way in (way for each in ways.values() for way in each if way.kind == "removed"):
        saved = whole - meter.of(without(proto, {way.block: way.standin}))
        if saved > 0:
            rated.append((way.damage / saved, len(rated), way))
    order = [way for _, _, way in sorted(rated, key=lambda item: item[:2])]
    taken: list[Way] = []
    for way in order:
        tried = [*taken, way]
        if any(_overlap(way.block, other.block) for other in taken):
            continue
        if meter.of(without(proto, {w.block: w.standin for w in tried})) >= target:
            taken = tried
    for way in order:
        if (now := reach(taken)) <= target:
            break
        if any(lies_inside(way.block, other.block) for other in taken):
            continue
        tried = [*(w for w in taken if not _overlap(w.block, way.block)), way]
        if reach(tried) < now:
            taken = tried
    return tuple(taken)


def _overlap(one: Block, other: Block) -> bool:
    """They are the same, or one lies inside of the other."""
    return one is other or lies_inside(one, other) or lies_inside(other, one)
