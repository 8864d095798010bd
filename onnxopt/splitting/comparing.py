"""Run segments beside the whole model: do they equal it, and what do their codecs change?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.runtime import DEFAULT_THREADS, Session
from onnxopt.signature import model_outputs
from onnxopt.splitting.coded import Coded, codec_error
from onnxopt.splitting.proof import OPTIMIZED_TOLERANCE, Explanation, Proof
from onnxopt.splitting.rows import Row, relative_error
from onnxopt.splitting.surviving import check_survives
from onnxopt.verification.difference import first_difference
from onnxopt.verification.reference import Reference
from onnxopt.verification.userdata import UserData, load_user_data
from onnxopt.verification.verdict import Verdict
from onnxopt.verification.verify import Verifier

Progress = Callable[[str, float], None]

AS_THE_WHOLE = 2.0
"""Where the optimizations move the halves at most so many times as far as they move the whole, that
is what makes the difference: both are off then, to different sides."""

MOST_FEEDS = 5
"""Draws that codecs and optimized halves are run on; halves without either run on all."""


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
        tolerance: float | None = None,
    ) -> Proof:
        """Compare segments with the whole model.

        Args:
            segments: without codecs.
            coded: cuts with a codec, to measure its error.
            joined: makes the model that the segments come to, to look for the first difference.
            tolerance: the error that is accepted; see `Proof`.
        """
        row = Row(segments, optimized=False)
        exact = self._verifier.check_run(row.run, "exact")
        proof = Proof(exact, is_half=self._verifier.traits.is_half, tolerance=tolerance)
        if proof.is_half and (not exact.passed or exact.worst_absolute):
            proof = replace(proof, plain=self._plain(row))
        if proof.reason and proof.needed is None:
            return replace(proof, first=self._first(exact, joined))
        proof = self._judge_optimized(segments, proof)
        errors = {item.number: self._codec_error(item) for item in coded} if proof.passed else {}
        untold = [number for number, error in errors.items() if not isfinite(error)]
        told = {number: error for number, error in errors.items() if number not in untold}
        notes = (*_shown(proof), *self._codec_notes(untold, bool(told)))
        return replace(proof, errors=told, notes=notes)

    def _codec_notes(self, untold: Sequence[int], told: bool) -> Iterator[str]:
        """On what errors of codecs were measured, and which could not be."""
        for number in untold:
            yield (
                f"the codec of cut {number} changes the shape of an output, makes it no number or "
                "keeps it from being made, so its error cannot be told"
            )
        if told:
            on = "drawn inputs" if self._data is None else "samples"
            listed = "; ".join(self.feeds[index] for index in self._some(samples=True))
            yield f"errors of codecs were measured on {on}: {listed}"
            if self._data is None:
                yield "on your own samples errors of codecs are others: give some"

    def _plain(self, row: Row) -> float:
        """Largest relative error without optimizations, on all draws."""
        try:
            found = [row.run(feed.arrays) for feed in self._verifier.feeds]
        except OnnxoptError:
            return float("inf")
        return self._worst([self._verifier.outputs(i) for i in range(len(found))], found)

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

    @cached_property
    def _optimized(self) -> Reference | None:
        """The whole model with optimizations on, on a few of the inputs; None if it does not run.

        Raises:
            MeasureError: it crashes.
        """
        feeds = [self._verifier.feeds[index] for index in self._some()]
        check_survives(self._whole, (feed.arrays for feed in feeds), threads=DEFAULT_THREADS)
        try:
            reference = Reference(self._whole, Session(self._whole, optimized=True), feeds)
            for index in range(len(feeds)):
                reference.outputs(index)
        except OnnxoptError:
            return None
        return reference

    def _judge_optimized(self, segments: Sequence[onnx.ModelProto], proof: Proof) -> Proof:
        """The proof with the errors that remain with optimizations on."""
        indices = self._some()
        feeds = [self._verifier.feeds[index] for index in indices]
        self._tell("comparing with optimizations on", 0.0)
        reference = self._optimized
        if reference is None:
            return proof
        wanted = [reference.outputs(index) for index in range(len(feeds))]
        try:
            row = Row(segments, optimized=True)
            found = [row.run(feed.arrays) for feed in feeds]
        except OnnxoptError as error:
            return replace(proof, unrun=error.what)
        worst = self._worst(wanted, found)
        allowed = OPTIMIZED_TOLERANCE if proof.tolerance is None else proof.tolerance
        if worst <= min(allowed, OPTIMIZED_TOLERANCE):
            return replace(proof, optimized=worst)
        itself = self._worst([self._verifier.outputs(index) for index in indices], wanted)
        explained: Explanation = ""
        if worst <= AS_THE_WHOLE * itself:
            explained = "whole"
        elif all(
            difference.passes
            for index, values in enumerate(found)
            for difference in reference.compare(index, values, "rounding", []).values()
        ):
            explained = "rounding"
        return replace(proof, optimized=worst, itself=itself, explained=explained)

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


def _shown(proof: Proof) -> Iterator[str]:
    """What the comparison without codecs showed, in sentences."""
    if proof.plain:
        yield f"largest relative error with optimizations off: {proof.plain:.2g}"
    elif proof.exact.passed:
        yield f"halves equal the whole: {proof.exact.summary()}, optimizations off"
    yield from proof.exact.unverified
    if proof.optimized is None:
        yield "with ONNX Runtime's optimizations on it was not compared: the whole does not run so"
    else:
        yield f"largest relative error with optimizations on: {proof.optimized:.2g}"
    if proof.is_accepted:
        yield f"accepted up to {proof.tolerance:.2g}, as was asked for: {proof.diagnosis}"
