"""Budgets that a model must keep, for a step of a CI: which broke, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import floor

import onnx

from onnxopt.cost import Cost
from onnxopt.errors import UsageError
from onnxopt.quantities import bytes_text, count_text, parse_count, parse_percent

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Measure:
    """Something that can be budgeted.

    Attributes:
        name: what a person calls it.
        option: the option of `onnxopt check` that limits it.
        of: reads it from a cost.
        text: writes it for a person.
    """

    name: str
    option: str
    of: Callable[[Cost], int]
    text: Callable[[int], str]


MEASURES: Mapping[str, Measure] = {
    "nodes": Measure("nodes", "--max-nodes", lambda cost: cost.nodes, str),
    "size": Measure("size", "--max-size", lambda cost: cost.size_bytes, bytes_text),
    "params": Measure("parameters", "--max-params", lambda cost: cost.parameters, count_text),
    "macs": Measure("MACs", "--max-macs", lambda cost: cost.macs, count_text),
    "peak_memory": Measure(
        "peak activation memory",
        "--max-peak-memory",
        lambda cost: cost.peak_memory_bytes,
        bytes_text,
    ),
}


@dataclass(frozen=True)
class Budget:
    """One budget and how the model fares.

    Attributes:
        measure: what is limited.
        limit: most that is allowed.
        value: what the model has.
        origin: where the limit comes from: the option, or the model it is measured against.
        is_lower_bound: the model may have more than `value`, since shapes are unknown.
        is_limit_lower_bound: the same of the model that the limit is taken from, so that an excess
            proves nothing.
    """

    measure: str
    limit: int
    value: int
    origin: str
    is_lower_bound: bool = False
    is_limit_lower_bound: bool = False

    @property
    def name(self) -> str:
        """What a person calls the measure."""
        return MEASURES[self.measure].name

    @property
    def ok(self) -> bool:
        return self.value <= self.limit or self.is_limit_lower_bound

    @property
    def over(self) -> int:
        """By how much the limit is exceeded; 0 if it is kept."""
        return max(self.value - self.limit, 0)

    def __str__(self) -> str:
        measure = MEASURES[self.measure]
        value, limit = measure.text(self.value), measure.text(self.limit)
        if value == limit and self.over:
            value, limit = f"{self.value:,}", f"{self.limit:,}"
        line = f"{measure.name} {value}, allowed {limit} ({self.origin})"
        if not self.over:
            return line
        if self.is_limit_lower_bound:
            return f"{line}: more, but shapes in that model are not known"
        percent = f", {100 * self.over / self.limit:.3g}%" if self.limit else ""
        return f"{line}: over by {measure.text(self.over)}{percent}"


@dataclass(frozen=True)
class CheckResult:
    """How a model fares against all budgets.

    Attributes:
        budgets: one entry for each limit.
        left_to_do: rewrites that `optimize` would make, as "rule at site"; None if not asked.
    """

    budgets: tuple[Budget, ...] = ()
    left_to_do: tuple[str, ...] | None = None

    @property
    def passed(self) -> bool:
        return all(budget.ok for budget in self.budgets) and not self.left_to_do

    @property
    def broken(self) -> tuple[Budget, ...]:
        return tuple(budget for budget in self.budgets if not budget.ok)


def check_budgets(
    cost: Cost,
    limits: Mapping[str, str],
    base: Cost | None = None,
    *,
    base_name: str = "the base model",
) -> tuple[Budget, ...]:
    """Compare a cost with limits.

    Args:
        limits: by the names in MEASURES: a number ("10MB"), or a percentage of the base ("105%").
        base: what is not limited otherwise must not exceed that of the base.

    Raises:
        UsageError: a limit that is no number, or a percentage without a base.
    """
    found: list[Budget] = []
    for key, measure in MEASURES.items():
        text = limits.get(key)
        if text is None and base is None:
            continue
        if text is None:
            assert base is not None
            limit, origin = measure.of(base), f"{base_name} has that"
        else:
            limit, origin = _limit(text, measure, base), f"{measure.option} {text}"
        needs_shapes = key in ("macs", "peak_memory")
        is_relative = text is None or text.strip().endswith("%")
        found.append(
            Budget(
                key,
                limit,
                measure.of(cost),
                origin,
                is_lower_bound=needs_shapes and bool(cost.unknown),
                is_limit_lower_bound=needs_shapes
                and is_relative
                and base is not None
                and bool(base.unknown),
            )
        )
    return tuple(found)


def left_to_do(proto: onnx.ModelProto, *, progress: Progress | None = None) -> tuple[str, ...]:
    """What `optimize` would do to the model, one line for each rewrite; nothing is written.

    Raises:
        BadModelError: the model is not valid.
    """
    from onnxopt.optimizer import Options, optimize  # other budgets need no rules and no passes

    quick = optimize(proto, Options(verify=False), progress=progress).report
    if not quick.changes:
        return ()
    # What verification would take back is not left to do.
    full = optimize(proto, Options(allow_unverified=True), progress=progress).report
    return tuple(f"{change.by} at {change.site}: {change.what}" for change in full.changes)


def _limit(text: str, measure: Measure, base: Cost | None) -> int:
    if not text.strip().endswith("%"):
        return parse_count(text)
    if base is None:
        raise UsageError(
            f"{measure.option} {text} is a percentage of nothing", "add --against BASE.onnx"
        )
    return floor(parse_percent(text) * measure.of(base) + 1e-6)
