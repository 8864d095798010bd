"""Draw inputs that a model runs with: several kinds, several sizes, the values that it accepts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from onnxopt.errors import UnverifiableError
from onnxopt.runtime import Session
from onnxopt.signature import Port
from onnxopt.verification.comparison import is_floating, leaves
from onnxopt.verification.filling import Filler, Plan, other_values
from onnxopt.verification.sampling import DRAW_KINDS, DrawKind
from onnxopt.verification.sizes import base_sizes, other_sizes
from onnxopt.verification.userdata import UserData

SEARCH_BUDGET_S = 20.0
VARIATION_BUDGET_S = 30.0
MOST_COMBINATIONS = 60
FIRST_COMBINATIONS = 12
SIZES_WITH_COMBINATIONS = 6
MOST_VALUES_OF_ONE = 3
MOST_OTHER_VALUES = 8


@dataclass(frozen=True)
class Feed:
    """Inputs that the original ran with.

    Attributes:
        arrays: for each input an array, a list of arrays (sequence) or None (absent optional).
        description: what they are, for a person.
    """

    arrays: dict[str, Any]
    description: str


@dataclass
class Drawing:
    """Feeds, what the original made of each, and what could not be tried."""

    feeds: list[Feed] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, arrays: dict[str, Any], outputs: dict[str, Any], description: str) -> None:
        self.feeds.append(Feed(arrays, description))
        self.outputs.append(outputs)


def draws(proto: onnx.ModelProto, session: Session, user_data: UserData | None = None) -> Drawing:
    """Inputs of at least three kinds and, for open dimensions, three sizes, where the model runs.

    Deterministic as long as the time budgets are not reached.

    Args:
        session: the model, loaded.
        user_data: samples to use as well; they come first.

    Raises:
        UsageError: the user's data does not fit the model.
        UnverifiableError: it runs with nothing that was tried, or would need too much memory.
    """
    drawing = Drawing()
    filler = Filler(proto, session)
    if user_data is not None:
        _draw_user_data(drawing, filler, user_data)
    base = _find_base(filler)
    if base is None:
        if not drawing.feeds:
            raise filler.failure()
        drawing.notes.append(f"ran on the user's data only; on drawn inputs: {filler.last_error}")
        return drawing
    plan, arrays, outputs = base
    if not session.inputs:
        drawing.add(arrays, outputs, "no inputs")
    else:
        drawing.add(arrays, outputs, _describe(plan, "normal"))
        _Variations(drawing, filler, plan).draw_kinds()
    variations = _Variations(drawing, filler, plan)
    variations.draw_defaults(proto)
    variations.draw_values()
    variations.draw_sizes()
    return drawing


def first_run(proto: onnx.ModelProto, session: Session) -> dict[str, Any] | None:
    """What the model makes of the likeliest inputs that it runs with; None if none are found."""
    base = _find_base(Filler(proto, session))
    return None if base is None else base[2]


def _draw_user_data(drawing: Drawing, filler: Filler, user_data: UserData) -> None:
    for number, arrays in enumerate(user_data.batches(filler.session)):
        outputs = filler.run(arrays)
        if outputs is None:
            raise UnverifiableError(
                f"the original does not run on the user's data: {filler.failure().what}",
                "check that it is preprocessed as the model expects",
            )
        drawing.add(arrays, outputs, f"user data, {user_data.label(number)}")


Run = tuple[Plan, dict[str, Any], dict[str, Any]]
"""A plan with the arrays that it gave and what the model made of them."""


def _find_base(filler: Filler) -> Run | None:
    """The first plan that runs; one that makes empty outputs only if there is no other."""
    deadline = time.monotonic() + SEARCH_BUDGET_S
    empty: Run | None = None
    for plan in _base_plans(filler):
        arrays = filler.arrays(plan)
        outputs = filler.run(arrays)
        if outputs is not None and arrays is not None:
            if not _is_empty(outputs):
                return plan, arrays, outputs
            empty = empty or (plan, arrays, outputs)
        if time.monotonic() > deadline:
            break
    return empty


def _base_plans(filler: Filler) -> Iterator[Plan]:
    """All ways to fill the inputs, likeliest first: a quick round, then a thorough one."""
    for thorough in (False, True):
        tames = filler.tamenesses if thorough else filler.tamenesses[:3]
        for symbols in filler.groupings():
            for count, sizes in enumerate(base_sizes(symbols)):
                limit = FIRST_COMBINATIONS if count < SIZES_WITH_COMBINATIONS else 1
                limit = MOST_COMBINATIONS if thorough else limit
                for tame in tames:
                    for picks in itertools.islice(filler.combinations(sizes), limit):
                        yield Plan(symbols, sizes, "normal", tame, picks)
        if not filler.parameters and len(filler.tamenesses) == 1:
            return


class _Variations:
    """Draws around a plan that runs; those that do not run are dropped."""

    def __init__(self, drawing: Drawing, filler: Filler, base: Plan) -> None:
        self.drawing = drawing
        self.filler = filler
        self.base = base
        self.deadline = time.monotonic() + VARIATION_BUDGET_S

    def draw_kinds(self) -> None:
        """The kinds of numbers beside the normal ones, which ran already."""
        tames = self.filler.tamenesses
        for number, kind in enumerate(DRAW_KINDS[1:], start=1):
            for tame in tames[tames.index(self.base.tame) :]:
                plan = self._plan(kind=kind, tame=tame)
                if self._keep(self.filler.arrays(plan, seed=number), _describe(plan, kind)):
                    break
            else:
                self.drawing.notes.append(
                    f"it does not run on {kind} inputs: {self.filler.last_error}"
                )
        if _is_lost(self.drawing.outputs[-1]):
            plan = self._plan(kind="wide")
            self._keep(self.filler.arrays(plan, seed=4), _describe(plan, "wide"))

    def draw_defaults(self, proto: onnx.ModelProto) -> None:
        """One draw with other values for the initializers that a caller may override."""
        ports = self.filler.session.overridable
        if not ports:
            return
        defaults = {t.name: t for t in proto.graph.initializer}
        arrays = self.filler.arrays(self.base, seed=11) or {}
        for number, port in enumerate(ports):
            if port.name in defaults:
                value = onnx.numpy_helper.to_array(defaults[port.name])
                arrays[port.name] = other_values(value, self.filler.facts.hints[port.name], number)
        what = _describe(self.base, "other values for inputs with defaults")
        if not self._keep(arrays, what):
            self.drawing.notes.append("it does not run with other values for its default inputs")

    def draw_values(self) -> None:
        """Other values of parameters and flags, one at a time: other branches of an If."""
        candidates = self.filler.candidates(self.base.sizes)
        before = len(self.drawing.feeds)
        for place, port in enumerate(self.filler.parameters):
            if not self.filler.matters(port):
                continue
            start = len(self.drawing.feeds)
            for pick, value in enumerate(candidates[place]):
                drawn = len(self.drawing.feeds)
                if drawn - start >= MOST_VALUES_OF_ONE or drawn - before >= MOST_OTHER_VALUES:
                    break
                if pick == self.base.picks[place] or time.monotonic() > self.deadline:
                    continue
                picks = (*self.base.picks[:place], pick, *self.base.picks[place + 1 :])
                shown = value.reshape(-1).tolist()
                what = f"normal, {port.name}={shown[0] if len(shown) == 1 else shown}"
                plan = self._plan(picks=picks)
                self._keep(self.filler.arrays(plan, seed=20 + pick), _describe(plan, what))
        for port in self.filler.data:
            self._draw_flags(port)

    def _draw_flags(self, port: Port) -> None:
        """All true and all false where a flag decides a branch; an optional that is absent."""
        choices: tuple[Any, ...] = (None,) if port.optional else ()
        if self.filler.facts.hints[port.name].is_condition and port.dtype.kind == "b":
            choices = (*choices, True, False)
        arrays = self.filler.arrays(self.base, seed=30) if choices else None
        if arrays is None:
            return
        for choice in choices:
            value = None if choice is None else np.full_like(arrays[port.name], choice)
            what = f"normal, {port.name} {'absent' if choice is None else f'all {choice}'}"
            self._keep({**arrays, port.name: value}, _describe(self.base, what))

    def draw_sizes(self) -> None:
        """Each symbol at 1 and at two other sizes, the others as they are."""
        sizes = self.base.sizes
        ran: dict[str, set[int]] = {symbol: {size} for symbol, size in sizes.items()}
        for number, (symbol, size) in enumerate(sizes.items()):
            for step, other in enumerate(other_sizes(size)):
                others = ran[symbol] - {1}
                if other in ran[symbol] or (len(others) >= 2 and other != 1):
                    continue
                if time.monotonic() > self.deadline:
                    label = self.base.symbols.label(symbol)
                    self.drawing.notes.append(f"no time for other sizes of {label}")
                    break
                for moved in self._draw_size(symbol, other, 40 + 20 * number + step):
                    ran[moved].add(other)
        for symbol, tried in ran.items():
            if len(tried) == 1:
                label = self.base.symbols.label(symbol)
                self.drawing.notes.append(f"dimension {label} ran at size {sizes[symbol]} only")

    def _draw_size(self, symbol: str, size: int, seed: int) -> list[str]:
        """Draw with one symbol at another size; a placeholder with a partner if need be.

        Returns:
            the symbols that took that size; none if it did not run.
        """
        kind: DrawKind = "normal" if seed % 2 else "uniform"
        sizes = self.base.sizes
        changes = [{symbol: size}]
        if symbol.startswith("\0"):
            alike = [s for s in sizes if s.startswith("\0") and sizes[s] == sizes[symbol]]
            changes += [{symbol: size, partner: size} for partner in alike if partner != symbol]
        for change in changes:
            plan = self._plan(kind=kind, sizes={**sizes, **change})
            if self._keep(self.filler.arrays(plan, seed=seed), _describe(plan, kind)):
                return list(change)
        return []

    def _plan(self, **changes: Any) -> Plan:
        fields = {**vars(self.base), **changes}
        return Plan(**fields)

    def _keep(self, arrays: dict[str, Any] | None, description: str) -> bool:
        outputs = self.filler.run(arrays)
        if outputs is None or arrays is None:
            return False
        self.drawing.add(arrays, outputs, description)
        return True


def _describe(plan: Plan, what: str) -> str:
    return ", ".join([what, *(f"{plan.symbols.label(s)}={v}" for s, v in plan.sizes.items())])


def _is_empty(outputs: dict[str, Any]) -> bool:
    """Every output is a tensor without elements."""
    sizes = [a.size for v in outputs.values() for _, a in leaves(v) if a is not None]
    return bool(sizes) and not any(sizes)


def _is_lost(outputs: dict[str, Any]) -> bool:
    """Every floating output has left the range of its type."""
    arrays = [a for v in outputs.values() for _, a in leaves(v) if a is not None]
    floating = [a.astype(np.complex128) for a in arrays if is_floating(a) and a.size]
    return bool(floating) and not any(np.isfinite(a).any() for a in floating)
