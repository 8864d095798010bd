"""Fill the inputs of a model: which are parameters, what values and sizes they take; run it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxopt.errors import OnnxoptError, UnverifiableError
from onnxopt.runtime import RunError, Session
from onnxopt.signature import Array, Port
from onnxopt.verification.comparison import leaves
from onnxopt.verification.hints import GraphFacts, Hint, graph_facts
from onnxopt.verification.parameters import parameter_candidates
from onnxopt.verification.reach import reached
from onnxopt.verification.sampling import TAMENESSES, DrawKind, Tameness, sample
from onnxopt.verification.sizes import RANKS_TO_TRY, Sizes, Symbols, find_symbols, has_placeholders
from onnxopt.verification.skeleton import infer, peak_bytes, skeleton

LARGEST_ACTIVATIONS_BYTES = 2 * 2**30
LARGEST_INPUT_ELEMENTS = 2**28
MOST_UNKNOWN_NUMBERS = 3
"""With more single integers of unknown meaning they are drawn as data, not searched."""


@dataclass(frozen=True)
class Plan:
    """One way to fill all inputs.

    Attributes:
        picks: which candidate each parameter input takes.
    """

    symbols: Symbols
    sizes: Sizes
    kind: DrawKind
    tame: Tameness
    picks: tuple[int, ...]


class Filler:
    """Makes arrays from plans and runs the model on them.

    Attributes:
        parameters: inputs whose values must be chosen: shapes, axes, counts, flags, rates.
        data: inputs whose values are drawn.
        last_error: why the model failed to run last.
    """

    def __init__(self, proto: onnx.ModelProto, session: Session) -> None:
        for port in session.inputs:
            if port.kind not in ("tensor", "sequence"):
                raise UnverifiableError(
                    f"the input '{port.name}' is of a kind ({port.kind}) that cannot be drawn",
                    "skip verification with --allow-unverified",
                )
        self.session = session
        bare = skeleton(proto)
        names = [port.name for port in (*session.inputs, *session.overridable)]
        self.facts: GraphFacts = graph_facts(infer(bare, {}), names)
        self.parameters = _parameters(session.inputs, self.facts)
        chosen = {port.name for port in self.parameters}
        self.data = [port for port in session.inputs if port.name not in chosen]
        self._graph = bare.graph
        self._outputs = {value.name for value in bare.graph.output}
        self.memory = _MemoryGuard(bare)
        self.last_error = ""

    @property
    def tamenesses(self) -> tuple[Tameness, ...]:
        """How tame data may have to be drawn; floating numbers need no taming."""
        return TAMENESSES if any(not p.is_floating for p in self.data) else TAMENESSES[:1]

    def groupings(self) -> Iterator[Symbols]:
        """The ways to read the open dimensions of the data inputs, likeliest first."""
        ranks = RANKS_TO_TRY if any(port.dims is None for port in self.data) else (0,)
        placeholders = (False, True) if has_placeholders(self.data) else (False,)
        for rank, apart in itertools.product(ranks, placeholders):
            yield find_symbols(self.data, apart=apart, rank=rank)

    def combinations(self, sizes: Sizes) -> Iterator[tuple[int, ...]]:
        """Picks for the parameter inputs, the likeliest of each first."""
        counts = [len(values) for values in self.candidates(sizes)]
        if all(counts):
            for total in range(sum(counts) - len(counts) + 1):
                yield from _with_sum(counts, total)

    def candidates(self, sizes: Sizes) -> list[list[Array]]:
        """Values to try for each parameter input."""
        named = {symbol: size for symbol, size in sizes.items() if not symbol.startswith("\0")}
        return [self._values(port, named) for port in self.parameters]

    def _values(self, port: Port, sizes: Sizes) -> list[Array]:
        hint = self.facts.hints[port.name]
        if port.dtype.kind != "b":
            return parameter_candidates(port, hint, self.facts, sizes)
        shape = tuple(d if isinstance(d, int) else 1 for d in port.dims or ())
        first = not any(use.node.op_type == "Dropout" for use in hint.uses)
        return [np.full(shape, first), np.full(shape, not first)]

    def matters(self, port: Port) -> bool:
        """Whether an output depends on the values of an input."""
        return not self._outputs.isdisjoint(reached(self._graph, {port.name}))

    def arrays(self, plan: Plan, seed: int = 0) -> dict[str, Any] | None:
        """Values for all inputs; None if the plan asks for what there is not."""
        filled: dict[str, Any] = {}
        candidates = self.candidates(plan.sizes)
        for port, values, pick in zip(self.parameters, candidates, plan.picks, strict=True):
            if pick >= len(values):
                return None
            filled[port.name] = values[pick]
        shapes = {port.name: plan.symbols.shape(port.name, plan.sizes) for port in self.data}
        elements = sum(float(np.prod(shape, dtype=np.float64)) for shape in shapes.values())
        if elements > LARGEST_INPUT_ELEMENTS:
            return None
        for port in self.data:
            filled[port.name] = sample(
                port,
                self.facts.hints[port.name],
                shapes[port.name],
                plan.kind,
                tame=plan.tame,
                seed=seed,
                texts=self.facts.texts,
            )
        return filled

    def run(self, arrays: dict[str, Any] | None) -> dict[str, Any] | None:
        """What the model makes of the arrays; None if it fails or would take too much memory."""
        if arrays is None or not self.memory.allows(arrays):
            return None
        try:
            return self.session.run(arrays)
        except RunError as error:
            self.last_error = error.what
            return None

    def failure(self) -> OnnxoptError:
        """The error to raise when the model ran on nothing that was tried."""
        if self.memory.refused_bytes and not self.last_error:
            return UnverifiableError(
                f"running it needs about {self.memory.refused_bytes / 2**30:.1f} GB for its "
                f"values; verification takes {LARGEST_ACTIVATIONS_BYTES / 2**30:.0f} GB at most"
            )
        inputs = ", ".join(f"'{p.name}' {p.describe()}" for p in self.session.inputs[:4])
        if len(self.session.inputs) > 4:
            inputs += f" and {len(self.session.inputs) - 4} more"
        why = f": {self.last_error}" if self.last_error else ""
        return UnverifiableError(
            f"found no inputs that the original runs with ({inputs or 'it takes none'}){why}",
            "give some with --verify-data" if inputs else "",
        )


def _parameters(ports: Sequence[Port], facts: GraphFacts) -> list[Port]:
    known: set[str] = set()
    unknown: set[str] = set()
    for port in ports:
        hint = facts.hints[port.name]
        if port.kind != "tensor" or port.dtype == np.dtype(object):
            continue
        single = port.dims is not None and all(dim == 1 for dim in port.dims)
        if hint.uses or (hint.sizes_things and port.is_integer):
            known.add(port.name)
        elif single and port.is_integer and hint.below is None:
            (known if hint.constants else unknown).add(port.name)
        elif single and port.dtype.kind == "b":
            known.add(port.name)
    if len(unknown) <= MOST_UNKNOWN_NUMBERS:
        known |= unknown
    return [port for port in ports if port.name in known]


class _MemoryGuard:
    """Refuses inputs with which the values of a model would take too much memory."""

    def __init__(self, bare: onnx.ModelProto) -> None:
        self.bare = bare
        self.refused_bytes = 0
        self._known: tuple[float, float] | None = None

    def allows(self, arrays: dict[str, Any]) -> bool:
        volume = float(sum(a.size for v in arrays.values() for _, a in leaves(v) if a is not None))
        if self._known is not None:
            known_volume, known_peak = self._known
            # Nothing grows faster than with the square of its inputs, attention included.
            growth = max(volume / max(known_volume, 1.0), 1.0) ** 2
            if known_peak * growth < LARGEST_ACTIVATIONS_BYTES:
                return True
        shapes = {n: v.shape for n, v in arrays.items() if isinstance(v, np.ndarray)}
        peak = peak_bytes(infer(self.bare, shapes))
        if peak > LARGEST_ACTIVATIONS_BYTES:
            self.refused_bytes = max(self.refused_bytes, peak)
            return False
        self._known = (volume, float(peak))
        return True


def _with_sum(counts: Sequence[int], total: int) -> Iterator[tuple[int, ...]]:
    """All tuples of indices below `counts` with a given sum."""
    if not counts:
        if total == 0:
            yield ()
        return
    for first in range(min(counts[0] - 1, total) + 1):
        for rest in _with_sum(counts[1:], total - first):
            yield (first, *rest)


def other_values(value: Array, hint: Hint, seed: int) -> Array:
    """Different values of the same shape and type for a default input, near enough to run."""
    rng = np.random.default_rng([7, seed])
    if hint.uses or hint.sizes_things or value.dtype == np.dtype(object):
        return value
    if value.dtype.kind == "b":
        return np.logical_not(value)
    if value.dtype.kind in "iu":
        return np.asarray(rng.permutation(value.reshape(-1)).reshape(value.shape))
    factor = rng.uniform(0.5, 1.5, size=value.shape)
    return np.asarray(value.astype(np.float64) * factor + 0.01).astype(value.dtype)
