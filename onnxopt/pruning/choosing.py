"""The widths of all groups for a budget, corrected until the cut model costs what it should."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.pruning.allocate import Curve, allocate, complexity, uniform
from onnxopt.pruning.analysis import Analysis
from onnxopt.pruning.by_widths import CostByWidths
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.closing import closer
from onnxopt.pruning.costs import owners
from onnxopt.pruning.curves import Problem
from onnxopt.pruning.grid import legal_widths
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.threshold import threshold
from onnxopt.pruning.widths import WidthCost

FEWEST_WIDTHS = 3
"""Widths beside its own that a group has at least on a relaxed grid: with 16 a group of 16 channels
would be halved or not cut. ResNet-20 at half its FLOPs: 36 % less error in the logits, judged by
samples that took no part; 0.75 times the time instead of 0.73, and 0.89 with any width."""

MOST_CORRECTIONS = 6
STEEPEST = 3.0
"""So much more, or less, may cut models cost than the widths tell; else it is a step."""

MOST_NAMED = 3
"""Groups that are named where a budget cannot be met."""


@dataclass(frozen=True)
class Choice:
    """What stays of each group, and the units that go.

    Attributes:
        off: by how much the cut model exceeds the budget, as a share of it.
        multiple_of: the grid of the widths.
    """

    curves: tuple[Curve, ...]
    dead: frozenset[int]
    off: float
    multiple_of: int


def curves_of(
    analysis: Analysis, options: PruneOptions, least: Mapping[str, int]
) -> tuple[Curve, ...]:
    """What each group may become.

    Args:
        least: units that must stay, by name of group.
    """
    found = []
    for group, lost in zip(analysis.groups, analysis.lost, strict=True):
        units = len(group.units)
        multiple, fixed = _grid(analysis.channels, group, options.multiple_of)
        widths = legal_widths(
            units,
            multiple_of=multiple,
            min_channels=max(options.min_channels, least.get(group.name, 1)),
            max_per_group=1.0 if group.name in least else options.max_per_group,
            fixed=fixed,
            fewest=FEWEST_WIDTHS if options.relaxed else 1,
        )
        harm = [max(float(lost[units - w] - lost[0]), 0.0) for w in widths]
        harm[-1] = 0.0
        found.append(Curve(group.name, widths, tuple(harm)))
    return tuple(found)


def least_widths(analysis: Analysis, options: PruneOptions) -> dict[str, int]:
    """Units of each group that must stay in whatever rounds follow."""
    return {
        group.name: max(1, len(group.units) - int(len(group.units) * options.max_per_group + 1e-9))
        for group in analysis.groups
    }


def _grid(channels: Channels, group: ChannelGroup, multiple_of: int) -> tuple[int, int]:
    """What the number of units should be a multiple of, and what else lies on their axis."""
    role = (*group.producers, *group.consumers)[0]
    label = channels.tracker.axes(role.weight)[role.axis]
    if isinstance(label, str):
        return 1, 0
    roots = channels.tracker.atoms.roots(label)
    own = int(np.isin(roots, group.units).sum())
    each = max(own // len(group.units), 1)
    others = len(roots) - own
    if each > 1:
        return multiple_of // math.gcd(multiple_of, each), 0
    return multiple_of, others


def choose(
    analysis: Analysis,
    meter: Meter,
    target: float,
    options: PruneOptions,
    least: Mapping[str, int],
) -> Choice:
    """The widths whose cut model comes closest to the target, on the widest grid that allows it.

    Args:
        target: what the cut model may cost, in the unit of the meter.
        least: units that must stay, by name of group.

    Raises:
        UsageError: it cannot be met.
    """
    found: list[Choice] = []
    grid = options.multiple_of
    while True:
        is_last = grid == 1 or not options.relaxed
        try:
            on_grid = replace(options, multiple_of=grid)
            found.append(_on_grid(analysis, meter, target, on_grid, least))
        except UsageError:
            if is_last and not found:
                raise
        if is_last or (found and abs(found[-1].off) <= meter.tolerated):
            return min(found, key=lambda choice: _badness(choice.off, meter))
        grid //= 2


def _on_grid(
    analysis: Analysis,
    meter: Meter,
    target: float,
    options: PruneOptions,
    least: Mapping[str, int],
) -> Choice:
    """The choice on one grid; the allocator's budget is corrected by what the cut model costs."""
    channels = analysis.channels
    curves = curves_of(analysis, options, least)
    cost = meter.by_widths(channels, analysis.groups)
    full = [len(group.units) for group in analysis.groups]
    fixed = meter.of(analysis.proto) - cost.total(full)
    # what is known of each layer may say that a budget is beyond reach, and the meter otherwise
    problem = Problem(curves, cost, target - fixed)
    cheapest = problem.total(problem.cheapest)
    aim = max(target - fixed, cheapest)
    best: Choice | None = None
    last: tuple[float, float] | None = None
    for _ in range(MOST_CORRECTIONS):
        widths = _allocated(analysis, curves, cost, aim, options, is_first=best is None)
        if widths is None:
            break
        if cost.total(widths) < (1 - meter.tolerated) * aim:
            widths = closer(curves, cost, widths, aim, meter.tolerated) or widths
        dead = dead_units(analysis, widths, curves)
        off = meter.of(channels.cut(dead)) / target - 1
        if best is None or _badness(off, meter) < _badness(best.off, meter):
            best = Choice(curves, dead, off, options.multiple_of)
        if abs(off) <= meter.close_enough:
            break
        slope = (
            1.0 if last is None or aim == last[0] else (off - last[1]) * target / (aim - last[0])
        )
        last = aim, off
        aim -= off * target / min(max(slope, 1 / STEEPEST), STEEPEST)
    assert best is not None
    if cheapest > target - fixed and best.off > meter.tolerated:
        require_possible(analysis, meter, target, options, meter.of(analysis.proto))
    return best


