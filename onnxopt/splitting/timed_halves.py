"""A model and what it is cut into, as sessions that take turns with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from onnxopt.model import save
from onnxopt.profiling.bench import WARM_UP_S, Asked
from onnxopt.profiling.document import Spread
from onnxopt.profiling.events import read_trace
from onnxopt.profiling.feeds import Array, drawn, input_shapes, read_feeds
from onnxopt.profiling.sessions import Input, Measured
from onnxopt.profiling.spread import calmest, spread, undisturbed
from onnxopt.profiling.turns import Turn
from onnxopt.runtime import Session
from onnxopt.signature import Port as SignaturePort
from onnxopt.signature import model_inputs
from onnxopt.small_models import write_kit
from onnxopt.splitting.codecs import codec_models, coding
from onnxopt.splitting.enumeration import Cuts
from onnxopt.splitting.manifest import Codec, Port
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.segments import cut_into_pieces
from onnxopt.splitting.surviving import check_survives

FEW_ROUNDS = 20
"""The model as it is in the file is watched in so many rounds."""


@dataclass(frozen=True)
class TimedModel:
    """A model that takes turns: it runs for a while, as the whole model does, and then is timed."""

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
class WatchedModel:
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


class Halves:
    """Makes sessions of a model and of what it is cut into.

    Raises:
        UsageError: shapes or inputs do not fit the model.
        BadModelError, UnverifiableError: ONNX Runtime does not load the model.
        MeasureError: it crashes when it runs it.
    """

    def __init__(self, subject: Subject, folder: Path, asked: Asked) -> None:
        Session(subject.proto, optimized=True)  # or a half of it would be told to be wrong
        self._subject, self._folder, self._asked = subject, folder, asked
        inputs = [Input(p.name, _type_of(p), p.dims or ()) for p in model_inputs(subject.proto)]
        if asked.inputs is None:
            self.shapes = input_shapes(inputs, asked.shapes, asked.batch)
            self._feeds = drawn(inputs, self.shapes)
        else:
            self._feeds = read_feeds(asked.inputs, inputs)
            self.shapes = {name: array.shape for name, array in self._feeds.items()}
        check_survives(subject.proto, [self._feeds], threads=asked.threads)
        self.kit = folder / "kit"
        write_kit(subject.proto, self.kit, source="", shapes=self.shapes, layers=False)

    def _side(self, proto: onnx.ModelProto, name: str, feeds: Mapping[str, Array]) -> TimedModel:
        file = self._folder / f"{name}.onnx"
        save(proto, file)
        session = Measured(file, threads=self._asked.threads, provider=self._asked.provider)
        session.run(feeds)
        run = partial(session.run, feeds)
        return TimedModel(Turn(run, repeats=0, shortest_s=WARM_UP_S), Turn(run, repeats=0))

    def pair(self, cuts: Cuts, cut: int) -> tuple[TimedModel, TimedModel]:
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

    def coder(self, codec: Codec, elements: int) -> tuple[TimedModel, TimedModel]:
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

    def alone(self) -> WatchedModel:
        """The model without what ONNX Runtime would make of it."""
        session = Measured(
            self.kit / "model.onnx",
            threads=self._asked.threads,
            provider=self._asked.provider,
            trace=self._folder / "alone",
            rewritten=False,
        )
        session.run(self._feeds)
        return WatchedModel(session, Turn(partial(session.run, self._feeds), 2, rounds=FEW_ROUNDS))


def _type_of(port: SignaturePort) -> str:
    """As ONNX Runtime names it."""
    names = {"float32": "float", "float64": "double"}
    return f"tensor({names.get(port.dtype.name, port.dtype.name)})"
