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
from onnxopt.verification.traits import weaknesses
from onnxopt.verification.userdata import UserData
from onnxopt.verification.verdict import OutputError, Tally, Verdict

__all__ = ["OutputError", "Verdict", "Verifier", "verify"]

Progress = Callable[[str], None]
Adapter = Callable[[Mapping[str, Any]], Mapping[str, Any]]


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
        rounded: list[int] = []
        for index in self._order():
            feed = self.feeds[index]
            self._progress(f"verifying on {feed.description}")
            try:
                found = session.run(adapt(feed.arrays) if adapt else feed.arrays)
            except OnnxoptError as error:
                self._first = index
                reason = f"the result does not run on {feed.description}: {error.what}"
                return self._failed(numerics, reason)
            if not self._enter(self._reference, index, found, tally):
                break
            if any(tally.differed(name) for name in wanted):
                rounded.append(index)
        else:
            if numerics == "rounding" and rounded:
                self._check_twin(candidate, rounded, tally, adapt)
        return tally.verdict(tuple(feed.description for feed in self.feeds), self.unverified)

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
        descriptions = tuple(feed.description for feed in self.feeds)
        return Verdict(False, numerics, (), descriptions, self.unverified, reason)

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