def require_possible(
    analysis: Analysis,
    meter: Meter,
    target: float,
    options: PruneOptions,
    whole: float,
    *,
    cost: CostByWidths | None = None,
    fixed: float | None = None,
    gone: str = "",
    less: float | None = None,
) -> None:
    """Raise UsageError if all groups at their smallest widths cost too much; say what stops it.

    Args:
        target, whole: what the model may cost, and what the original costs.
        cost, fixed: of what is left where residual blocks go too: by widths, and beside that.
        gone: these blocks, in words.
        less: from `unforeseen`, if that is known.
    """
    if cost is None or fixed is None:
        cost = meter.by_widths(analysis.channels, analysis.groups)
        full = [len(group.units) for group in analysis.groups]
        fixed = meter.of(analysis.proto) - cost.total(full)
    grid = 1 if options.relaxed else options.multiple_of
    curves = curves_of(analysis, replace(options, multiple_of=grid), {})
    problem = Problem(curves, cost, target)
    widths = problem.answer(problem.cheapest)
    remaining = fixed + cost.total(widths)
    if remaining > target:
        remaining -= unforeseen(analysis, meter, options) if less is None else less
    if remaining <= target:
        return
    is_least = widths == tuple(curve.widths[0] for curve in curves)
    smallest = "smallest" if is_least else "fastest"
    each = cost.by_owner(widths)
    parts = [sum(each.get(n, 0.0) for n in names) for names in owners(analysis.groups)]
    order = sorted(range(len(parts)), key=lambda i: -parts[i])[:MOST_NAMED]
    named = [
        f"{curves[i].name} ({widths[i]} of {curves[i].widths[-1]} channels stay, "
        f"{parts[i] / remaining:.0%} of that)"
        for i in order
    ]
    possible = math.ceil(1000 * remaining / whole + 1e-9) / 10
    rest = max(remaining - sum(parts), 0.0) / remaining
    others = f", and {rest:.0%} of it in what no group makes" if rest >= 0.005 else ""
    limits = ["raise --max-per-group"] if options.max_per_group < 1 else []
    limits += ["lower --min-channels"] if options.min_channels > 1 else []
    limits += ["lower --multiple-of"] if grid > 1 else []
    limits += [f"ask for at least {possible:g}%"] if possible < 100 else []
    most = f"; most of it in {', '.join(named)}{others}" if named else ""
    how = f"with all groups at their {smallest} widths{gone}" if curves else gone[len(" and ") :]
    raise UsageError(
        f"{100 * target / whole:.3g}% of the {cost.unit} cannot be reached: {how} "
        f"{min(possible, 100):g}% remain{most}",
        ", or ".join(limits),
    )


