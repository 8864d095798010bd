"""Which residual blocks to do without, so that all that is asked for is met with least damage.

One knapsack, whose choices are a width for each group of channels, and for each block whether it
stays, goes, or is replaced by a linear map. A block that goes saves all that its layers take at
whatever widths, their start-up among it; then its own groups cost nothing. So for each set of
blocks the widths of the rest are a problem of their own (`allocate.py`), and the set is searched:
each step takes out, or brings back, the block that lowers the expected damage most. That tells sets
apart to within a tenth at best, so several of the best are handed on (`contest.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxopt.pruning.allocate import Curve, roughly
from onnxopt.pruning.analysis import Analysis
from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.blocks import Block, lies_inside
from onnxopt.pruning.choosing import curves_of
from onnxopt.pruning.curves import Problem
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.removal import without
from onnxopt.pruning.savings import Savings
from onnxopt.pruning.sensitivity import REPAIRED

TRIED = 3
"""Ways that are tried in full in each step, the most promising first."""

MOST_CORRECTIONS = 3
"""Searches, each with the budget corrected by what the last one's model costs indeed: what several
blocks save together need not be the sum of what each of them does."""

CORRELATED = 0.4
"""How alike the errors are that gaps and narrow layers leave in the outputs: with gaps alone these
are A, with the widths alone B, with both A + B + 2 c sqrt(A B). Of a ResNet-56 on calibration
samples that took no part c was 0.22 to 0.45, for 4 to 13 gaps at 0.4 of the FLOPs."""

IN_A_ROW = 0.65
"""The damage of a gap grows with the gaps right behind it, to this power of their number: what
would make up for it is gone as well. Six blocks of a ResNet-56 in a row do 3 times the damage of
six that are apart."""

PATIENCE = 5
"""So many steps that are no better in a row are taken; the first gaps often cost more than they
give, and several together less."""

LIKELY = 1.5
"""Sets are handed on whose expected damage is at most this times the least. On a ResNet-56 at 0.4
of the FLOPs two blocks fewer were expected to do 9 % more damage than none, and did 5 % less, on
calibration samples that took no part."""

SLOPE = 0.97
"""A price is what widths would lose more if the budget were this share of it."""

Ways = Mapping[Block, Sequence[Way]]
Gone = frozenset[Way]


@dataclass(frozen=True)
class Value:
    """What a set of blocks leads to: the smaller the better.

    Attributes:
        excess: by how much the cost at the smallest widths exceeds the budget; 0 if it does not.
        of_blocks, of_widths: expected damage.
        widths: of all groups; empty where the budget cannot be met.
    """

    excess: float
    of_blocks: float
    of_widths: float
    widths: tuple[int, ...] = ()

    @property
    def damage(self) -> float:
        """Of both together."""
        return together(self.of_blocks, self.of_widths)

    @property
    def order(self) -> tuple[float, float]:
        return self.excess, self.damage


def together(one: float, other: float) -> float:
    """The damage of two causes whose errors are correlated."""
    if math.isinf(one) or math.isinf(other):
        return math.inf
    return one + other + 2 * CORRELATED * math.sqrt(one * other)


@dataclass(frozen=True)
class Chosen:
    """The blocks to do without, and how, in the order of the model; and what that leads to."""

    ways: tuple[Way, ...]
    value: Value

    @property
    def key(self) -> list[list[str]]:
        """What tells it from other sets, as plain data."""
        return [[way.block.name, way.kind] for way in self.ways]


def choose_blocks(
    analysis: Analysis,
    ways: Ways,
    meter: Meter,
    target: float,
    options: PruneOptions,
    tell: Callable[[float], None] = lambda done: None,
) -> tuple[Chosen, ...]:
    """Search the set of blocks to do without: the best that is found, and then its rivals.

    Rivals are expected to do little more damage, and each does without another number of blocks.

    Args:
        analysis: of the model with all its blocks.
        ways: by block.
        target: what the model may cost, in the unit of the meter.
        tell: is told how much is done, 0 to 1.
    """
    savings, aim = Savings(analysis.channels, meter), target
    for _ in range(MOST_CORRECTIONS):
        search = Search(analysis, ways, savings, aim, options)
        gone, value = _searched(search, tell)
        if value.excess:
            break
        left = meter.of(without(analysis.proto, {way.block: way.standin for way in gone}))
        off = left - savings.constant(gone) - savings.left(gone).total(savings.full)
        missed = target - off - aim
        if abs(missed) <= meter.close_enough * target:
            break
        aim += missed
    return tuple(
        Chosen(
            tuple(sorted(ways, key=lambda way: search.places[way.block.exit])), search.value(ways)
        )
        for ways in (gone, *_rivals(search, gone))
    )


def _rivals(search: Search, best: Gone) -> list[Gone]:
    """Sets that may be as good as the best: of each other number of blocks the best one."""
    most = LIKELY * search.value(best).damage
    of_size: dict[int, tuple[tuple[float, float], Gone]] = {}
    for gone, value in search.known():
        if not value.excess and value.damage <= most and len(gone) != len(best):
            of_size.setdefault(len(gone), (value.order, gone))
            if value.order < of_size[len(gone)][0]:
                of_size[len(gone)] = value.order, gone
    return [of_size[size][1] for size in sorted(of_size)]


def _searched(search: Search, tell: Callable[[float], None]) -> tuple[Gone, Value]:
    """From no block on the best step each time, to where it has not been; the best on the way."""
    gone: Gone = frozenset()
    value = search.value(gone)
    best, been, patience = (value, gone), {gone}, PATIENCE
    while patience:
        tell(len(gone) / max(len(search.ways), 1))
        steps = [(search.value(s), s) for s in search.promising(gone, value) if s not in been]
        if patience < PATIENCE:  # a way back leads nowhere new
            steps = [(found, s) for found, s in steps if len(s) > len(gone)]
        if not steps:
            break
        value, gone = min(steps, key=lambda pair: pair[0].order)
        been.add(gone)
        if value.order < best[0].order:
            best, patience = (value, gone), PATIENCE
        else:
            patience -= 1
    return best[1], best[0]


class Search:
    """One problem: the value of a set of blocks, and the sets next to it."""

    def __init__(
        self,
        analysis: Analysis,
        ways: Ways,
        savings: Savings,
        target: float,
        options: PruneOptions,
    ) -> None:
        self.ways, self.savings, self.target = ways, savings, target
        self.is_repaired = options.compensation != "none"
        self.curves = curves_of(analysis, options, {})
        nodes = analysis.proto.graph.node
        self.nodes = max(len(nodes), 1)
        self.places = {name: place for place, node in enumerate(nodes) for name in node.output}
        self.members = [
            frozenset(r.node.outputs[0].name for r in (*group.producers, *group.consumers))
            for group in analysis.groups
        ]
        self._values: dict[Gone, Value] = {}

    def value(self, gone: Gone) -> Value:
        if gone not in self._values:
            self._values[gone] = self._valued(gone)
        return self._values[gone]

    def known(self) -> Iterator[tuple[Gone, Value]]:
        """All sets that have been valued."""
        yield from self._values.items()

    def _valued(self, gone: Gone) -> Value:
        curves, cost = self._curves(gone), self.savings.left(gone)
        budget = self.target - self.savings.constant(gone)
        widths = roughly(curves, cost, max(budget, 0.0)) if budget >= 0 else None
        if widths is None:
            problem = Problem(curves, cost, budget)
            least = problem.total(problem.cheapest)
            return Value(max(least - budget, 1e-300), math.inf, math.inf)
        lost = sum(self._damage(way, gone) for way in gone)
        return Value(0.0, lost, _damage(curves, widths), widths)

    def promising(self, gone: Gone, value: Value) -> Iterator[Gone]:
        """The sets next to this one that seem best at the present widths and price."""
        widths = value.widths or tuple(curve.widths[0] for curve in self.curves)
        price, curves = self._price(gone, value), self._curves(gone)
        each = self.savings.left(gone).by_owner(widths)
        out = {name for way in gone for name in (way.block.exit, *way.block.nodes)}
        ranked = []
        for block in self.ways:
            if block.exit in out:
                continue
            owners = self.savings.owners(block)
            layers = sum(each.get(name, 0.0) for name in owners)
            inside = sum(
                _harm(curve, width)
                for curve, width, names in zip(curves, widths, self.members, strict=True)
                if names <= owners
            )
            for way in self.ways[block]:
                saved = layers - self.savings.extra(way)
                if not math.isfinite(price):
                    ranked.append((-saved, way))
                    continue
                left = max(value.of_widths - price * saved - inside, 0.0)
                ranked.append((together(value.of_blocks + self._damage(way, gone), left), way))
        ranked.sort(key=lambda pair: pair[0])
        for _, way in ranked[:TRIED]:
            inner = frozenset(way.block.nodes)  # what lies inside goes with it
            yield frozenset(w for w in gone if w.block.exit not in inner) | {way}
        for way in sorted(gone, key=lambda way: (-self._damage(way, gone), way.block.name))[:TRIED]:
            yield gone - {way}

    def _price(self, gone: Gone, value: Value) -> float:
        """Damage of widths for each unit of cost; infinite where the budget cannot be met."""
        if not value.widths:
            return math.inf
        curves, cost = self._curves(gone), self.savings.left(gone)
        budget = SLOPE * self.target - self.savings.constant(gone)
        less = roughly(curves, cost, max(budget, 0.0))
        if less is None:
            return math.inf
        saved = cost.total(value.widths) - cost.total(less)
        lost = _damage(curves, less) - _damage(curves, value.widths)
        return max(lost, 0.0) / saved if saved > 0 else 0.0

    def _curves(self, gone: Gone) -> tuple[Curve, ...]:
        """The curves of all groups: what blocks would repair that go stays lost."""
        if not gone or not self.is_repaired:
            return self.curves
        places = [min(self.places.get(name, 0) for name in names) for names in self.members]
        return tuple(
            replace(curve, damage=tuple(self._unrepaired(place, gone) * h for h in curve.damage))
            for curve, place in zip(self.curves, places, strict=True)
        )

    def _damage(self, way: Way, gone: Gone) -> float:
        """Of one way, when the layers behind it that stay have repaired their part."""
        if not self.is_repaired:
            return way.damage
        place = self.places[way.block.exit]
        behind = math.exp(-REPAIRED * (1 - place / self.nodes))
        run = float(self._run(way.block, gone) ** IN_A_ROW)
        return way.damage * run * behind * self._unrepaired(place, gone)

    def _run(self, block: Block, gone: Gone) -> int:
        """How many blocks are gone from this one on, one right behind the other."""
        out = {way.block for way in gone} | {block}
        others = [b for b in self.ways if not any(lies_inside(o, b) for o in out)]
        blocks = [b for b in others if not any(lies_inside(b, o) for o in out)]
        following = blocks[blocks.index(block) :] if block in blocks else [block]
        return next((n for n, b in enumerate(following) if b not in out), len(following))

    def _unrepaired(self, place: int, gone: Gone) -> float:
        """What remains of damage at a place since these blocks repair nothing, as a factor."""
        behind = sum(self.places[name] > place for way in gone for name in way.block.nodes)
        return math.exp(REPAIRED * behind / self.nodes)


def _harm(curve: Curve, width: int) -> float:
    return curve.damage[curve.widths.index(width)]


def _damage(curves: Sequence[Curve], widths: Sequence[int]) -> float:
    return sum(_harm(curve, width) for curve, width in zip(curves, widths, strict=True))
