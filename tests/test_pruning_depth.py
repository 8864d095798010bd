"""Blocks and widths chosen together; blocks taken out, proved, planned and replayed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import judge
import numpy as np
import pytest
import timed_models
from digits import CALIBRATION, DIGITS, digits, digits_samples

from onnxopt.errors import CheckError, UsageError
from onnxopt.pruning import approach
from onnxopt.pruning.allocate import roughly
from onnxopt.pruning.asked import Job
from onnxopt.pruning.block_trials import Way
from onnxopt.pruning.blocks import Block
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.contest import Contest
from onnxopt.pruning.curves import Curve, Problem
from onnxopt.pruning.depth import Search, choose_blocks
from onnxopt.pruning.gap import prove_gap, standins
from onnxopt.pruning.job import Done, run
from onnxopt.pruning.meters import Static
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.plan import plan_json, read_plan
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.removal import Removed, Replaced, without
from onnxopt.pruning.savings import Savings
from onnxopt.pruning.tables import LayerTerm, TableCost
from onnxopt.pruning.threshold import threshold
from onnxopt.pruning.two_stages import SHARES, blocks_in_order, first_target
from onnxopt.pruning.widths import Factor, Term, WidthCost
from onnxopt.runtime import Session

FLOPS = Static("flops")
QUICK = PruneOptions(compensation="none", blocks="drop")
WIDE = replace(QUICK, max_per_group=0.2)
"""Channels alone go no further than 0.66 of the FLOPs."""


@cache
def pruner(options: PruneOptions = QUICK, samples: int = 64) -> Pruner:
    return Pruner(digits(), digits_samples(samples), options, workers=1)


def made_up_ways(damages: dict[str, float]) -> dict[Block, tuple[Way, ...]]:
    """The blocks of the model, with other damages."""
    return {
        block: tuple(replace(way, damage=damages[block.name]) for way in found[:1])
        for block, found in pruner().approach("latency").ways.items()
    }


def test_every_block_of_the_model_can_be_done_without_and_shows_it() -> None:
    ways = pruner().approach("latency").ways
    assert len(ways) == 4
    for block, found in ways.items():
        assert found[0].kind == "removed" and all(way.block is block for way in found)
        assert all(way.damage > 1e-4 for way in found)


def test_refits_of_the_next_block_make_up_for_most_of_a_gap() -> None:
    alone = {
        block.name: ways[0].damage for block, ways in pruner().approach("latency").ways.items()
    }
    options = replace(QUICK, compensation="ridge")
    refitted = {
        b.name: ways[0].damage for b, ways in pruner(options, 192).approach("latency").ways.items()
    }
    assert sum(refitted[name] < 0.7 * alone[name] for name in alone) >= 3


@pytest.mark.parametrize("share", [0.75, 0.5, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_the_set_of_blocks_is_as_good_as_the_best_of_all_sets(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [block.name for block in pruner().approach("latency").ways]
    ways = made_up_ways({name: float(10 ** rng.uniform(-3, 0)) for name in names})
    target = share * FLOPS.of(pruner().base)
    found = choose_blocks(pruner().analysis("latency"), ways, FLOPS, target, QUICK)[0]
    search = Search(
        pruner().analysis("latency"),
        ways,
        Savings(pruner().analysis("latency").channels, FLOPS),
        target,
        QUICK,
    )
    sets = [
        frozenset(w[0] for w in some)
        for count in range(len(ways) + 1)
        for some in itertools.combinations(ways.values(), count)
    ]
    best = min((search.value(gone) for gone in sets), key=lambda value: value.order)
    assert found.value.damage <= 1.02 * best.damage


def test_blocks_that_do_no_harm_go_and_those_that_do_much_stay() -> None:
    names = [block.name for block in pruner().approach("latency").ways]
    ways = made_up_ways({name: 0.0 if name == names[1] else 1e3 for name in names})
    target = 0.8 * FLOPS.of(pruner().base)
    found = choose_blocks(pruner().analysis("latency"), ways, FLOPS, target, QUICK)[0]
    assert [way.block.name for way in found.ways] == [names[1]]


def test_what_is_saved_is_what_the_models_without_blocks_cost_less() -> None:
    savings = Savings(pruner().analysis("latency").channels, FLOPS)
    for ways in pruner().approach("latency").ways.values():
        for way in ways:
            left = FLOPS.of(without(pruner().base, {way.block: way.standin}))
            assert savings.saved(way) == pytest.approx(savings.whole - left)
            total = savings.left([way]).total(savings.full) + savings.constant([way])
            assert total == pytest.approx(left)


def test_blocks_of_the_second_stage_go_in_the_order_of_harm_for_what_they_save() -> None:
    names = [block.name for block in pruner().approach("latency").ways]
    ways = made_up_ways({name: float(number + 1) for number, name in enumerate(names)})
    base = pruner().base
    whole = FLOPS.of(base)
    saved = {
        found[0]: whole - FLOPS.of(without(base, {block: found[0].standin}))
        for block, found in ways.items()
    }
    order = sorted(saved, key=lambda way: way.damage / saved[way])
    target = whole - saved[order[0]] - 0.5 * saved[order[1]]
    assert blocks_in_order(base, ways, FLOPS, target) == (order[0],)
    assert len(blocks_in_order(base, ways, FLOPS, 0.0)) == len(ways)


@pytest.mark.parametrize("seed", range(6))
def test_one_threshold_leads_to_the_greatest_widths_within_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves, terms = [], []
    for number in range(3):
        widths = tuple(sorted(rng.choice(np.arange(1, 20), 5, replace=False).tolist()))
        harm = np.sort(rng.uniform(0, 1, 4))[::-1]
        curves.append(Curve(f"g{number}", widths, (*harm.tolist(), 0.0)))
        terms.append(Term(float(rng.uniform(1, 5)), (Factor(0, ((number, 1),)),), f"n{number}"))
    cost = WidthCost(tuple(terms), "FLOPs")
    full = cost.total([curve.widths[-1] for curve in curves])
    least = cost.total([curve.widths[0] for curve in curves])
    budget = float(rng.uniform(least, full))
    found = threshold(curves, cost, budget)
    assert cost.total(found) <= budget
    levels = sorted({level for curve in curves for level in harm_of_each(curve)} | {0.0})
    all_widths = [tuple(narrowed(curve, level) for curve in curves) for level in levels]
    assert found == next(widths for widths in all_widths if cost.total(widths) <= budget)


def harm_of_each(curve: Curve) -> list[float]:
    """What each channel does of harm on the way from a width to the next smaller one."""
    pairs = itertools.pairwise(zip(curve.widths, curve.damage, strict=True))
    return [(a[1] - b[1]) / (b[0] - a[0]) for a, b in pairs]


def narrowed(curve: Curve, level: float) -> int:
    """The smallest width to which no channel on the way does more harm than the threshold."""
    harm, at = harm_of_each(curve), len(curve.widths) - 1
    while at and harm[at - 1] <= level:
        at -= 1
    return curve.widths[at]


def test_where_narrower_is_not_cheaper_the_threshold_still_keeps_the_budget() -> None:
    us = {1: 10.0, 2: 4.0, 3: 12.0}
    image, width = (Factor(3, ()), 1), (Factor(0, ((0, 1),)), 1)
    cost = TableCost((LayerTerm(lambda reads, makes: us[makes], (image, width), "conv"),), "time")
    assert threshold([Curve("g", (1, 2, 3), (1.0, 0.5, 0.0))], cost, 5.0) == (2,)


def test_a_rough_choice_is_within_the_budget_and_close_to_the_good_one() -> None:
    curves = [Curve(f"g{i}", (1, 2, 4, 8), (1.0 / (i + 1), 0.4, 0.1, 0.0)) for i in range(5)]
    terms = tuple(Term(1.0, (Factor(0, ((i, 1),)),), f"n{i}") for i in range(5))
    cost = WidthCost(terms, "FLOPs")
    for budget in (6.0, 12.0, 20.0, 39.0):
        widths = roughly(curves, cost, budget)
        assert widths is not None and cost.total(widths) <= budget
    assert roughly(curves, cost, 4.0) is None
    assert roughly(curves, cost, 40.0) == Problem(tuple(curves), cost, 40.0).answer(
        Problem(tuple(curves), cost, 40.0).full
    )


def test_what_is_left_without_blocks_is_proved_and_a_wrong_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, batches = pruner().base, pruner().batches
    blocks = list(pruner().approach("latency").ways)
    made = standins(base, {blocks[0]: "replaced", blocks[2]: "removed"}, batches)
    assert isinstance(made[blocks[0]], Replaced) and isinstance(made[blocks[2]], Removed)
    assert prove_gap(base, made, batches[0]).error < 1e-5
    monkeypatch.setattr(
        "onnxopt.pruning.gap.without", lambda proto, chosen: without(proto, {blocks[1]: Removed()})
    )
    assert not prove_gap(base, made, batches[0]).holds


def done(job: Job) -> Done:
    return run(digits(), job, source=str(DIGITS), tell=lambda stage, part: None)


def job_for(budget: Budget, options: PruneOptions) -> Job:
    return Job(
        budget, mode=budget.mode, options=options, calibration=CALIBRATION, samples=64, workers=1
    )


@pytest.fixture(scope="module")
def dropped() -> Done:
    return done(job_for(Budget("flops", 0.4), WIDE))


def test_a_budget_is_met_without_blocks_and_the_model_stays_one(dropped: Done) -> None:
    report = dropped.report
    assert report.reached == pytest.approx(report.target, rel=0.02)
    depth = report.rounds[0].depth
    assert depth is not None and depth.gone and depth.proof.holds
    assert report.after.nodes < report.before.nodes
    feeds = judge.drawn(digits(), 0, 3)
    found = Session(dropped.pruned.model).run(feeds)
    assert all(np.isfinite(value).all() for value in found.values())


def test_a_plan_with_blocks_is_replayed_to_the_same_bytes(dropped: Done, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(plan_json(dropped.plan, dropped.pruned, ""))
    plan = read_plan(file)
    assert plan.rounds[0].blocks == dropped.report.rounds[0].depth.blocks  # type: ignore[union-attr]
    again = done(Job(plan=plan, calibration=CALIBRATION, workers=1))
    first, second = dropped.pruned.model, again.pruned.model
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_a_plan_of_a_block_that_is_not_there_is_refused(dropped: Done, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    data = json.loads(plan_json(dropped.plan, dropped.pruned, ""))
    gone = next(b for b in data["rounds"][0]["blocks"] if b["becomes"])
    gone["block"]["name"] = "nowhere"
    file.write_text(json.dumps(data))
    with pytest.raises(CheckError, match="no residual block 'nowhere'"):
        done(Job(plan=read_plan(file), calibration=CALIBRATION, workers=1))


def test_both_stages_of_slr_take_place_and_meet_the_budget() -> None:
    report = done(job_for(Budget("flops", 0.4), replace(QUICK, strategy="slr"))).report
    first, second = report.rounds
    assert first.depth is None and second.depth is not None and second.depth.gone
    assert any(choice.removed for choice in first.groups)
    assert report.reached == pytest.approx(report.target, rel=0.02)


def test_two_stages_reach_what_channels_alone_do_not() -> None:
    """At most a fifth of each group goes: 0.66 of the FLOPs is the end for channels."""
    found = pruner(replace(WIDE, strategy="slr")).at(Budget("flops", 0.4))
    depths = [round_.depth for round_ in found.rounds if round_.depth is not None]
    assert len(depths) == 1 and depths[0].gone
    assert found.cost.macs == pytest.approx(0.4 * found.original.macs, rel=0.02)
    for channels in found.rounds[0].groups:
        assert channels.width >= 0.8 * channels.units - 1


def test_two_stages_refuse_only_what_both_together_do_not_reach() -> None:
    with pytest.raises(UsageError, match=r"0\.01% of the FLOPs cannot be reached") as told:
        pruner(replace(QUICK, strategy="slr")).at(Budget("flops", 0.0001))
    assert "without 4 of 4 residual blocks" in told.value.what
    assert "most of it in /" in told.value.what and "ask for at least" in told.value.fix
    least = float(told.value.fix.rpartition(" at least ")[2].rstrip("%")) / 100
    found = pruner(replace(QUICK, strategy="slr")).at(Budget("flops", 1.02 * least))
    assert found.cost.macs <= 1.03 * least * found.original.macs


def test_the_first_stage_goes_as_far_as_leaves_the_least_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered: list[str] = []

    def second(entries: Mapping[str, object], *others: object, simplest_last: bool) -> Contest:
        assert not simplest_last
        offered.extend(entries)
        return Contest(offered[1], {})

    monkeypatch.setattr(approach, "least_error", second)
    found = pruner(replace(QUICK, strategy="slr")).at(Budget("flops", 0.4))
    assert offered == [f"{share:.0%} of the way by channels" for share in SHARES]
    whole = FLOPS.of(pruner().base)
    channels = Channels(pruner().base, pruner().batches[0])
    removed = [choice.removed for choice in found.rounds[0].groups]
    dead = {g.units[n] for g, gone in zip(channels.groups, removed, strict=True) for n in gone}
    left = FLOPS.of(channels.cut(frozenset(dead)))
    assert left == pytest.approx(first_target(whole, 0.4 * whole, SHARES[1]), rel=0.05)


def test_without_blocks_the_two_stages_are_one_and_that_is_told() -> None:
    kept = tuple(node.name for node in pruner().base.graph.node if node.op_type == "Add")
    found = pruner(replace(QUICK, strategy="slr", ignore=kept)).at(Budget("flops", 0.6))
    assert len(found.rounds) == 1
    assert any("slr has one stage" in note for note in found.notes)


def test_by_default_blocks_stay_where_the_budget_is_not_one_of_time() -> None:
    report = done(job_for(Budget("flops", 0.6), PruneOptions(compensation="none"))).report
    assert all(round_.depth is None for round_ in report.rounds)


def test_with_a_budget_of_time_blocks_may_go() -> None:
    fake = timed_models.Fake(startup=0.0)
    options = PruneOptions(compensation="none")
    made = Pruner(digits(), digits_samples(64), options, stopwatch=fake.stopwatch, workers=1).at(
        Budget("latency", 0.3)
    )
    assert made.rounds[0].depth is not None and made.rounds[0].depth.gone
    assert made.latency is not None
    assert made.latency.reached == pytest.approx(0.3, rel=0.05)


def test_a_preview_says_which_blocks_could_go_and_which_would() -> None:
    found = pruner(WIDE).preview("flops", Budget("flops", 0.4))
    assert len(found.blocks) == len(pruner().approach("latency").ways)
    assert any(choice.becomes for choice in found.blocks)
    assert not any(choice.becomes for choice in pruner().preview("flops").blocks)


def test_nodes_that_are_ignored_keep_their_block() -> None:
    name = next(iter(pruner().approach("latency").ways)).nodes[0]
    node = next(node for node in pruner().base.graph.node if name in node.output)
    kept = pruner(replace(QUICK, ignore=(node.name,)))
    assert len(kept.approach("latency").ways) == len(pruner().approach("latency").ways) - 1


@pytest.mark.parametrize(
    "options", [PruneOptions(blocks="drop"), PruneOptions(strategy="slr")], ids=["drop", "slr"]
)
def test_blocks_do_not_go_without_samples(options: PruneOptions) -> None:
    with pytest.raises(UsageError, match="measured on samples"):
        Pruner(digits(), None, options, workers=1)


@pytest.mark.parametrize(
    ("strategy", "blocks"), [("uniform", "drop"), ("complexity", "drop"), ("slr", "keep")]
)
def test_options_of_blocks_that_contradict_each_other_are_refused(
    strategy: str, blocks: str
) -> None:
    with pytest.raises(UsageError):
        PruneOptions(strategy=strategy, blocks=blocks)  # type: ignore[arg-type]


def test_a_budget_beyond_all_blocks_says_how_far_it_goes() -> None:
    with pytest.raises(UsageError, match=r"0\.01% of the FLOPs cannot be reached") as told:
        pruner().at(Budget("flops", 0.0001))
    assert "without 4 of 4 residual blocks" in told.value.what
    assert "most of it in /" in told.value.what  # what stands in the way, too


def test_a_model_without_blocks_is_refused_without_a_word_of_them() -> None:
    kept = tuple(node.name for node in pruner().base.graph.node if node.op_type == "Add")
    assert kept, "blocks are called by the nodes that add"
    blockless = pruner(replace(QUICK, ignore=kept))
    assert not blockless.approach("latency").ways
    with pytest.raises(UsageError, match="most of it in /") as told:
        blockless.at(Budget("flops", 0.0001))
    assert "residual" not in told.value.what