def unforeseen(analysis: Analysis, meter: Meter, options: PruneOptions) -> float:
    """What the model costs less at its smallest widths than its layers tell; 0 if it does not.

    The time of what lies between layers is known of whole models only.
    """
    if not analysis.rankings:  # then which units go is not known
        return 0.0
    cost = meter.by_widths(analysis.channels, analysis.groups)
    saved = cost.total([len(group.units) for group in analysis.groups])
    grid = 1 if options.relaxed else options.multiple_of
    curves = curves_of(analysis, replace(options, multiple_of=grid), {})
    problem = Problem(curves, cost, 0.0)
    widths = problem.answer(problem.cheapest)
    saved -= cost.total(widths)
    cut = analysis.channels.cut(dead_units(analysis, widths, curves))
    return max(0.0, meter.of(analysis.proto) - saved - meter.of(cut))


def _badness(off: float, meter: Meter) -> tuple[bool, bool, float]:
    """Misses that are tolerated before others, and those below the budget before those above."""
    return abs(off) > meter.tolerated, off > meter.close_enough, abs(off)


def _allocated(
    analysis: Analysis,
    curves: Sequence[Curve],
    cost: CostByWidths,
    aim: float,
    options: PruneOptions,
    *,
    is_first: bool,
) -> tuple[int, ...] | None:
    """Widths for a budget; None if a correction asks for the impossible."""
    aim = max(aim, 0.0)
    try:
        if options.strategy == "uniform":
            return tuple(uniform(curves, cost, aim))
        if options.strategy == "slr":
            return threshold(curves, cost, aim)
        if options.strategy == "complexity":
            held = owners(analysis.groups)
            assert isinstance(cost, WidthCost), "refused where it is asked for"
            return tuple(complexity(curves, cost, aim, seed=options.seed, owners=held))
        return tuple(allocate(curves, cost, aim))
    except UsageError:
        if is_first:
            raise
        return None


def dead_units(
    analysis: Analysis, widths: Sequence[int], curves: Sequence[Curve]
) -> frozenset[int]:
    """The units beyond the widths; of an axis that would lose all, the best one stays.

    Of what a layer reads the same share is chosen from what is left, at a width of its curve.
    """
    channels = analysis.channels
    given = list(zip(analysis.groups, analysis.rankings, widths, curves, strict=True))
    rank_of: dict[int, float] = {}
    dead: set[int] = set()
    for group, ranking, width, _ in given:
        order = [group.units[number] for number in ranking.order.tolist()]
        rank_of.update({unit: place / len(order) for place, unit in enumerate(order)})
        if not group.is_read:
            dead.update(order[: len(order) - width])

    def worth(unit: int) -> tuple[float, int]:
        return rank_of.get(unit, 0.0), unit

    dead = set(channels.possible(dead, worth))
    for group, ranking, width, curve in given:
        if group.is_read:
            order = [group.units[number] for number in ranking.order.tolist()]
            left = [unit for unit in order if unit not in dead]
            dead.update(left[: len(left) - _of_what_is_left(width, len(left), curve)])
    return channels.possible(dead, worth)


def _of_what_is_left(width: int, left: int, curve: Curve) -> int:
    """How many of so many channels a layer reads that was to read `width` of all of them."""
    share = width / curve.widths[-1] * left
    return min((left, *(w for w in curve.widths if w < left)), key=lambda w: (abs(w - share), w))
