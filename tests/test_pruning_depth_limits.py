"""Blocks at the limits of what can be done with them: nested, large, the only ones, interrupted."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import block_cases
import judge
import numpy as np
import onnx
import pytest
import timed_models
from cuts import weighted

from onnxopt.calibration import Calibration, load_calibration
from onnxopt.errors import CheckError, OnnxoptError, UsageError
from onnxopt.pruning import block_trials, depth, stepper
from onnxopt.pruning.asked import Job
from onnxopt.pruning.block_trials import Way, _Trial, _tried, _ways, ways_without
from onnxopt.pruning.blocks import Block, lies_inside
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.cache import Cache
from onnxopt.pruning.costs import StaticMode, measured
from onnxopt.pruning.depth import CORRELATED, SLOPE, Search, choose_blocks, together
from onnxopt.pruning.dropping import tried
from onnxopt.pruning.gap import prove_gap, standins
from onnxopt.pruning.job import run
from onnxopt.pruning.meters import Static
from onnxopt.pruning.options import Blocks, PruneOptions, Strategy
from onnxopt.pruning.plan import plan_json, read_plan
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.removal import Removed, Replaced, StandIn, without
from onnxopt.pruning.replacement import Fit, Fits
from onnxopt.pruning.results import Pruned
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.savings import Savings, block_choices
from onnxopt.pruning.two_stages import blocks_in_order
from onnxopt.signature import model_inputs

DROP = PruneOptions(blocks="drop", multiple_of=1)
PARAMS = Static("params")
CASES = {case.name: case for case in block_cases.CASES}


def samples(proto: onnx.ModelProto, folder: Path, count: int = 64) -> Calibration:
    """Drawn samples for the inputs of a model."""
    rng = np.random.default_rng(0)
    drawn: dict[str, Any] = {}
    for name, like in judge.drawn(proto, 0, 3).items():
        numbers = rng.standard_normal((count, *like.shape[1:]))
        drawn[name] = numbers > -1 if like.dtype == bool else numbers.astype(like.dtype)
    file = folder / "samples.npz"
    np.savez(file, **drawn)
    return load_calibration(file, model_inputs(proto), samples=count)


def pruner_of(
    proto: onnx.ModelProto,
    folder: Path,
    options: PruneOptions = DROP,
    *,
    workers: int = 1,
    cache: Path | None = None,
) -> Pruner:
    return Pruner(proto, samples(proto, folder), options, workers=workers, cache=cache)


def content(pruned: Pruned) -> bytes:
    return bytes(pruned.model.SerializeToString(deterministic=True))


def gone(pruned: Pruned) -> dict[str, str | None]:
    depth = pruned.rounds[0].depth
    assert depth is not None
    return {choice.block.name: choice.becomes for choice in depth.gone}


def chain(*widths: int) -> onnx.ModelProto:
    """Blocks one right behind the other, whose layers have inner channels so many."""
    weights = (f"float[{n},6,3,3] wa{i}, float[6,{n},3,3] wb{i}" for i, n in enumerate(widths))
    blocks = (
        f"a{i} = Conv<pads = [1,1,1,1]>(s{i}, wa{i}) r{i} = Relu(a{i}) "
        f"c{i} = Conv<pads = [1,1,1,1]>(r{i}, wb{i}) s{i + 1} = Add(s{i}, c{i})"
        for i in range(len(widths))
    )
    return weighted(
        f"float[N,6,6,6] x, float[6,6,1,1] w0, {', '.join(weights)}, float[5,6,1,1] wz",
        f"s0 = Conv(x, w0) {' '.join(blocks)} y = Conv(s{len(widths)}, wz)",
    )


CHAIN = chain(6, 6, 6)


@pytest.mark.parametrize("name", ["bottleneck", "squeeze and excitation", "gate last"])
def test_a_model_whose_only_channels_go_with_their_block_is_pruned(
    name: str, tmp_path: Path
) -> None:
    proto = CASES[name].model()
    made = pruner_of(proto, tmp_path, replace(DROP, reads="all")).at(Budget("params", 0.4))
    assert made.cost.parameters <= 0.4 * made.original.parameters
    if name != "squeeze and excitation":  # there the block does more harm than its channels
        assert gone(made) and not any(choice.removed for choice in made.rounds[0].groups)
    assert name != "bottleneck" or gone(made) == {"s": "shifted"}


def pinned(blocks: int) -> onnx.ModelProto:
    """Blocks of one layer each: all channels are those of the input and of the output."""
    weights = ", ".join(f"float[6,6,3,3] w{i}" for i in range(blocks))
    body = " ".join(
        f"c{i} = Conv<pads = [1,1,1,1]>({'x' if i == 0 else f'r{i - 1}'}, w{i}) "
        f"s{i} = Add({'x' if i == 0 else f'r{i - 1}'}, c{i}) r{i} = Relu(s{i})"
        for i in range(blocks)
    )
    return weighted(f"float[N,6,6,6] x, {weights}", f"{body} y = Identity(r{blocks - 1})")


@pytest.mark.parametrize("mode", ["flops", "params", "memory"])
def test_blocks_go_where_no_channel_can(mode: StaticMode, tmp_path: Path) -> None:
    found = pruner_of(pinned(4), tmp_path)
    assert not found.analysis("latency").groups and len(found.approach("latency").ways) == 4
    made = found.at(Budget(mode, 0.6))
    assert len(gone(made)) in (2, 3)
    left, whole = measured(made.cost, mode), measured(made.original, mode)
    assert left <= 0.6 * whole
    assert any("only whole blocks can go" in note for note in made.notes)
    seen = found.preview(mode, Budget(mode, 0.6))
    assert not seen.groups and sum(c.becomes is not None for c in seen.blocks) == len(gone(made))


@pytest.mark.parametrize("strategy", ["damage", "slr"])
def test_blocks_go_by_time_where_no_channel_can(strategy: Strategy, tmp_path: Path) -> None:
    proto, fake = pinned(4), timed_models.Fake(startup=0.0)
    options = replace(DROP, blocks="auto", strategy=strategy)
    made = Pruner(proto, samples(proto, tmp_path), options, stopwatch=fake.stopwatch, workers=1).at(
        Budget("latency", 0.6)
    )
    assert made.latency is not None and made.latency.reached <= 0.62
    depths = [round_.depth for round_ in made.rounds if round_.depth is not None]
    assert len(depths) == 1 and depths[0].gone


def test_blocks_are_chosen_again_for_the_budget_as_measuring_corrected_it(tmp_path: Path) -> None:
    """Half of the time stays whatever goes: a budget of 0.75 is one of 0.5 as it is predicted."""
    proto, found = pinned(4), {}
    for startup, share in ((0.5, 0.75), (0.0, 0.75), (0.0, 0.5)):
        fake = timed_models.Fake(startup=startup)
        options = replace(DROP, blocks="auto")
        given = samples(proto, tmp_path)
        made = Pruner(proto, given, options, stopwatch=fake.stopwatch, workers=1).at(
            Budget("latency", share)
        )
        assert made.latency is not None and made.latency.reached <= share * 1.02
        found[startup, share] = set(gone(made))
    assert found[0.5, 0.75] == found[0.0, 0.5] > found[0.0, 0.75]


def quantized(blocks: int) -> onnx.ModelProto:
    """As exporters write it: what a layer reads and its weight are dequantized before it."""
    weights = ", ".join(f"int8[6,6,3,3] w{i}, int8[6,6,3,3] v{i}" for i in range(blocks))
    body = " ".join(
        f"f{i} = DequantizeLinear(w{i}, small, z) a{i} = Conv<pads = [1,1,1,1]>(e{i}, f{i}) "
        f"b{i} = QuantizeLinear(a{i}, s, z) c{i} = DequantizeLinear(b{i}, s, z) "
        f"g{i} = DequantizeLinear(v{i}, small, z) d{i} = Conv<pads = [1,1,1,1]>(c{i}, g{i}) "
        f"h{i} = QuantizeLinear(d{i}, s, z) j{i} = DequantizeLinear(h{i}, s, z) "
        f"t{i} = Add(j{i}, e{i}) q{i + 1} = QuantizeLinear(t{i}, s, z) "
        f"e{i + 1} = DequantizeLinear(q{i + 1}, s, z)"
        for i in range(blocks)
    )
    return weighted(
        f"float[N,6,6,6] x, {weights.replace(' v', ' wv')}",
        f"q0 = QuantizeLinear(x, s, z) e0 = DequantizeLinear(q0, s, z) {body.replace('(v', '(wv')} "
        f"y = Identity(e{blocks})",
        constants="float s = {0.05}, float small = {0.003}, int8 z = {0}",
    )


def test_of_a_quantized_model_blocks_go_by_time_and_channels_do_not(tmp_path: Path) -> None:
    """Its layers are timed at no other width."""
    proto, fake = quantized(3), timed_models.Fake(startup=0.0)
    given, options = samples(proto, tmp_path), replace(DROP, blocks="auto")
    found = Pruner(proto, given, options, stopwatch=fake.stopwatch, workers=1)
    assert found.analysis("latency").groups and not found.timed.meter.knows_widths
    made = found.at(Budget("latency", 0.8))
    assert gone(made) and made.latency is not None and made.latency.reached <= 0.82
    assert not any(choice.removed for choice in made.rounds[0].groups)
    assert any("channels cannot be chosen by time" in note for note in made.notes)
    kept = Pruner(
        proto, given, replace(options, blocks="keep"), stopwatch=fake.stopwatch, workers=1
    )
    with pytest.raises(UsageError, match=r"channels cannot be chosen by time.*none may go"):
        kept.at(Budget("latency", 0.8))


def test_a_plan_of_blocks_alone_is_replayed_to_the_same_bytes(tmp_path: Path) -> None:
    proto = pinned(4)
    np.savez(tmp_path / "some.npz", x=judge.drawn(proto, 0, 64)["x"])
    job = Job(
        Budget("flops", 0.6),
        mode="flops", options=DROP, calibration=tmp_path / "some.npz", samples=40, workers=1,
    )  # fmt: skip
    done = run(proto, job, source="", tell=lambda stage, part: None)
    file = tmp_path / "plan.json"
    file.write_text(plan_json(done.plan, done.pruned, ""))
    again = Job(plan=read_plan(file), calibration=tmp_path / "some.npz", workers=1)
    other = run(proto, again, source="", tell=lambda stage, part: None)
    assert content(other.pruned) == content(done.pruned)


def test_where_nothing_may_go_it_is_told_what_would_let_blocks_go(tmp_path: Path) -> None:
    stays: tuple[tuple[Blocks, str], ...] = (("keep", ""), ("auto", "--blocks drop lets"))
    for blocks, fix in stays:
        found = pruner_of(pinned(2), tmp_path, replace(DROP, blocks=blocks))
        with pytest.raises(UsageError, match="no channels of this model can be removed: ") as told:
            found.at(Budget("flops", 0.6))
        assert told.value.fix.startswith(fix)
    lone = weighted("float[N,6,6,6] x, float[6,6,3,3] w", "y = Conv<pads=[1,1,1,1]>(x, w)")
    with pytest.raises(UsageError, match="and no residual block can go: "):
        pruner_of(lone, tmp_path).at(Budget("flops", 0.6))


@pytest.mark.parametrize("strategy", ["damage", "slr"])
def test_blocks_alone_that_do_not_reach_a_budget_say_how_far_they_go(
    strategy: Strategy, tmp_path: Path
) -> None:
    proto = weighted(
        "float[N,6,6,6] x, float[6,6,3,3] w0, float[6,6,3,3] w1",
        """a = Conv<pads = [1,1,1,1]>(x, w0) s = Add(x, a) r = Relu(s)
        y = Conv<pads = [1,1,1,1]>(r, w1)""",
    )
    found = pruner_of(proto, tmp_path, replace(DROP, strategy=strategy))
    with pytest.raises(UsageError, match=r": without 1 of 1 residual blocks 5\d\.?\d*% remain"):
        found.at(Budget("params", 0.3))


def test_of_nested_blocks_the_outer_one_takes_the_inner_ones_with_it(tmp_path: Path) -> None:
    found = pruner_of(CASES["blocks in a block"].model(), tmp_path)
    blocks = {block.name: block for block in found.approach("latency").ways}
    pairs = [(a, b) for a, b in itertools.permutations(blocks, 2) if a in blocks[b].nodes]
    assert ("s1", "s3") in pairs and ("t", "s2") in pairs
    for cheap in blocks:
        ways = {
            block: tuple(replace(w, damage=1e-6 if block.name == cheap else 1.0) for w in each[:1])
            for block, each in found.approach("latency").ways.items()
        }
        for share in (0.6, 0.15):
            target = share * PARAMS.of(found.base)
            chosen = choose_blocks(found.analysis("latency"), ways, PARAMS, target, DROP)[0]
            ordered = blocks_in_order(found.base, ways, PARAMS, 0.0)
            for taken in (chosen.ways, ordered):
                names = {way.block.name for way in taken}
                assert not any(a in names and b in names for a, b in pairs)


def test_all_sets_of_nested_blocks_are_proved_and_cost_no_more_than_expected(
    tmp_path: Path,
) -> None:
    found = pruner_of(CASES["blocks in a block"].model(), tmp_path)
    savings = Savings(found.analysis("latency").channels, PARAMS)
    first = {block: ways[0] for block, ways in found.approach("latency").ways.items()}
    for size in (1, 2, 3):
        for some in itertools.combinations(first, size):
            made = standins(found.base, dict.fromkeys(some, "removed"), found.batches)
            assert prove_gap(found.base, made, found.batches[0]).holds
            if any(lies_inside(a, b) for a, b in itertools.permutations(some, 2)):
                continue
            left = [first[block] for block in some]
            cost = savings.left(left).total(savings.full) + savings.constant(left)
            assert cost >= PARAMS.of(without(found.base, made)) - 1e-6  # what is left may merge


def test_gaps_in_a_row_count_those_right_behind_whatever_lies_inside(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    savings = Savings(found.analysis("latency").channels, PARAMS)
    ways = [each[0] for each in found.approach("latency").ways.values()]
    search = Search(found.analysis("latency"), found.approach("latency").ways, savings, 1.0, DROP)

    def runs(*taken: Way) -> list[int]:
        return [search._run(way.block, frozenset(taken)) for way in ways]

    assert runs() == [1, 1, 1]
    assert runs(ways[1]) == [2, 1, 1]
    assert runs(ways[1], ways[2]) == [3, 2, 1]
    assert runs(ways[2]) == [1, 2, 1]
    inner = replace(ways[1].block, name="inner", exit=ways[1].block.nodes[1], nodes=())
    within: dict[Block, tuple[Way, ...]] = {
        ways[0].block: (ways[0],),
        inner: (replace(ways[1], block=inner),),
        ways[1].block: (ways[1],),
        ways[2].block: (ways[2],),
    }
    search = Search(found.analysis("latency"), within, savings, 1.0, DROP)
    assert runs(ways[1]) == [2, 1, 1]
    assert runs(within[inner][0]) == [2, 1, 1]


def test_blocks_are_tried_where_inputs_are_too_large_to_hold_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = weighted(
        "float[1,4,16,16] x, float[4,4,1,1] w0, float[4,4,3,3] w1, float[4,4,3,3] w2, "
        "float[4,4,1,1] w3",
        """a = Conv<strides = [4,4]>(x, w0) c = Conv<pads = [1,1,1,1]>(a, w1) r = Relu(c)
        d = Conv<pads = [1,1,1,1]>(r, w2) s = Add(a, d) t = Conv(s, w3) y = Neg(t)""",
    )
    monkeypatch.setattr(stepper, "LARGEST_FRONTIER_BYTES", 12 * 4 * 4 * 16 * 16)
    found = pruner_of(proto, tmp_path)
    assert len(found.batches) == 64
    (ways,) = found.approach("latency").ways.values()
    assert 0.1 < ways[0].damage < 2


def damages(found: Pruner, cache: Cache) -> list[list[float]]:
    rounds = found._rounds("latency", None)
    ways = ways_without(
        found.base, found._channels(), rounds.blocks(), found.batches, saved=cache.pieces("blocks")
    )
    return [[way.damage for way in each] for each in ways.values()]


def test_what_is_known_of_some_blocks_changes_no_bit_of_the_others(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    cache = Cache(tmp_path / "cache")
    first = damages(found, cache)
    pieces = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(pieces) == 3
    for kept in pieces:
        for piece in pieces:
            if piece != kept:
                piece.unlink()
        assert damages(found, cache) == first
    cache.found = 0
    assert damages(found, cache) == first and cache.found == 3


def test_any_number_of_workers_and_any_interruption_lead_to_the_same_bytes(tmp_path: Path) -> None:
    budget, cache = Budget("params", 0.3), tmp_path / "cache"
    options = replace(DROP, max_per_group=0.4)
    alone = pruner_of(CHAIN, tmp_path, options).at(budget)
    assert gone(alone)
    assert content(pruner_of(CHAIN, tmp_path, options, workers=3, cache=cache).at(budget)) == (
        content(alone)
    )
    pieces = sorted(cache.glob("blocks-*/*.npz"))
    assert len(pieces) == 3
    for piece in (*pieces[:2], *sorted(cache.glob("refits-*/*.npz"))[1:]):
        piece.unlink()
    assert content(pruner_of(CHAIN, tmp_path, options, cache=cache).at(budget)) == content(alone)


def test_the_blocks_of_a_transformer_are_tried_and_go(tmp_path: Path) -> None:
    found = pruner_of(judge.tiny("attention"), tmp_path, replace(DROP, max_per_group=0.3))
    ways = {block.name: ways for block, ways in found.approach("latency").ways.items()}
    kinds = {block.name: block.kind for block in found.approach("latency").ways}
    assert kinds == {"sum1": "attention", "sum2": "mlp"}
    assert [way.kind for way in ways["sum2"]] == ["removed", "shifted", "replaced"]
    lost = [way.damage for way in ways["sum2"]]
    assert lost == sorted(lost, reverse=True)
    made = found.at(Budget("params", 0.6))
    assert gone(made) and made.rounds[0].depth is not None and made.rounds[0].depth.proof.holds
    assert made.cost.parameters <= 0.61 * made.original.parameters


def test_a_finer_grid_is_tried_before_a_budget_is_refused(tmp_path: Path) -> None:
    coarse = replace(DROP, multiple_of=8, relaxed=True)
    fine = pruner_of(CHAIN, tmp_path).preview("params", Budget("params", 0.03))
    made = pruner_of(CHAIN, tmp_path, coarse).preview("params", Budget("params", 0.03))
    assert made.widths == fine.widths


@pytest.mark.parametrize("pattern", ["sum", "first"])
def test_neither_the_nodes_nor_the_sum_of_a_block_that_is_ignored_go(
    pattern: str, tmp_path: Path
) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(CHAIN)
    names = {"a1": "first", "s2": "sum"}
    for node in proto.graph.node:
        node.name = names.get(node.output[0], f"node_{node.output[0]}")
    found = pruner_of(proto, tmp_path, replace(DROP, ignore=(pattern,)))
    assert [block.exit for block in found.approach("latency").ways] == ["s1", "s3"]


def test_it_is_told_where_blocks_were_looked_at_and_all_stay(tmp_path: Path) -> None:
    made = pruner_of(CHAIN, tmp_path).at(Budget("params", 0.98))
    depth = made.rounds[0].depth
    assert depth is not None and len(depth.blocks) == 3 and not depth.gone and not depth.refits


def test_a_block_whose_channels_are_not_known_cannot_be_shifted(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    block = replace(next(iter(found.approach("latency").ways)), axis=None)
    with pytest.raises(CheckError, match=r"'s1' cannot be shifted"):
        standins(found.base, {block: "shifted"}, found.batches)


def test_all_fail_with_words_where_nothing_is_enough(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path, replace(DROP, min_channels=6))
    with pytest.raises(UsageError, match=r"without 3 of 3 residual blocks [\d.]+% remain") as told:
        found.at(Budget("params", 0.01))
    assert isinstance(told.value, UsageError)
    possible = float(told.value.fix.split()[-1].rstrip("%")) / 100
    assert gone(found.at(Budget("params", possible)))
    with pytest.raises(OnnxoptError):
        found.at(Budget("params", possible - 0.002))


def test_damage_is_judged_on_batches_that_nothing_was_fitted_to(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    nothing = {name: np.zeros_like(array) for name, array in found.batches[0].items()}

    def lost(*batches: Batch) -> list[float]:
        ways = ways_without(
            found.base,
            found._channels(),
            found._rounds("latency", None).blocks(),
            batches,
            is_repaired=False,
        )
        return [each[0].damage for each in ways.values()]

    assert lost(found.batches[0], nothing) == [0, 0, 0]
    assert all(damage > 0.01 for damage in lost(nothing, found.batches[0]))


def test_what_takes_more_time_must_leave_clearly_less_of_the_error(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    block = next(iter(found.approach("latency").ways))
    offset, matrix = np.ones(6, np.float32), np.eye(6, dtype=np.float32)
    standins: tuple[StandIn, ...] = (Removed(), Removed(offset), Replaced(matrix, offset))

    def fits(*errors: float) -> Fits:
        return Fits(*(Fit(s, error) for s, error in zip(standins, errors, strict=True)))

    assert list(_tried(fits(1.0, 0.95, 0.8))) == ["removed", "replaced"]
    assert list(_tried(fits(1.0, 0.85, 0.8))) == ["removed", "shifted"]
    assert list(_tried(fits(1.0, 1.2, 1.1))) == ["removed"]
    assert list(_tried(Fits(Fit(Removed(), 1.0)))) == ["removed"]
    all_three = fits(1.0, 0.5, 0.2)

    def kept(*damages: float | None) -> list[str]:
        return [way.kind for way in _ways(block, all_three, damages)]

    assert kept(1.0, 0.5, 0.2) == ["removed", "shifted", "replaced"]
    assert kept(1.0, 0.95, 0.8) == ["removed", "replaced"]
    assert kept(1.0, 2.0, 1.5) == ["removed"]
    assert kept(None, 0.5, 0.49) == ["shifted"]
    assert kept(None, None, None) == []


def test_a_block_whose_loss_no_output_shows_in_numbers_is_left_out(tmp_path: Path) -> None:
    found = pruner_of(CASES["quantized"].model(), tmp_path)
    rounds = found._rounds("latency", None)
    assert len(rounds.blocks()) == 1 and tried(rounds) == {}


@pytest.mark.parametrize(("most", "last"), [(6, ["t0", "t1", "t2", "t3"]), (2, ["t0", "t1"])])
def test_layers_up_to_the_next_sum_are_refitted_behind_a_gap_but_not_too_many(
    most: int, last: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = " ".join(f"t{i} = Conv(u{i}, wt{i}) u{i + 1} = Relu(t{i})" for i in range(4))
    proto = weighted(
        "float[N,4,4,4] x, "
        + ", ".join(f"float[4,4,1,1] w{name}" for name in ("0", "1", "2", "3", "4"))
        + "".join(f", float[4,4,1,1] wt{i}" for i in range(4)),
        "s0 = Conv(x, w0) a = Conv(s0, w1) ra = Relu(a) b = Conv(ra, w2) s1 = Add(s0, b) "
        f"c = Conv(s1, w3) rc = Relu(c) d = Conv(rc, w4) s2 = Add(s1, d) u0 = Relu(s2) {tail} "
        "y = Neg(u4)",
    )
    monkeypatch.setattr(block_trials, "MOST_FOLLOWING", most)
    found = pruner_of(proto, tmp_path)
    trial = _Trial(found.base, found._channels(), found.batches, is_repaired=True)
    first, second = found._rounds("latency", None).blocks()
    assert [layer.output for layer in trial._behind(first)] == ["c", "d"]
    assert [layer.output for layer in trial._behind(second)] == last


def test_no_step_of_the_search_leads_to_a_block_inside_of_another_that_is_gone(
    tmp_path: Path,
) -> None:
    found = pruner_of(CASES["blocks in a block"].model(), tmp_path)
    savings = Savings(found.analysis("latency").channels, PARAMS)
    search = Search(
        found.analysis("latency"),
        found.approach("latency").ways,
        savings,
        0.2 * savings.whole,
        DROP,
    )
    pending, seen = [frozenset[Way]()], set[frozenset[Way]]()
    while pending:
        gone = pending.pop()
        seen.add(gone)
        blocks = [way.block for way in gone]
        assert not any(lies_inside(a, b) for a, b in itertools.permutations(blocks, 2))
        assert len({block.exit for block in blocks}) == len(blocks)
        pending += [s for s in search.promising(gone, search.value(gone)) if s not in seen]
    names = {frozenset(way.block.exit for way in gone) for gone in seen}
    assert {frozenset(), frozenset({"s3"}), frozenset({"s1", "s2"})} <= names


def test_a_search_goes_back_where_a_block_is_not_worth_what_it_costs(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    savings = Savings(found.analysis("latency").channels, PARAMS)
    search = Search(
        found.analysis("latency"),
        found.approach("latency").ways,
        savings,
        0.2 * savings.whole,
        DROP,
    )
    one, two, three = (each[0] for each in found.approach("latency").ways.values())
    steps = list(search.promising(frozenset({one, two}), search.value(frozenset({one, two}))))
    assert frozenset({one}) in steps and frozenset({two}) in steps
    assert frozenset({one, two, three}) in steps


def test_errors_of_gaps_and_of_widths_add_up_to_more_than_their_sum() -> None:
    assert together(0.0, 0.3) == 0.3
    assert together(0.2, 0.2) == pytest.approx(0.2 + 0.2 + 2 * CORRELATED * 0.2)
    assert together(0.1, 0.4) == together(0.4, 0.1) > 0.5
    assert together(np.inf, 0.0) == together(0.0, np.inf) == np.inf


def test_what_gaps_behind_would_have_repaired_stays_lost(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    savings = Savings(found.analysis("latency").channels, PARAMS)
    first, middle, last = (each[0] for each in found.approach("latency").ways.values())
    repaired = Search(found.analysis("latency"), found.approach("latency").ways, savings, 1.0, DROP)
    plain = replace(DROP, compensation="none")
    alone = Search(found.analysis("latency"), found.approach("latency").ways, savings, 1.0, plain)
    none = frozenset[Way]()
    for way in (first, middle, last):
        assert alone._damage(way, frozenset({first, last})) == way.damage
        assert repaired._damage(way, none) < way.damage
    # the more there is behind, the more is repaired of it
    shares = [repaired._damage(way, none) / way.damage for way in (first, middle, last)]
    assert shares == sorted(shares)
    gap = frozenset({last})
    assert repaired._damage(first, gap) > repaired._damage(first, none)
    assert repaired._damage(last, frozenset({first})) == repaired._damage(last, none)
    curves = zip(repaired._curves(gap), repaired._curves(none), repaired.members, strict=True)
    for now, before, names in curves:
        place = min(repaired.places[name] for name in names)
        inside = place < repaired.places[last.block.nodes[-1]]
        assert (now.damage[0] > before.damage[0]) == inside, now.name
    assert alone._curves(gap) == alone._curves(none)


def test_the_most_promising_step_is_close_to_the_best_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pruner_of(chain(4, 12, 6, 16, 8, 10), tmp_path)
    savings = Savings(found.analysis("latency").channels, PARAMS)
    monkeypatch.setattr(depth, "TRIED", 1)
    none = frozenset[Way]()
    for damage, share in itertools.product((0.01, 0.5), (0.8, 0.5, 0.3)):
        ways = {
            b: (replace(each[0], damage=damage),)
            for b, each in found.approach("latency").ways.items()
        }
        target = share * savings.whole
        search = Search(found.analysis("latency"), ways, savings, target, DROP)
        value = search.value(none)
        best = min(search.value(frozenset(each)).damage for each in ways.values())
        first = next(iter(search.promising(none, value)))
        assert search.value(first).damage <= 1.2 * best
        less = Search(found.analysis("latency"), ways, savings, SLOPE * target, DROP).value(none)
        lost, saved = less.of_widths - value.of_widths, (1 - SLOPE) * target
        assert 0.5 < search._price(none, value) * saved / lost < 2
    beyond = Search(found.analysis("latency"), found.approach("latency").ways, savings, 1.0, DROP)
    assert beyond._price(none, beyond.value(none)) == np.inf


def test_blocks_that_go_are_told_in_the_order_of_the_model(tmp_path: Path) -> None:
    found = pruner_of(chain(6, 6, 6, 6), tmp_path)
    ways = {
        b: (replace(each[0], damage=1e-6),) for b, each in found.approach("latency").ways.items()
    }
    for turned in (ways, dict(reversed(ways.items()))):
        chosen = choose_blocks(found.analysis("latency"), turned, PARAMS, 150, DROP)[0]
        names = [way.block.exit for way in chosen.ways]
        assert len(names) >= 3 and names == sorted(names)


def test_the_layers_of_a_block_cost_what_their_own_weights_are(tmp_path: Path) -> None:
    found = pruner_of(CHAIN, tmp_path)
    weights = 2 * 6 * 6 * 3 * 3
    for mode, each in (("params", 1), ("flops", 2 * 6 * 6)):
        savings = Savings(found.analysis("latency").channels, Static(mode))  # type: ignore[arg-type]
        costs = [savings.layers(block) for block in found.approach("latency").ways]
        assert costs == pytest.approx([each * weights] * 3, rel=0.05)  # biases beside them
    shared = onnx.ModelProto()
    shared.CopyFrom(CHAIN)
    for node in shared.graph.node:
        node.input[:] = ["wa0" if name == "wa1" else name for name in node.input]
    found = pruner_of(shared, tmp_path)
    savings = Savings(found.analysis("latency").channels, PARAMS)
    costs = [savings.layers(block) for block in found.approach("latency").ways]
    assert costs == pytest.approx([weights / 2, weights / 2, weights], rel=0.05)
    for (
        block,
        ways,
    ) in found.approach("latency").ways.items():  # what stays, since others read it, is not saved
        left = PARAMS.of(without(found.base, {block: ways[0].standin}))
        assert savings.saved(ways[0]) == pytest.approx(savings.whole - left)
    fit = Fit(Replaced(np.eye(6, dtype=np.float32), np.zeros(6, np.float32)), 0.1)
    maps = {
        b: (Way(b, "replaced", fit.standin, 0.1), *each)
        for b, each in found.approach("latency").ways.items()
    }
    for choice in block_choices(savings, maps, [next(iter(maps.values()))[0]]):
        block = next(b for b in maps if b.name == choice.block.name)
        assert choice.block.share == pytest.approx(savings.layers(block) / savings.whole)
        assert choice.block.replaced == 0.1 and choice.block.removed == maps[block][1].damage
        assert choice.becomes == ("replaced" if block.exit == "s1" else None)


def test_a_block_that_saves_much_goes_before_one_that_does_less_harm(tmp_path: Path) -> None:
    found = pruner_of(chain(4, 24), tmp_path)
    small, large = found.approach("latency").ways.items()
    ways = {b: (replace(each[0], damage=0.1),) for b, each in (small,)}
    ways |= {b: (replace(each[0], damage=0.2),) for b, each in (large,)}
    whole = PARAMS.of(found.base)
    taken = blocks_in_order(found.base, ways, PARAMS, 0.0)
    assert [way.block.exit for way in taken] == ["s2", "s1"]
    assert [w.block.exit for w in blocks_in_order(found.base, ways, PARAMS, 0.15 * whole)] == ["s2"]
    assert blocks_in_order(found.base, ways, PARAMS, 0.9 * whole) == ()
