"""Do two models compute the same? Draw inputs, run both, compare: Verifier and its Verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.inliner

from onnxopt.changes import Numerics
from onnxopt.comparison import (
    Difference,
    distance,
    is_floating,
    judge,
    leaves,
    root_mean_square,
    size_bytes,
    structural_difference,
    wide,
)
from onnxopt.element_types import element_types, ulp
from onnxopt.errors import OnnxoptError
from onnxopt.feeds import Feed, draws
from onnxopt.noise import NoiseMeter, Spread
from onnxopt.reach import random_values, reached
from onnxopt.runtime import Session
from onnxopt.signature import FLOAT_TYPES, Array, model_outputs
from onnxopt.userdata import UserData

Progress = Callable[[str], None]
Adapter = Callable[[Mapping[str, Any]], Mapping[str, Any]]

LARGEST_CACHE_BYTES = 512 * 2**20
"""Reference outputs beyond this are computed again when they are needed."""

QUICK_ABSOLUTE_ULPS = 8.0
QUICK_RELATIVE_ULPS = 84.0
"""Errors within (absolute x root mean square + relative x |element|) units in the last place are
passed without measuring the model's noise: for float32, 1e-6 of the one plus 1e-5 of the other."""

QUICK_HALF_ULPS = 2.0
"""The same, for both, where float16 or bfloat16 is at work: their units are coarse."""

FLOOR_ULPS = 4.0
"""An error of so many units in the last place of the element itself is never too much."""


