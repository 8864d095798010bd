"""A cut as it is run with its codec: both halves in a row, and what the codec changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from onnxopt.runtime import RunError, Session
from onnxopt.splitting.halves import Parts
from onnxopt.splitting.rows import Row, relative_error

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Coded:
    """A cut with its codec.

    Attributes:
        number: of the cut.
        before, after: the segments on the device and at the edge.
        models: encoder and decoder, where the segments do not do that themselves.
    """

    number: int
    before: Sequence[onnx.ModelProto]
    after: Sequence[onnx.ModelProto]
    models: tuple[onnx.ModelProto, onnx.ModelProto] | None


def coded_cuts(parts: Parts) -> list[Coded]:
    """The cuts that have a codec which changes anything."""
    found = []
    for number, border in enumerate(parts.borders):
        if border.coding.encoded:
            pieces = parts.plain if border.models else parts.pieces
            models = [piece.proto for piece in pieces]
            found.append(Coded(number, models[:number], models[number:], border.models))
    return found


class CodedRow:
    """Sessions of both halves and of what lies between.

    Raises:
        BadModelError, UnverifiableError: ONNX Runtime does not load them.
    """

    def __init__(self, item: Coded, *, optimized: bool = False) -> None:
        self._before = Row(item.before, optimized=optimized)
        self._after = Row(item.after, optimized=optimized)
        self._models = [Session(model, optimized=optimized) for model in item.models or ()]

    def run(self, feeds: Values) -> dict[str, Any]:
        """All that is there in the end, the outputs of the model among it."""
        there = self._before.run(feeds)
        for session in self._models:
            there |= session.run({port.name: there[port.name] for port in session.inputs})
        return self._after.run(there)

    def try_run(self, feeds: Values) -> dict[str, Any] | None:
        """As `run`; None where a half does not run on what the codec makes."""
        try:
            return self.run(feeds)
        except RunError:
            return None


def codec_error(
    item: Coded, pairs: Iterable[tuple[Values, Values]], random: Collection[str] = ()
) -> float:
    """Largest relative error in the outputs.

    Infinite where it cannot be told: an output changes its shape, is no number, or is not made at
    all, as indices or shapes follow from what was encoded.

    Args:
        pairs: inputs with what the model makes of them, optimizations off.
        random: outputs that differ from run to run.
    """
    row = CodedRow(item)
    worst = 0.0
    for feeds, wanted in pairs:
        found = row.try_run(feeds)
        if found is None:
            return float("inf")
        errors = (relative_error(wanted[n], found[n]) for n in wanted if n not in random)
        worst = max([worst, *errors])
    return worst


def are_alike(left: Coded, right: Coded, feeds: Iterable[Values], outputs: Collection[str]) -> bool:
    """Whether two ways to run one cut give the same bits in these outputs."""
    rows = CodedRow(left), CodedRow(right)
    for arrays in feeds:
        first, second = (row.try_run(arrays) for row in rows)
        if first is None or second is None:
            if first is not second:
                return False
        elif any(relative_error(first[name], second[name]) > 0 for name in outputs):
            return False
    return True
