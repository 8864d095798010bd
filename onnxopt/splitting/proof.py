"""Prove that segments equal the whole model, and measure what codecs change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.runtime import Session
from onnxopt.signature import model_outputs
from onnxopt.splitting.coded import Coded, codec_error
from onnxopt.splitting.rows import Row, relative_error
from onnxopt.verification.difference import first_difference
from onnxopt.verification.reference import Reference
from onnxopt.verification.userdata import UserData, load_user_data
from onnxopt.verification.verdict import Verdict
from onnxopt.verification.verify import Verifier

Progress = Callable[[str, float], None]

OPTIMIZED_TOLERANCE = 1e-5
"""Largest error, relative to the largest element of an output, with ONNX Runtime's optimizations.
They fuse operators within a half, not across the cut, and so round at other places."""

AS_THE_WHOLE = 2.0
"""Optimizations may move the halves so many times as far from the whole as they move the whole:
both are off then, to different sides. Quantized models and those of 16-bit floats are like that."""

MOST_FEEDS = 5
"""Draws that codecs and optimized halves are run on; halves without either run on all."""


@dataclass(frozen=True)
class Proof:
    """How segments compare with the whole model.

    Attributes:
        exact: with ONNX Runtime's optimizations off, without codecs: bit for bit.
        optimized: largest relative error with them on; None where that was not run.
        within_noise: an error beyond `OPTIMIZED_TOLERANCE` is one that these optimizations, or
            rounding alone, make in the whole model as well.
        errors: for each cut with a codec the largest relative error that it causes; where that is
            no number, as an output has another shape, a note says so instead.
        first: the first tensor that differs, and how; empty if none does.
        notes: what was and what was not shown, in sentences.
    """

    exact: Verdict
    optimized: float | None = None
    within_noise: bool = False
    errors: Mapping[int, float] | None = None
    first: str = ""
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.exact.passed and (
            self.optimized is None or self.optimized <= OPTIMIZED_TOLERANCE or self.within_noise
        )


class Judge:
    """The whole model with inputs drawn for it, to compare segments with.

    Args:
        whole: the model. It must not be changed meanwhile.
        samples: samples of a user, as `--verify-data` reads them.

    Raises:
        BadModelError, UnverifiableError: ONNX Runtime does not run it.
        UsageError: the samples do not fit.
    """

    def __init__(
        self,
        whole: onnx.ModelProto,
        *,
        samples: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._tell = progress or (lambda stage, done: None)
        self._whole = whole
        self._data: UserData | None = None if samples is None else load_user_data(samples)
        self._verifier = Verifier(
            whole, user_data=self._data, progress=lambda line: self._tell(line, 0.0)
        )
        self._outputs = [port.name for port in model_outputs(whole)]
        self._optimized: Reference | None = None
        self._excuse = ""

    @property
    def feeds(self) -> tuple[str, ...]:
        return self._verifier.descriptions

    @property
    def comparable(self) -> tuple[str, ...]:
        """Outputs that are the same from run to run."""
        return tuple(n for n in self._outputs if n not in self._verifier.traits.random)

    def some_feeds(self) -> Iterator[dict[str, Any]]:
        """A few of the inputs: of a user's samples, if there are any."""
        for index in self._some(samples=True):
            yield self._verifier.feeds[index].arrays

    def judge(
        self,
        segments: Sequence[onnx.ModelProto],
        *,
        coded: Sequence[Coded] = (),
        joined: Callable[[], onnx.ModelProto] | None = None,
    ) -> Proof:
        """Compare segments with the whole model.

        Args:
            segments: without codecs.
            coded: cuts with a codec, to measure its error.
            joined: makes the model that the segments come to, to look for the first difference.
        """
        row = Row(segments, optimized=False)
        exact = self._verifier.check_run(row.run, "exact")
        if not exact.passed:
            return Proof(exact, first=self._first(exact, joined))
        notes = [f"halves equal the whole: {exact.summary()}, optimizations off"]
        notes += exact.unverified
        optimized, within = self._judge_optimized(segments)
        if optimized is None:
            notes.append("with ONNX Runtime's optimizations on it was not compared")
        else:
            notes.append(f"largest relative error with optimizations on: {optimized:.2g}")
        if within:
            notes.append(f"that is beyond {OPTIMIZED_TOLERANCE:.0e}: {self._excuse}")
        errors = {item.number: self._codec_error(item) for item in coded}
        for number in [number for number, error in errors.items() if not isfinite(error)]:
            del errors[number]
            notes.append(
                f"the codec of cut {number} changes the shape of an output, makes it no number or "
                "keeps it from being made, so its error cannot be told"
            )
        if errors:
            on = "drawn inputs" if self._data is None else "samples"
            listed = "; ".join(self.feeds[index] for index in self._some(samples=True))
            notes.append(f"errors of codecs were measured on {on}: {listed}")
            if self._data is None:
                notes.append("on your own samples errors of codecs are others: give some")
        return Proof(exact, optimized, within, errors, notes=tuple(notes))

    def _some(self, *, samples: bool = False) -> list[int]:
        """Numbers of a few draws of all sizes.

        Args:
            samples: of those of the user alone, if there are any.
        """
        indices = range(len(self.feeds))
        own = [index for index in indices if self.feeds[index].startswith("user data")]
        chosen = own if samples and own else [*indices]
        step = max(1.0, len(chosen) / MOST_FEEDS)
        return [chosen[int(n * step)] for n in range(min(MOST_FEEDS, len(chosen)))]

    def _judge_optimized(self, segments: Sequence[onnx.ModelProto]) -> tuple[float | None, bool]:
        """Largest relative error, and whether all that is beyond the tolerance is mere noise."""
        indices = self._some()
        feeds = [self._verifier.feeds[index] for index in indices]
        self._tell("comparing with optimizations on", 0.0)
        try:
            if self._optimized is None:
                self._optimized = Reference(
                    self._whole, Session(self._whole, optimized=True), feeds
                )
            row = Row(segments, optimized=True)
            found = [row.run(feed.arrays) for feed in feeds]
            wanted = [self._optimized.outputs(index) for index in range(len(feeds))]
        except OnnxoptError:
            return None, False
        worst = self._worst(wanted, found)
        if worst <= OPTIMIZED_TOLERANCE:
            return worst, False
        plain = [self._verifier.outputs(index) for index in indices]
        itself = self._worst(plain, wanted)
        if worst <= AS_THE_WHOLE * itself:
            self._excuse = (
                f"the optimizations change the outputs of the whole model by {itself:.2g}, too"
            )
            return worst, True
        self._excuse = "rounding alone makes as much of this model"
        return worst, all(
            difference.passes
            for index, values in enumerate(found)
            for difference in self._optimized.compare(index, values, "rounding", []).values()
        )

    def _worst(
        self, wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
    ) -> float:
        """Largest relative error in what is not random."""
        pairs = zip(wanted, found, strict=True)
        errors = (relative_error(a[n], b[n]) for a, b in pairs for n in self.comparable)
        return max(errors, default=0.0)

    def _codec_error(self, item: Coded) -> float:
        """Largest relative error in the outputs, on samples or drawn inputs."""
        self._tell(f"measuring the error of the codec at cut {item.number}", 0.0)
        return codec_error(
            item,
            (
                (self._verifier.feeds[index].arrays, self._verifier.outputs(index))
                for index in self._some(samples=True)
            ),
            self._verifier.traits.random,
        )

    def _first(self, verdict: Verdict, joined: Callable[[], onnx.ModelProto] | None) -> str:
        """The first tensor that differs, for a person."""
        failed = next((output.feed for output in verdict.outputs if not output.ok), "")
        if joined is not None:
            self._tell("looking for the first difference", 0.0)
            try:
                found = first_difference(self._whole, joined(), "exact", self._data, on=failed)
            except OnnxoptError:
                found = None
            if found is not None:
                return f"'{found.name}' is off by {found.worst_absolute:.3g}"
        bad = next((output for output in verdict.outputs if not output.ok), None)
        return verdict.reason if bad is None else f"'{bad.name}' differs in {bad.differs}"
