"""What `split profile` does: run a model, and both sides of some cuts of it, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from onnxopt.kernels import named
from onnxopt.model import save
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Profile, Spread
from onnxopt.profiling.events import read_trace
from onnxopt.profiling.feeds import Array, drawn, input_shapes, read_feeds
from onnxopt.profiling.measure import Progress, measure
from onnxopt.profiling.sessions import Input, Measured
from onnxopt.profiling.spread import calmest, spread, undisturbed
from onnxopt.profiling.turns import Turn
from onnxopt.runtime import Session
from onnxopt.signature import Port as SignaturePort
from onnxopt.signature import model_inputs
from onnxopt.small_models import write_kit
from onnxopt.splitting.codecs import codec_models, coding
from onnxopt.splitting.enumeration import Cuts, names_of
from onnxopt.splitting.manifest import Codec, Port
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.profile_file import SCHEMA, CodecTimes, MeasuredCut, SplitProfile
from onnxopt.splitting.segments import cut_into_pieces

LARGEST_BYTES = 2**31
"""All sessions that are open at once may hold so much of weights: fewer cuts if need be."""

CODED_ELEMENTS = (1 << 10, 1 << 18)
"""Sizes of tensors that codecs are measured on."""

CODECS: tuple[Codec, ...] = ("fp16", "uint8")

FEW_ROUNDS = 20
"""The model as it is in the file is watched in so many rounds."""


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
        MeasureError: ONNX Runtime does not load or run it, or a part of it.
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
        bench = _Sides(subject, Path(temporary), asked)
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


@dataclass(frozen=True)
class _Side:
    """A model that takes turns: it runs once, so that it is in the caches, and then is timed."""

    warm_up: Turn
    timed: Turn

    @property
    def turns(self) -> tuple[Turn, Turn]:
        return self.warm_up, self.timed

    def spread_us(self, threads: int) -> Spread:
        """Microseconds of its runs, without those that others disturbed."""
        runs = calmest(self.timed.runs) if threads == 1 else self.timed.runs
        return spread([1e6 * run.wall for run in runs])


@dataclass(frozen=True)
class _Alone:
    """The model as it is in the file, watched by ONNX Runtime's profiler."""

    session: Measured
    turn: Turn

    def seen(self, nodes: Sequence[str], clock_us: float) -> tuple[float, ...]:
        """Microseconds of each node; 0 for those that are no kernels."""
        found = {
            entry.kernel.name: max(0.0, undisturbed(entry.times_us) - clock_us)
            for entry in read_trace(self.session.end_trace())
        }
        return tuple(found.get(name, 0.0) for name in nodes)


class _Sides:
    """Makes sessions of a model and of what it is cut into."""

    def __init__(self, subject: Subject, folder: Path, asked: Asked) -> None:
        self._subject, self._folder, self._asked = subject, folder, asked
        inputs = [Input(p.name, _type_of(p), p.dims or ()) for p in model_inputs(subject.proto)]
        if asked.inputs is None:
            self.shapes = input_shapes(inputs, asked.shapes, asked.batch)
            self._feeds = drawn(inputs, self.shapes)
        else:
            self._feeds = read_feeds(asked.inputs, inputs)
            self.shapes = {name: array.shape for name, array in self._feeds.items()}
        self.kit = folder / "kit"
        write_kit(subject.proto, self.kit, source="", shapes=self.shapes, layers=False)

    def _side(self, proto: onnx.ModelProto, name: str, feeds: Mapping[str, Array]) -> _Side:
        file = self._folder / f"{name}.onnx"
        save(proto, file)
        session = Measured(file, threads=self._asked.threads, provider=self._asked.provider)
        session.run(feeds)
        run = partial(session.run, feeds)
        return _Side(Turn(run), Turn(run, repeats=0))

    def pair(self, cuts: Cuts, cut: int) -> tuple[_Side, _Side]:
        """Both sides of a cut that has something on each."""
        prefix, suffix = cut_into_pieces(self._subject, [frozenset(cuts.operators(cut))])
        feeds = {name: self._feeds[name] for name in prefix.reads if name in self._feeds}
        made = Session(prefix.proto, optimized=True).run(feeds)
        known = {**self._feeds, **made}
        behind = {name: known[name] for name in suffix.reads}
        return (
            self._side(prefix.proto, f"prefix{cut}", feeds),
            self._side(suffix.proto, f"suffix{cut}", behind),
        )

    def coder(self, codec: Codec, elements: int) -> tuple[_Side, _Side]:
        """Encoder and decoder of one tensor of this size."""
        port = Port("x", "float32", (1, elements), 4 * elements)
        encoder, decoder = codec_models(coding([port], codec, frozenset({"x"})))
        feeds = {"x": np.random.default_rng(0).standard_normal((1, elements), np.float32)}
        made = Session(encoder).run(feeds)
        name = f"{codec}{elements}"
        return (
            self._side(encoder, f"encode_{name}", feeds),
            self._side(decoder, f"decode_{name}", made),
        )

    def alone(self) -> _Alone:
        """The model without what ONNX Runtime would make of it."""
        session = Measured(
            self.kit / "model.onnx",
            threads=self._asked.threads,
            provider=self._asked.provider,
            trace=self._folder / "alone",
            rewritten=False,
        )
        session.run(self._feeds)
        return _Alone(session, Turn(partial(session.run, self._feeds), 2, rounds=FEW_ROUNDS))


def _type_of(port: SignaturePort) -> str:
    """As ONNX Runtime names it."""
    names = {"float32": "float", "float64": "double"}
    return f"tensor({names.get(port.dtype.name, port.dtype.name)})"


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


def _codec_times(codec: Codec, sizes: Sequence[tuple[_Side, _Side]], threads: int) -> CodecTimes:
    """A line through both sizes, for encoding and decoding."""
    low, high = (4 * elements / 1e6 for elements in CODED_ELEMENTS)
    lines = []
    for side in (0, 1):
        small, large = (pair[side].spread_us(threads).median for pair in sizes)
        slope = max(0.0, (large - small) / (high - low))
        lines += [max(0.0, small - slope * low), slope]
    return CodecTimes(codec, *lines)
