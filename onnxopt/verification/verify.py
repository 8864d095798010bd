"""Do two models compute the same? Draw inputs, run both, compare: the Verifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

from onnxopt.changes import Numerics
from onnxopt.errors import OnnxoptError
from onnxopt.runtime import Session
from onnxopt.signature import model_outputs
from onnxopt.verification.feeds import Feed, draws
from onnxopt.verification.reference import Reference
from onnxopt.verification.smooth import quantized_nodes, smooth_twin
from onnxopt.verification.traits import Traits, weaknesses
from onnxopt.verification.userdata import UserData
from onnxopt.verification.verdict import OutputError, Tally, Verdict

__all__ = ["OutputError", "Verdict", "Verifier", "verify"]

Progress = Callable[[str], None]
Adapter = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Run = Callable[[Mapping[str, Any]], dict[str, Any]]


class Verifier:
    """A reference model with inputs drawn for it and its outputs on them.

    Drawing runs the reference once for each draw; `check` may then be called for many candidates.

    Args:
        reference: the model that is right by definition. It must not be changed meanwhile.
        user_data: samples that the user gave (see `load_user_data`).
        progress: called with one line before each long step.

    Attributes:
        feeds: the inputs, each of which the reference ran with.
        unverified: what cannot be shown with this reference whatever the candidate.

    Raises:
        BadModelError: the reference is not valid.
        UnverifiableError: the reference does not load or run here.
        UsageError: the user's data does not fit the model.
    """

    def __init__(
        self,
        reference: onnx.ModelProto,
        *,
        user_data: UserData | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._progress = progress or (lambda line: None)
        self._proto = reference
        session = Session(reference)
        self._progress("drawing inputs and running the original")
        drawing = draws(reference, session, user_data)
        self.feeds: list[Feed] = drawing.feeds
        self._reference = Reference(reference, session, drawing.feeds, drawing.outputs)
        weak = weaknesses(self._reference.traits, drawing.outputs, bool(session.inputs))
        self.unverified: tuple[str, ...] = (*drawing.notes, *weak)
        self._twin: Reference | None = None
        self._twin_made = False
        self._first = 0

    def check(
        self, candidate: onnx.ModelProto, numerics: Numerics, *, adapt: Adapter | None = None
    ) -> Verdict:
        """Run a candidate on all draws and compare; stops at the first draw that fails.

        Args:
            numerics: "exact" bit for bit (0.0 equals -0.0, NaN equals NaN), "rounding" within the
                model's own floating-point noise, "lossy" names, types and shapes only.
            adapt: makes the candidate's inputs from the reference's, where the signature changed.
        """
        wanted = [port.name for port in self._reference.session.outputs]
        names = [port.name for port in model_outputs(candidate)]
        if names != wanted:
            return self._failed(numerics, f"its outputs are {names} instead of {wanted}")
        try:
            session = Session(candidate)
        except OnnxoptError as error:
            return self._failed(numerics, f"the result does not load: {error.what}")
        tally = Tally(numerics, wanted)

        def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
            return session.run(adapt(arrays) if adapt else arrays)

        rounded, failure = self._run_all(run, tally)
        if failure:
            return self._failed(numerics, failure)
        if numerics == "rounding" and rounded:
            self._check_twin(candidate, rounded, tally, adapt)
        return tally.verdict(self.descriptions, self.unverified)

    def check_run(self, run: Run, numerics: Numerics) -> Verdict:
        """Judge whatever makes outputs of inputs, on all draws; stops at the first that fails.

        Args:
            run: gives the outputs for the arrays of a draw, by name; may raise OnnxoptError.
        """
        tally = Tally(numerics, [port.name for port in self._reference.session.outputs])
        _, failure = self._run_all(run, tally)
        if failure:
            return self._failed(numerics, failure)
        return tally.verdict(self.descriptions, self.unverified)

    @property
    def traits(self) -> Traits:
        """What the reference says about how its outputs can be compared."""
        return self._reference.traits

    def outputs(self, index: int) -> dict[str, Any]:
        """What the reference makes of a draw."""
        return self._reference.outputs(index)

    @property
    def descriptions(self) -> tuple[str, ...]:
        """What was drawn, for a person."""
        return tuple(feed.description for feed in self.feeds)

    def _run_all(self, run: Run, tally: Tally) -> tuple[list[int] | None, str]:
        """Run and compare on all draws.

        Returns:
            the draws on which outputs differed within what is allowed, None if more than that on
            one of them; and why it did not run.
        """
        rounded: list[int] = []
        for index in self._order():
            feed = self.feeds[index]
            self._progress(f"verifying on {feed.description}")
            try:
                found = run(feed.arrays)
            except OnnxoptError as error:
                self._first = index
                return None, f"the result does not run on {feed.description}: {error.what}"
            if not self._enter(self._reference, index, found, tally):
                return None, ""
            if any(tally.differed(name) for name in tally.names):
                rounded.append(index)
        return rounded, ""

    def _enter(self, reference: Reference, index: int, found: dict[str, Any], tally: Tally) -> bool:
        """Compare on one draw and enter it; False if an output fails."""
        differences = reference.compare(index, found, tally.numerics, tally.notes)
        for name, difference in differences.items():
            tally.add(name, difference, reference.feeds[index].description)
        if all(difference.passes for difference in differences.values()):
            return True
        self._first = index
        return False

    def _check_twin(
        self,
        candidate: onnx.ModelProto,
        indices: list[int],
        tally: Tally,
        adapt: Adapter | None,
    ) -> None:
        """Compare the smooth twins of quantized models where rounding showed."""
        if quantized_nodes(candidate) > quantized_nodes(self._proto):
            return
        twin = self._reference_twin()
        proto = smooth_twin(candidate) if twin is not None else None
        if twin is None or proto is None:
            return
        self._progress("comparing the models without their quantization steps")
        try:
            session = Session(proto)
            for index in indices:
                arrays = self.feeds[index].arrays
                found = session.run(adapt(arrays) if adapt else arrays)
                if not self._enter(twin, index, found, tally):
                    return
        except OnnxoptError:
            tally.notes.append("it could not be compared without its quantization steps")

    def _reference_twin(self) -> Reference | None:
        if not self._twin_made:
            self._twin_made = True
            proto = smooth_twin(self._proto)
            if proto is not None:
                feeds = [
                    Feed(feed.arrays, f"{feed.description}, without quantization steps")
                    for feed in self.feeds
                ]
                try:
                    self._twin = Reference(proto, Session(proto), feeds)
                except OnnxoptError:
                    self._twin = None
        return self._twin

    def _failed(self, numerics: Numerics, reason: str) -> Verdict:
        return Verdict(False, numerics, (), self.descriptions, self.unverified, reason)

    def _order(self) -> list[int]:
        """The draw that failed last first."""
        rest = [index for index in range(len(self.feeds)) if index != self._first]
        return [self._first, *rest]


def verify(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    *,
    numerics: Numerics,
    user_data: UserData | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Whether `candidate` computes what `reference` computes; see `Verifier`."""
    verifier = Verifier(reference, user_data=user_data, progress=progress)
    return verifier.check(candidate, numerics)