@dataclass(frozen=True)
class OutputError:
    """How one output fared over all draws.

    Attributes:
        worst_absolute: largest absolute error.
        worst_relative: largest absolute error divided by the root mean square of the output.
        tolerance: absolute error that was allowed where the error came closest to it, or beyond.
        excess: that error divided by that tolerance; above 1 is too much.
        ok: the output passed.
        feed: description of the inputs on which it fared worst; empty if it never differed.
        differs: "" or what differs: "type", "structure", "shape" or "value", and where.
    """

    name: str
    worst_absolute: float = 0.0
    worst_relative: float = 0.0
    tolerance: float = 0.0
    excess: float = 0.0
    ok: bool = True
    feed: str = ""
    differs: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate computes what the reference computes.

    Attributes:
        passed: it does, within `numerics`, as far as was tried.
        numerics: the promise it was held to.
        outputs: one entry for each output of the reference.
        draws: descriptions of the inputs on which both were run.
        unverified: what was not shown, each with its reason.
        reason: why it did not pass, in one line; empty if it did.
    """

    passed: bool
    numerics: Numerics
    outputs: tuple[OutputError, ...] = ()
    draws: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    reason: str = ""

    @property
    def worst_absolute(self) -> float:
        return max((output.worst_absolute for output in self.outputs), default=0.0)

    @property
    def worst_relative(self) -> float:
        return max((output.worst_relative for output in self.outputs), default=0.0)

    def summary(self) -> str:
        """One line for a table."""
        if not self.passed:
            return f"failed: {self.reason}"
        count = f"{len(self.draws)} draw{'s' if len(self.draws) != 1 else ''}"
        if self.worst_absolute == 0.0:
            return f"equal bit for bit on {count}"
        worst = max(self.outputs, key=lambda output: output.worst_relative)
        return (
            f"equal within rounding on {count}: worst error {worst.worst_absolute:.2g} "
            f"({worst.worst_relative:.1g} of its size) in '{worst.name}' on {worst.feed}"
        )


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
        self._session = Session(reference)
        self._progress("drawing inputs and running the original")
        drawing = draws(reference, self._session, user_data)
        self.feeds: list[Feed] = drawing.feeds
        self._traits = _Traits.of(reference)
        self._outputs = _bounded(drawing.outputs)
        self.unverified = (*drawing.notes, *self._weaknesses(drawing.outputs))
        self._noise = NoiseMeter(reference)
        self._spreads: dict[tuple[int, bool], dict[str, list[Spread]] | None] = {}
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
        verdict = _Tally(numerics, [port.name for port in self._session.outputs])
        names = [port.name for port in model_outputs(candidate)]
        if names != verdict.names:
            return self._failed(numerics, f"its outputs are {names} instead of {verdict.names}")
        try:
            session = Session(candidate)
        except OnnxoptError as error:
            return self._failed(numerics, f"the result does not load: {error.what}")
        for index in self._order():
            feed = self.feeds[index]
            self._progress(f"verifying on {feed.description}")
            try:
                found = session.run(adapt(feed.arrays) if adapt else feed.arrays)
            except OnnxoptError as error:
                self._first = index
                return self._failed(
                    numerics, f"the result does not run on {feed.description}: {error.what}"
                )
            if not self._compare(index, found, verdict):
                self._first = index
                break
        return verdict.verdict(tuple(f.description for f in self.feeds), self.unverified)

    def _failed(self, numerics: Numerics, reason: str) -> Verdict:
        descriptions = tuple(feed.description for feed in self.feeds)
        return Verdict(False, numerics, (), descriptions, self.unverified, reason)

    def _order(self) -> list[int]:
        """The draw that failed last first."""
        rest = [index for index in range(len(self.feeds)) if index != self._first]
        return [self._first, *rest]

    def _reference(self, index: int) -> dict[str, Any]:
        kept = self._outputs[index]
        return kept if kept is not None else self._session.run(self.feeds[index].arrays)

    def _compare(self, index: int, found: dict[str, Any], tally: _Tally) -> bool:
        """Compare all outputs on one draw; False if one of them fails."""
        reference = self._reference(index)
        for name, value in reference.items():
            difference = self._difference(index, name, reference, found, tally)
            tally.add(name, difference, self.feeds[index].description)
        return all(tally.passes(name) for name in reference)

    def _difference(
        self,
        index: int,
        name: str,
        reference: dict[str, Any],
        found: dict[str, Any],
        tally: _Tally,
    ) -> Difference:
        ours, theirs = reference[name], found[name]
        structural = structural_difference(ours, theirs)
        if tally.numerics == "lossy" or name in self._traits.random:
            return structural
        exact = tally.numerics == "exact" and not self._traits.is_half
        if not structural.what:
            quick = _quick(ours, theirs, exact, self._traits.ulps.get(name, 0.0))
            if quick.excess <= 1.0:
                return quick
        elif exact or structural.what == "type":
            return structural
        measured = structural if structural.what else quick
        if exact:
            return measured
        for loud in (False, True):
            spreads = self._spread(index, reference, loud)
            if spreads is None:
                return measured
            if name not in spreads:
                tally.notes.append(
                    f"'{name}': its shape depends on rounding; only its type compared"
                )
                return Difference()
            if not structural.what:
                unit = self._traits.ulps.get(name, 0.0)
                measured = _within(ours, theirs, spreads[name], unit)
                if measured.excess <= 1.0:
                    return measured
        return measured

    def _spread(
        self, index: int, reference: dict[str, Any], loud: bool
    ) -> dict[str, list[Spread]] | None:
        key = (index, loud)
        if key not in self._spreads:
            feed = self.feeds[index]
            self._progress(f"measuring the model's rounding noise on {feed.description}")
            self._spreads[key] = self._noise.spreads(feed.arrays, reference, loud=loud)
        return self._spreads[key]

    def _weaknesses(self, outputs: list[dict[str, Any]]) -> list[str]:
        """What the outputs of the reference cannot show."""
        return list(_weaknesses(self._session, self._traits, outputs))


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


@dataclass(frozen=True)
class _Traits:
    """What the graph says about its outputs.

    Attributes:
        random: names of outputs that random operators reach.
        constant: names of outputs that the inputs do not reach, not even by their shapes.
        ulps: unit in the last place of the coarsest floating type in the model, by output.
        is_half: the model computes in float16 or bfloat16. ONNX Runtime lacks kernels for them and
            computes neighbouring operators in float32 without rounding between: which ones are
            neighbours depends on operators that do nothing, so bit for bit means nothing there.
    """

    random: frozenset[str]
    constant: frozenset[str]
    ulps: dict[str, float]
    is_half: bool

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> _Traits:
        flat = onnx.inliner.inline_local_functions(proto) if proto.functions else proto
        graph = flat.graph
        outputs = [value.name for value in graph.output]
        random = random_values(graph)
        fed = reached(graph, {value.name for value in graph.input}, shapes=True)
        opsets = {entry.domain: entry.version for entry in flat.opset_import}
        types = element_types(graph, opsets)
        held = {types[name] for name in types if types[name] in FLOAT_TYPES}
        coarsest = max((ulp(kind) for kind in held), default=0.0)
        return cls(
            random=frozenset(name for name in outputs if name in random),
            constant=frozenset(name for name in outputs if graph.input and name not in fed),
            ulps={name: max(coarsest, ulp(types.get(name, 0))) for name in outputs},
            is_half=coarsest > ulp(onnx.TensorProto.FLOAT),
        )


@dataclass
class _Tally:
    """The verdict in the making."""

    numerics: Numerics
    names: list[str]
    worst: dict[str, tuple[Difference, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, difference: Difference, feed: str) -> None:
        if not difference.what:
            return
        kept, kept_feed = self.worst.get(name, (Difference(), ""))
        merged = kept.worst(difference)
        is_new = merged.excess != kept.excess or merged.what != kept.what
        self.worst[name] = (merged, feed if is_new else kept_feed)

    def passes(self, name: str) -> bool:
        difference, _ = self.worst.get(name, (Difference(), ""))
        return not difference.is_structural and difference.excess <= 1.0

    def verdict(self, descriptions: tuple[str, ...], unverified: tuple[str, ...]) -> Verdict:
        outputs = tuple(self._output(name) for name in self.names)
        bad = next((output for output in outputs if not output.ok), None)
        notes = tuple(dict.fromkeys((*unverified, *self.notes)))
        reason = "" if bad is None else _reason(bad, self.numerics)
        return Verdict(bad is None, self.numerics, outputs, descriptions, notes, reason)

    def _output(self, name: str) -> OutputError:
        difference, feed = self.worst.get(name, (Difference(), ""))
        return OutputError(
            name,
            difference.absolute,
            difference.relative,
            difference.tolerance,
            difference.excess,
            self.passes(name),
            feed,
            f"{difference.what} {difference.detail}".strip(),
        )


def _reason(bad: OutputError, numerics: Numerics) -> str:
    if not bad.differs.startswith("value"):
        return f"output '{bad.name}' differs in {bad.differs} on {bad.feed}"
    allowed = "0 (exact)" if numerics == "exact" and not bad.tolerance else f"{bad.tolerance:.2g}"
    return (
        f"output '{bad.name}' is off by {bad.worst_absolute:.3g} where {allowed} is allowed, "
        f"on {bad.feed}"
    )


def _quick(reference: Any, candidate: Any, exact: bool, unit: float) -> Difference:
    """Compare without measuring the noise: within a few units in the last place.

    Args:
        unit: unit in the last place of the coarsest type that the output was computed in.
    """
    absolute, relative = QUICK_ABSOLUTE_ULPS, QUICK_RELATIVE_ULPS
    if unit > ulp(onnx.TensorProto.FLOAT):
        absolute = relative = QUICK_HALF_ULPS
    worst = Difference()
    for (_, a), (_, b) in zip(leaves(reference), leaves(candidate), strict=True):
        if a is None or b is None:
            continue
        allowed: Array | float = 0.0
        if is_floating(a) and not exact:
            allowed = absolute * unit * root_mean_square(a) + relative * unit * np.abs(wide(a))
        worst = worst.worst(judge(a, distance(a, b), allowed))
    return worst


def _within(reference: Any, candidate: Any, spreads: list[Spread], unit: float) -> Difference:
    """Compare within the measured noise."""
    worst = Difference()
    pairs = zip(leaves(reference), leaves(candidate), spreads, strict=True)
    for (_, a), (_, b), spread in pairs:
        if a is None or b is None:
            continue
        errors = distance(a, b)
        allowed = spread.allowed
        if is_floating(a):
            allowed = allowed + FLOOR_ULPS * unit * np.abs(wide(a))
        out = errors > allowed
        if np.count_nonzero(out) <= spread.outliers:
            allowed = np.where(out, spread.reach, allowed)
        worst = worst.worst(judge(a, errors, allowed))
    return worst


def _bounded(outputs: list[dict[str, Any]]) -> list[dict[str, Any] | None]:
    kept: list[dict[str, Any] | None] = []
    total = 0
    for output in outputs:
        total += sum(size_bytes(value) for value in output.values())
        kept.append(output if total <= LARGEST_CACHE_BYTES else None)
    return kept


def _weaknesses(session: Session, traits: _Traits, outputs: list[dict[str, Any]]) -> list[str]:
    """What the outputs of the reference cannot show, one line each."""
    notes = []
    for name in (port.name for port in session.outputs):
        if name in traits.random:
            notes.append(f"'{name}' is random: compared by type and shape only")
        elif name in traits.constant:
            notes.append(f"'{name}' does not depend on the inputs")
        elif _all_nan([output[name] for output in outputs]):
            notes.append(f"'{name}' is NaN everywhere on all draws")
        elif session.inputs and _never_changes([output[name] for output in outputs]):
            notes.append(f"'{name}' came out the same on all draws: weakly tested")
    return notes


def _all_nan(values: list[Any]) -> bool:
    arrays = [a for value in values for _, a in leaves(value) if a is not None and is_floating(a)]
    return any(a.size for a in arrays) and all(np.isnan(a.astype(np.float64)).all() for a in arrays)


def _never_changes(values: list[Any]) -> bool:
    first = values[0]
    for value in values[1:]:
        if structural_difference(first, value).what:
            return False
        if _quick(first, value, True, 0.0).what:
            return False
    return True
