"""Layers that read a part of what they are given: which may, what goes with what, what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import judge
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from cuts import assert_cuts_hold, channels_of, random_cut, weighted

from onnxopt.calibration import Calibration
from onnxopt.cost import cost_of
from onnxopt.errors import UsageError
from onnxopt.graph import Array
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.costs import Mode, measured, width_cost
from onnxopt.pruning.job import run
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.options import SELECTING_MODES, WORTH_CHOOSING, PruneOptions, Reads
from onnxopt.pruning.plan import Plan, model_digest, plan_json, read_plan
from onnxopt.pruning.proof import prove
from onnxopt.pruning.prune import Pruned, Pruner
from onnxopt.pruning.sensitivity import factors
from onnxopt.pruning.statistics import rank
from onnxopt.pruning.trials import couples
from onnxopt.report.pruning_lines import group_lines
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs

SOME = PruneOptions(reads="some")
STEM = "a = Conv<pads=[1,1,1,1]>(x, w1) s = Relu(a) "
TWO_READERS = (
    "float[N,3,6,6] x, float[8,3,3,3] w1, float[6,8,3,3] wa, float[4,8,1,1] wb, float[5,10,1,1] w2",
    STEM + "c = Conv<pads=[1,1,1,1]>(s, wa) d = Conv(s, wb) b = Concat<axis=1>(c, d)"
    " e = Relu(b) y = Conv(e, w2)",
)


def two_readers() -> Channels:
    return channels_of(weighted(*TWO_READERS), selects=0)


def of(channels: Channels, name: str) -> ChannelGroup:
    return next(group for group in channels.groups if group.name == name)


def weight(proto: onnx.ModelProto, name: str) -> Array:
    return onnx.numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))


def node(proto: onnx.ModelProto, made: str) -> onnx.NodeProto:
    (found,) = (n for n in proto.graph.node if made in n.output)
    assert isinstance(found, onnx.NodeProto)
    return found


def outputs(proto: onnx.ModelProto, seed: int = 1) -> Array:
    return next(iter(Session(proto).run(judge.drawn(proto, seed)).values()))


def test_a_layer_that_shares_its_channels_reads_those_that_were_chosen_and_no_others_change() -> (
    None
):
    channels = two_readers()
    whole = channels.proto
    reads = of(channels, "c (reads)")
    small = channels.cut([reads.units[1], reads.units[6]])
    gather = node(small, node(small, "c").input[0])
    assert gather.op_type == "Gather" and gather.input[0] == "s"
    assert weight(small, gather.input[1]).tolist() == [0, 2, 3, 4, 5, 7]
    assert np.array_equal(weight(small, "wa"), weight(whole, "wa")[:, [0, 2, 3, 4, 5, 7]])
    for name in ("w1", "wb", "w2"):
        assert np.array_equal(weight(small, name), weight(whole, name))
    assert node(small, "d").input[0] == "s"


def test_channels_that_go_are_read_by_no_layer_any_more_without_a_gather() -> None:
    channels = two_readers()
    made = of(channels, "a")
    small = channels.cut(made.units[2:5])
    assert weight(small, "wa").shape == (6, 5, 3, 3) and weight(small, "wb").shape == (4, 5, 1, 1)
    assert "Gather" not in [n.op_type for n in small.graph.node]


def test_what_is_chosen_is_counted_among_the_channels_that_are_left() -> None:
    channels = two_readers()
    made, reads = of(channels, "a"), of(channels, "c (reads)")
    dead = channels.possible([made.units[0], made.units[3], reads.units[3], reads.units[5]])
    small = channels.cut(dead)
    gather = node(small, node(small, "c").input[0])
    assert weight(small, gather.input[1]).tolist() == [
        0,
        1,
        2,
        4,
        5,
    ]  # 1, 2, 4, 6, 7 of those and 5
    assert prove(channels, dead, [judge.drawn(channels.proto, 1)]).holds


def test_a_layer_always_has_something_to_read_that_is_still_made() -> None:
    channels = two_readers()
    made, reads = of(channels, "a"), of(channels, "c (reads)")
    for kept in range(8):
        unread = [unit for i, unit in enumerate(reads.units) if i != kept]
        dead = channels.possible([made.units[kept], *unread])
        assert not list(channels.emptied(dead))
        assert set(channels.tracker.following(dead)) <= dead
        assert prove(channels, dead, [judge.drawn(channels.proto, 1)]).holds


def test_everything_may_be_asked_to_go_and_one_of_each_stays() -> None:
    channels = two_readers()
    dead = channels.possible(unit for group in channels.groups for unit in group.units)
    small = channels.cut(dead)
    assert all(dim for t in small.graph.initializer for dim in t.dims)
    assert prove(channels, dead, [judge.drawn(channels.proto, 1)]).holds


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        pytest.param(
            "float[N,3,6,6] x, float[8,3,3,3] w1, float[5,8,1,1] w2",
            STEM + "y = Conv(s, w2)",
            id="what one layer reads alone goes with its maker",
        ),
        pytest.param(
            "float[N,3,6,6] x, float[8,3,3,3] w1, float[8,1,3,3] wa, float[8,1,3,3] wb",
            STEM + "c = Conv<group=8>(s, wa) d = Conv<group=8>(s, wb) y = Add(c, d)",
            id="depthwise",
        ),
        pytest.param(
            "float[N,3,6,6] x, float[8,3,3,3] w1, float[8,8,1,1] wa",
            STEM + "c = Conv(s, wa) y = Conv(c, wa)",
            id="a weight of two layers",
        ),
        pytest.param(
            "float[8,N] x, float[8,6] w1, float[8,4] wa",
            "c = Gemm<transA=1>(x, w1) d = Gemm<transA=1>(x, wa) y = Concat<axis=1>(c, d)",
            id="an input of the model, turned",
        ),
    ],
)
def test_other_layers_read_all_they_are_given(inputs: str, body: str) -> None:
    channels = channels_of(weighted(inputs, body), selects=0)
    assert not [group.name for group in channels.groups if group.is_read]


def test_channels_that_must_stay_for_somebody_else_need_not_be_read() -> None:
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[8,5] w2",
        "s = MatMul(x, w1) y = MatMul(s, w2)",
        "float s, float y",
    )
    assert not channels_of(proto).groups
    channels = channels_of(proto, selects=0)
    (reads,) = channels.groups
    small = channels.cut(reads.units[:3])
    assert weight(small, "w1").shape == (6, 8) and weight(small, "w2").shape == (5, 5)
    assert prove(channels, reads.units[:3], [judge.drawn(proto, 1)]).holds


def test_of_a_flattened_image_a_channel_is_read_at_all_places_or_at_none() -> None:
    proto = weighted(
        "float[N,3,4,4] x, float[6,3,1,1] w1, float[96,5] w2, float[96,4] w3",
        "s = Conv(x, w1) f = Flatten(s) c = Gemm(f, w2) d = Gemm(f, w3) y = Concat<axis=1>(c, d)",
    )
    channels = channels_of(proto, selects=0)
    reads = of(channels, "c (reads)")
    assert len(reads.units) == 6
    dead = reads.units[2:4]
    assert weight(channels.cut(dead), "w2").shape == (64, 5)
    assert prove(channels, dead, [judge.drawn(proto, 1)]).holds


SEQUENCE = (
    "float[N,7,6] x, float[6,8] w1, float[8,4] wa, float[8,3] wb",
    "s = MatMul(x, w1) c = MatMul(s, wa) d = MatMul(s, wb) y = Concat<axis=2>(c, d)",
)
ROWS = (
    "float[N,6] x, float[8,6] w1, float[8] wb1, float[4,8] wa, float[3,8] wb",
    "s = Gemm<transB=1>(x, w1, wb1) c = Gemm<transB=1>(s, wa) d = Gemm<transB=1>(s, wb)"
    " y = Concat<axis=1>(c, d)",
)
BATCHED = (
    "float[N,2,5,6] x, float[6,8] w1, float[2,8,4] wa, float[2,8,3] wb",
    "s = MatMul(x, w1) c = MatMul(s, wa) d = MatMul(s, wb) y = Concat<axis=3>(c, d)",
)
SIAMESE = (
    "float[N,3,6,6] x, float[8,3,3,3] w1, float[8,3,3,3] w3, float[4,8,1,1] wa, float[5,8,1,1] wb",
    "s = Conv(x, w1) t = Conv(x, w3) c = Conv(s, wa) d = Conv(t, wa) e = Conv(s, wb)"
    " f = Conv(t, wb) g = Add(c, d) h = Mul(e, f) y = Concat<axis=1>(g, h)",
)


@pytest.mark.parametrize("model", [SEQUENCE, ROWS, BATCHED, SIAMESE, TWO_READERS])
def test_random_cuts_prove_whatever_the_axis_of_the_channels(model: tuple[str, str]) -> None:
    assert_cuts_hold(proto := weighted(*model), channels_of(proto, selects=0))


def test_a_stream_that_others_have_chosen_from_already_is_one_group_with_all_its_readers() -> None:
    proto = weighted(
        "float[N,3,6,6] x, float[8,3,3,3] w1, float[6,3,3,3] wa, float[4,8,1,1] wb, "
        "float[4,8,1,1] wc",
        "s = Conv(x, w1) p = Gather<axis=1>(s, i) c = Conv<pads=[1,1,1,1]>(p, wa) d = Conv(s, wb)"
        " e = Conv(s, wc) y = Concat<axis=1>(c, d, e)",
        constants="int64[3] i = {1, 4, 5}",
    )
    channels = channels_of(proto, selects=0)
    made = of(channels, "s")
    assert len(made.units) == 8
    assert {role.weight.name for role in made.consumers} == {"wa", "wb", "wc"}
    assert_cuts_hold(proto, channels)


def test_an_ignored_layer_and_a_small_one_read_all() -> None:
    proto = weighted(*TWO_READERS)
    for made in proto.graph.node:
        made.name = made.output[0]
    feeds = judge.drawn(proto, 0)
    least = 36 * 6 * 8 * 9  # multiply-accumulates of c, of one sample
    chosen = {s: Channels(proto, feeds, selects=s).groups for s in (0, least, least + 1)}
    names = {s: [g.name for g in groups if g.is_read] for s, groups in chosen.items()}
    assert names == {0: ["c (reads)", "d (reads)"], least: ["c (reads)"], least + 1: []}
    kept = Channels(proto, feeds, ["c"], selects=0).groups
    assert "c (reads)" not in [g.name for g in kept]


@pytest.mark.parametrize("model", [TWO_READERS, SEQUENCE, ROWS])
@pytest.mark.parametrize("is_read", [True, False])
def test_the_cost_at_other_widths_is_that_of_the_cut_model(
    is_read: bool, model: tuple[str, str]
) -> None:
    channels = channels_of(weighted(*model), selects=0)
    cost = width_cost(channels, channels.groups, "flops")
    whole = cost_of(channels.cut([]))
    for seed in range(4):
        some = [group for group in channels.groups if group.is_read == is_read]
        dead = random_cut(channels, seed, some)
        # what layers cannot read any more follows in the formula by itself
        asked = {unit for group in some for unit in group.units} & dead
        widths = [len(set(group.units) - asked) for group in channels.groups]
        now = measured(cost_of(channels.cut(dead)), "flops") - measured(whole, "flops")
        full = [len(group.units) for group in channels.groups]
        assert cost.total(widths) - cost.total(full) == pytest.approx(now)


def block(seed: int = 0) -> onnx.ModelProto:
    """A residual block behind a stem, and a layer that reads their sum."""
    return weighted(
        "float[N,3,6,6] x, float[12,3,3,3] w1, float[12] wb1, float[10,12,3,3] wa, float[10] wba, "
        "float[12,10,3,3] wb, float[12] wbb, float[5,12,1,1] w2, float[5] wb2",
        STEM.replace("w1)", "w1, wb1)")
        + "c = Conv<pads=[1,1,1,1]>(s, wa, wba) d = Relu(c) e = Conv<pads=[1,1,1,1]>(d, wb, wbb)"
        " f = Add(e, s) b = Relu(f) g = Conv(b, w2, wb2) y = GlobalAveragePool(g)",
        seed=seed,
    )


def test_what_reading_less_costs_is_tried_with_the_layer_behind_making_up_for_it() -> None:
    proto = block()
    batches = [judge.drawn(proto, seed, 16) for seed in range(6)]
    channels = Channels(proto, batches[0], selects=0)
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    rankings = rank(proto, channels, channels.groups, layers, batches)
    found = couples(channels, rankings)
    number = next(i for i, group in enumerate(channels.groups) if group.name == "c (reads)")
    assert found[number].is_read
    shared = next(r for r, g in zip(rankings, channels.groups, strict=True) if g.name == "a")
    assert shared.measured and shared.readers == 2
    assert (found[number].first.weight, found[number].second.weight) == ("wa", "wb")
    alone = factors(proto, rankings, batches)[number]
    turned = factors(proto, rankings, batches, couples=found)[number]
    assert alone is not None and turned is not None
    assert 0 < turned < 0.9 * alone


def samples(proto: onnx.ModelProto, count: int = 96) -> Calibration:
    images = np.random.default_rng(0).standard_normal((count, 3, 6, 6)).astype(np.float32)
    return Calibration.from_arrays({"x": images}, model_inputs(proto))


def pruned(options: PruneOptions = SOME, share: float = 0.6) -> Pruned:
    proto = block()
    return Pruner(proto, samples(proto), options).at(Budget("flops", share))


def test_choosing_meets_the_budget_and_leaves_no_more_error() -> None:
    proto = block()
    expected = outputs(proto)
    some, all_ = pruned(), pruned(PruneOptions(reads="all"))
    error = {}
    for name, made in (("some", some), ("all", all_)):
        assert made.cost.macs == pytest.approx(
            0.6 * made.original.macs, rel=0.05
        )  # 12 units a group
        error[name] = float(np.square(outputs(made.model) - expected).mean())
    assert "Gather" in some.cost.operators and "Gather" not in all_.cost.operators
    assert error["some"] <= error["all"]


def test_a_plan_with_chosen_reads_is_replayed_to_the_same_bytes(tmp_path: Path) -> None:
    proto, made = block(), pruned()
    plan = Plan(model_digest(proto), Budget("flops", 0.6), SOME)
    file = tmp_path / "plan.json"
    file.write_text(plan_json(plan, made, "drawn"))
    again = Pruner(proto, samples(proto), read_plan(file).options).replay(read_plan(file))
    assert again.model.SerializeToString(deterministic=True) == made.model.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("count", [0, 96])
def test_a_plan_says_whether_layers_chose_whatever_samples_there_are_when_it_is_replayed(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxopt.pruning.options.WORTH_CHOOSING", 0)
    proto, file = block(), tmp_path / "samples.npz"
    np.savez(file, x=np.random.default_rng(0).standard_normal((96, 3, 6, 6)).astype(np.float32))
    options = PruneOptions(compensation="none")
    job = Job(budget=Budget("flops", 0.6), options=options, calibration=file if count else None)
    made = run(proto, job, source="m.onnx", tell=lambda stage, part: None)
    assert any(choice.group.is_read for choice in made.pruned.rounds[0].groups) == bool(count)
    (tmp_path / "plan.json").write_text(plan_json(made.plan, made.pruned, ""))
    plan = read_plan(tmp_path / "plan.json")
    again = Pruner(proto, None, plan.options, replays=True).replay(plan)
    once_more = run(proto, Job(plan=plan), source="m.onnx", tell=lambda stage, part: None)
    assert once_more.plan.options == plan.options
    assert again.model.SerializeToString(deterministic=True) == made.pruned.model.SerializeToString(
        deterministic=True
    )


def test_what_is_kept_of_layers_that_read_all_is_not_taken_where_they_choose(
    tmp_path: Path,
) -> None:
    proto = block()

    def lost(options: PruneOptions, cache: Path | None = None) -> list[bytes]:
        pruner = Pruner(proto, samples(proto), options, cache=cache)
        return [array.tobytes() for array in pruner.analysis("flops").lost]

    lost(PruneOptions(reads="all"), tmp_path)
    assert lost(SOME, tmp_path) == lost(SOME)


def test_by_the_size_of_weights_what_a_layer_weighs_least_goes_unread_first() -> None:
    proto = block()
    options = PruneOptions(reads="some", criterion="l1")
    analysis = Pruner(proto, samples(proto), options).analysis("flops")
    number = next(i for i, g in enumerate(analysis.groups) if g.name == "c (reads)")
    sizes = np.abs(weight(proto, "wa")).sum(axis=(0, 2, 3))
    assert analysis.rankings[number].order.tolist() == np.argsort(sizes).tolist()


def test_a_plan_of_before_there_was_a_choice_reads_all(tmp_path: Path) -> None:
    made = pruned(PruneOptions(reads="all"))
    file = tmp_path / "plan.json"
    text = plan_json(Plan("", Budget("flops", 0.6), PruneOptions(reads="all")), made, "drawn")
    older = text.replace('  "reads": "all",\n', "").replace('"is_read": false', '"unknown": false')
    assert '"reads"' not in older
    file.write_text(older)
    assert read_plan(file).options.reads == "all"


@pytest.mark.parametrize("reads", ["auto", "some"])
def test_a_second_round_chooses_from_what_the_first_one_left(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxopt.pruning.approach.ONE_ROUND", 0.9)
    monkeypatch.setattr("onnxopt.pruning.options.WORTH_CHOOSING", 36 * 12 * 10 * 9)  # c, uncut
    made = pruned(PruneOptions(reads=reads, max_per_group=0.8), share=0.3)
    first, second = ({choice.name for choice in done.groups} for done in made.rounds)
    assert "c (reads)" in first and "c (reads)" in second
    assert not [name for name in second if "#" in name]
    for choice in made.rounds[1].groups:
        assert choice.units == next(c for c in made.rounds[0].groups if c.name == choice.name).width
    gathers = [n for n in made.model.graph.node if n.op_type == "Gather"]
    made_by = {name: n for n in made.model.graph.node for name in n.output}
    for gather in gathers:
        before = made_by.get(gather.input[0])
        assert before is None or before.op_type != "Gather"
        assert weight(made.model, gather.input[1]).tolist() != list(range(wide(made.model, "w1")))


def wide(proto: onnx.ModelProto, name: str) -> int:
    return int(weight(proto, name).shape[0])


def test_a_gather_of_all_that_a_cut_has_left_goes() -> None:
    proto = weighted(
        "float[N,3,6,6] x, float[8,3,3,3] w1, float[6,3,3,3] wa, float[4,8,1,1] wb",
        "s = Conv(x, w1) p = Gather<axis=1>(s, i) c = Conv<pads=[1,1,1,1]>(p, wa) d = Conv(s, wb)"
        " y = Concat<axis=1>(c, d)",
        constants="int64[3] i = {1, 4, 5}",
    )
    channels = channels_of(proto)
    picked = of_stream(channels)
    left = channels.cut([picked[n] for n in (0, 2, 3, 6, 7)])
    assert "Gather" not in [n.op_type for n in left.graph.node]
    some = channels.cut([picked[n] for n in (2, 3, 6, 7)])
    assert weight(some, node(some, "p").input[1]).tolist() == [1, 2, 3]
    for small in (left, some):
        assert outputs(small).shape == outputs(proto).shape


def test_a_layer_that_chooses_once_more_has_one_gather() -> None:
    channels = two_readers()
    once = channels.cut(of(channels, "c (reads)").units[:2])
    again = channels_of(once, selects=0)
    twice = again.cut(of(again, "c (reads)").units[1:3])
    (gather,) = (n for n in twice.graph.node if n.op_type == "Gather")
    assert gather.input[0] == "s"
    assert weight(twice, gather.input[1]).tolist() == [2, 5, 6, 7]
    assert outputs(twice).shape == outputs(once).shape


def of_stream(channels: Channels) -> list[int]:
    """The unit of each of the channels that w1 makes."""
    value = next(v for v in channels.tracker.labels if v.name == "w1")
    label = channels.tracker.axes(value)[0]
    assert not isinstance(label, str)
    return [int(root) for root in channels.tracker.atoms.roots(label)]


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.7])
@pytest.mark.parametrize(
    "limits", [{"multiple_of": 4}, {"min_channels": 5}, {"max_per_group": 0.5}]
)
def test_what_is_read_keeps_to_the_limits_of_widths(limits: dict[str, Any], share: float) -> None:
    options = PruneOptions(reads="some", compensation="none", criterion="l1", **limits)
    target = Budget("params", share)
    try:
        made = Pruner(block(1), samples(block(1)), options).at(target)
    except UsageError:
        assert share < 0.5  # so far the limits do not let it go
        return
    for choice in made.rounds[0].groups:
        assert choice.width % options.multiple_of == 0 or choice.width == choice.units
        assert choice.width >= min(options.min_channels, choice.units)
        assert choice.width >= choice.units * (1 - options.max_per_group)


def test_the_report_tells_how_many_layers_choose_and_not_of_channels_that_are_gone() -> None:
    job = Job(budget=Budget("flops", 0.6), options=SOME)
    file = "samples.npz"

    def told(options: PruneOptions, share: float, folder: Path) -> tuple[str, int]:
        images = np.random.default_rng(0).standard_normal((96, 3, 6, 6)).astype(np.float32)
        np.savez(folder / file, x=images)
        asked = replace(
            job, budget=Budget("flops", share), options=options, calibration=folder / file
        )
        done = run(block(), asked, source="m.onnx", tell=lambda stage, part: None)
        (line,) = [text for text in group_lines(done.report) if text.startswith("reads: ")]
        gathers = [n for n in done.pruned.model.graph.node if n.op_type == "Gather"]
        return line, len(gathers)

    with TemporaryDirectory() as folder:
        for options, share in ((SOME, 0.6), (replace(SOME, multiple_of=4), 0.25)):
            line, count = told(options, share, Path(folder))
            assert line.startswith(f"reads: {count} of 2 layers that may choose read a part")


def test_whether_layers_choose_is_settled_by_the_budget_the_samples_and_the_strategy() -> None:
    auto = PruneOptions()
    for mode in SELECTING_MODES:
        assert auto.settled(mode, has_samples=True).least_choosing == WORTH_CHOOSING
        assert auto.settled(mode, has_samples=False).least_choosing is None
        uniform = replace(auto, strategy="uniform").settled(mode, has_samples=True)
        assert uniform.least_choosing is None
        assert SOME.settled(mode, has_samples=True).least_choosing == 0
    others: tuple[Mode, ...] = ("memory", "latency")
    for mode in others:
        assert auto.settled(mode, has_samples=True).least_choosing is None
        with pytest.raises(UsageError, match="Gather before a layer costs"):
            SOME.settled(mode, has_samples=True)
    with pytest.raises(UsageError, match="strategy uniform knows no layers"):
        PruneOptions(reads="some", strategy="uniform")
