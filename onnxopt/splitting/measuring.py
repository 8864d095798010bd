"""What `split profile` does: run a model, and both sides of some cuts of it, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxopt.kernels import named
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Profile, Spread
from onnxopt.profiling.measure import Progress, measure
from onnxopt.splitting.enumeration import Cuts, names_of
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.profile_file import SCHEMA, CodecTimes, MeasuredCut, SplitProfile
from onnxopt.splitting.timed_halves import Halves, TimedModel

LARGEST_BYTES = 2**31
"""All sessions that are open at once may hold so much of weights: fewer cuts if need be."""

CODED_ELEMENTS = (1 << 10, 1 << 18)
"""Sizes of tensors that codecs are measured on."""

CODECS: tuple[Codec, ...] = ("fp16", "uint8")


def measure_split(
    subject: Subject,
    cuts: Cuts,
    measured: Sequence[int],
    asked: Asked,
    *,
    source: str = "",
    digest: str = "",
    progress: Progress = lambda stage, done: None,
) -> SplitProfile:
    """Measure a model on this machine as a whole, by nodes, and cut in two.

    Args:
        measured: numbers of cuts.
        digest: SHA-256 of the model.

    Raises:
        UsageError: shapes or inputs do not fit the model.
        BadModelError, UnverifiableError: ONNX Runtime does not load it.
        MeasureError: it does not run it, or a part of it.
    """
    notes = []
    room = max(1, LARGEST_BYTES // max(1, 2 * sum(subject.dag.weight_bytes)))
    if len(measured) > room:
        notes.append(
            f"of {len(measured)} cuts {room} were measured: more would take too much memory"
        )
        measured = [measured[round(i)] for i in np.linspace(0, len(measured) - 1, room)]
    with tempfile.TemporaryDirectory(prefix="onnxopt-split-") as temporary:
        progress("cutting", 0.0)
        bench = Halves(subject, Path(temporary), asked)
        pairs = [bench.pair(cuts, cut) for cut in measured]
        coders = [bench.coder(codec, count) for codec in CODECS for count in CODED_ELEMENTS]
        alone = bench.alone()
        timed = [*(side for pair in pairs for side in pair), *(s for c in coders for s in c)]
        profile = measure(
            bench.kit,
            replace(asked, shapes={} if asked.inputs is not None else bench.shapes, batch=None),
            source=source,
            progress=progress,
            beside=[*(turn for side in timed for turn in side.turns), alone.turn],
        )
        nodes = [node.name for node in named(subject.proto).graph.node]
        unfused = alone.seen(nodes, profile.overhead.clock_us)
    fused, placed = _by_node(profile, nodes, unfused)
    steady = profile.steady_ms
    return SplitProfile(
        SCHEMA,
        source,
        digest,
        profile.machine,
        profile.settings,
        profile.noise,
        Spread(1000 * steady.median, 1000 * steady.low, 1000 * steady.high, steady.count),
        profile.overhead.run_us,
        fused,
        unfused,
        _kernels(profile, nodes),
        placed,
        tuple(
            MeasuredCut(*names_of(cuts, cut), *(side.spread_us(asked.threads) for side in pair))
            for cut, pair in zip(measured, pairs, strict=True)
        ),
        tuple(
            _codec_times(codec, coders[2 * place : 2 * place + 2], asked.threads)
            for place, codec in enumerate(CODECS)
        ),
        (*profile.notes, *notes),
    )


def _by_node(
    profile: Profile, nodes: Sequence[str], unfused: Sequence[float]
) -> tuple[tuple[float, ...], float]:
    """What kernels take, shared out among their nodes; and the share of those with nodes."""
    place = {name: number for number, name in enumerate(nodes)}
    found = [0.0] * len(nodes)
    rest = 0.0
    for kernel in profile.kernels:
        owners = [place[name] for name in kernel.nodes if name in place]
        total = sum(unfused[owner] for owner in owners)
        for owner in owners:
            share = unfused[owner] / total if total else 1 / len(owners)
            found[owner] += kernel.us * share
        rest += 0.0 if owners else kernel.us
    known = sum(found)
    if known:
        return tuple(us * (1 + rest / known) for us in found), known / (known + rest)
    total = sum(unfused) or 1.0
    return tuple(rest * us / total for us in unfused), 0.0


def _kernels(profile: Profile, nodes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The nodes of each kernel that does the work of several."""
    place = {name: number for number, name in enumerate(nodes)}
    groups = (sorted(place[n] for n in kernel.nodes if n in place) for kernel in profile.kernels)
    return tuple(tuple(group) for group in groups if len(group) > 1)


def _codec_times(
    codec: Codec, sizes: Sequence[tuple[TimedModel, TimedModel]], threads: int
) -> CodecTimes:
    """A line through both sizes, for encoding and decoding."""
    low, high = (4 * elements / 1e6 for elements in CODED_ELEMENTS)
    lines = []
    for side in (0, 1):
        small, large = (pair[side].spread_us(threads).median for pair in sizes)
        slope = max(0.0, (large - small) / (high - low))
        lines += [max(0.0, small - slope * low), slope]
    return CodecTimes(codec, *lines)
