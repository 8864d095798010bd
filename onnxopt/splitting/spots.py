"""Which cuts to measure: those that may be the best ones on machines that are not known yet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.splitting.boundary import before
from onnxopt.splitting.candidates import Candidates, Coding, Ints, candidates
from onnxopt.splitting.context import Box, Context
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.enumeration import Cuts, enumerate_cuts
from onnxopt.splitting.envelope import by_device, survivors
from onnxopt.splitting.plan_file import Plan

MACS_PER_S = 2e10
BYTES_PER_S = 5e9
OPERATOR_S = 3e-6
"""What a machine is taken to do where nothing was measured: only ratios count."""

BOX = Box(Context(1e6, 0.0, 1.0, 0.02), Context(1e10, 0.0, 1.0, 1.0))
"""Links of 1 Mbit/s to 10 Gbit/s, and an edge that is up to fifty times as fast."""

SAMPLES = 400

FUSED = frozenset(("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh"))
FUSED |= frozenset(("BatchNormalization",))
LAYERS = frozenset(("Conv", "Gemm", "MatMul", "ConvTranspose"))
"""What follows one of these alone costs nothing, unless a cut lies between the two."""


def spots(cuts: Cuts, most: int) -> tuple[int, ...]:
    """At most so many cuts, from least to most on the device, none of them at an end.

    Times are taken from sizes alone, so that both machines measure the same ones. Of all cuts that
    are best for some speed of the link and of the edge, those that are best most often.
    """
    device = cuts.sums([_seconds(cuts.dag, v) for v in range(len(cuts.dag.operators))])
    sizes = [float(tensor.size_bytes) for tensor in cuts.dag.tensors]
    zeros = [0.0] * len(sizes)
    whole = device[cuts.whole]
    apart = [_seconds_alone(cuts.dag, t) for t in range(len(sizes))]
    found = candidates(cuts, [Coding("none", sizes, zeros, apart)], device, whole - device)
    inner = np.flatnonzero((found.cut != 0) & (found.cut != cuts.whole))
    if not len(inner):
        return ()
    best = survivors(found, BOX, inner)
    draw = np.random.default_rng(0)
    rates = 10 ** draw.uniform(6, 10, SAMPLES)
    loads = 0.02 ** draw.uniform(0, 1, SAMPLES)
    times = np.stack(
        [
            found.latency_s(Context(float(rate), 0.0, 1.0, float(load)))[best]
            for rate, load in zip(rates, loads, strict=True)
        ]
    )
    wins = np.bincount(times.argmin(axis=1), minlength=len(best))
    ranked = sorted(range(len(best)), key=lambda place: (-wins[place], place))[:most]
    chosen = _filled(found, inner, [int(best[place]) for place in ranked], most)
    return tuple(int(found.cut[i]) for i in by_device(found, chosen))


def _filled(found: Candidates, inner: Ints, chosen: list[int], most: int) -> list[int]:
    """More cuts, so that none lies far from what is measured: those with least to send.

    Each time one from the middle half of the longest stretch of work without any.
    """
    closed: set[tuple[float, float]] = set()
    whole = float(found.device_s.max())
    while len(chosen) < most:
        places = sorted({0.0, whole, *(float(found.device_s[i]) for i in chosen)})
        gaps = [gap for gap in pairwise(places) if gap not in closed]
        if not gaps:
            break
        low, high = max(gaps, key=lambda gap: (gap[1] - gap[0], gap))
        middle, quarter = (low + high) / 2, (high - low) / 4
        near = [int(i) for i in inner if abs(found.device_s[i] - middle) <= quarter]
        near = [i for i in near if i not in chosen]
        if not near:
            closed.add((low, high))
            continue
        chosen.append(min(near, key=lambda i: (found.sent[i], abs(found.device_s[i] - middle), i)))
    return chosen


def _seconds(dag: Dag, number: int) -> float:
    operator = dag.operators[number]
    if len(operator.reads) == 1 and _is_fused(dag, operator.reads[0]):
        return 0.0
    return _alone(dag, number)


def _seconds_alone(dag: Dag, tensor: int) -> float:
    """What its reader costs where it is fused with the producer of this tensor no more."""
    return _alone(dag, dag.tensors[tensor].readers[0]) if _is_fused(dag, tensor) else 0.0


def _is_fused(dag: Dag, number: int) -> bool:
    tensor = dag.tensors[number]
    if tensor.producer is None or len(tensor.readers) != 1 or tensor.is_output:
        return False
    reader = dag.operators[tensor.readers[0]]
    made_by = dag.operators[tensor.producer]
    return reader.op in FUSED and made_by.op in (LAYERS | FUSED)


def _alone(dag: Dag, number: int) -> float:
    operator = dag.operators[number]
    moved = sum(dag.tensors[t].size_bytes for t in (*operator.reads, *operator.makes))
    moved += sum(dag.weight_bytes[weight] for weight in operator.weights)
    return OPERATOR_S + operator.macs / MACS_PER_S + moved / BYTES_PER_S


def spots_of(cuts: Cuts, plan: Plan, digest: str, most: int) -> tuple[Cuts, tuple[int, ...]]:
    """The cuts that a plan exports, then the next best ones; filled up with those of `spots`.

    Returns:
        all cuts, those of the plan among them, and the numbers of at most `most` of these.

    Raises:
        UsageError: the plan is for another model.
    """
    if plan.model != digest:
        raise UsageError(
            "the plan is for another model: its hash is not that of this file",
            "plan again with `onnxopt split plan`",
        )
    place = {tensor.name: number for number, tensor in enumerate(cuts.dag.tensors)}
    wanted = []
    for cut in (*plan.cuts, *plan.best):
        names = [place[name] for name in (*cut.tensors, *cut.outputs)]
        producers = (cuts.dag.tensors[number].producer for number in names)
        device = before(cuts.dag, (p for p in producers if p is not None))
        wanted.append(sum(1 << operator for operator in device))
    every = enumerate_cuts(cuts.dag, most=cuts.most, more=wanted)
    planned = [every.device.index(device) for device in wanted]
    order = dict.fromkeys((*planned, *spots(every, most)))
    inner = [cut for cut in order if cut not in (0, every.whole)][:most]
    return every, tuple(sorted(inner, key=lambda cut: (every.device[cut].bit_count(), cut)))
