"""Budgets of time: predicted from made-up profiles, confirmed by a stopwatch that is a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import judge
import numpy as np
import onnx
import onnx.helper
import pytest
import timed_models
from cuts import weighted
from digits import MODELS, digits, digits_samples
from profiles import FakeTime
from timed_models import Fake, profile_of

from onnxopt.calibration import Calibration
from onnxopt.errors import CheckError, UsageError
from onnxopt.latency import LayerLatency, predict
from onnxopt.profiling.machine import machine
from onnxopt.profiling.spread import Run
from onnxopt.profiling.turns import Clock
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.choosing import Choice, choose, require_possible
from onnxopt.pruning.confirming import SAME_WIDTHS, Confirming
from onnxopt.pruning.costs import width_cost
from onnxopt.pruning.dropping import chosen
from onnxopt.pruning.job import Done, preview, run
from onnxopt.pruning.latency_cost import has_timed_widths
from onnxopt.pruning.meters import Predicted, Static
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.remarks import of_latency
from onnxopt.pruning.results import Latency, LatencyTry
from onnxopt.pruning.stopwatch import against, timing_of
from onnxopt.pruning.widths import WidthCost
from onnxopt.signature import model_inputs
from onnxopt.timing import Timing

QUICK = PruneOptions(compensation="none", strategy="uniform")
ANY_WIDTH = PruneOptions(compensation="none", blocks="keep")


def pruner(fake: Fake, options: PruneOptions = ANY_WIDTH) -> Pruner:
    return Pruner(digits(), digits_samples(40), options, stopwatch=fake.stopwatch, workers=1)


@pytest.mark.parametrize(
    ("text", "amount", "relative"),
    [
        ("0.7", 0.7, True),
        ("70%", 0.7, True),
        ("-30%", 0.7, True),
        ("12ms", 12, False),
        ("1.5 ms", 1.5, False),
        ("800us", 0.8, False),
        ("2s", 2000, False),
    ],
)
def test_a_budget_of_time_is_read_as_people_write_it(
    text: str, amount: float, relative: bool
) -> None:
    found = Budget.parse("latency", text)
    assert (found.mode, found.relative) == ("latency", relative)
    assert found.amount == pytest.approx(amount)


@pytest.mark.parametrize("text", ["12", "12k", "8MB", "1.0", "0", "0ms", "-5ms", "ms", "100%"])
def test_what_is_no_time_and_no_share_of_it_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Budget.parse("latency", text)


def test_a_budget_of_time_is_told_in_its_own_words() -> None:
    assert str(Budget("latency", 0.7)) == "70% of the time"
    assert str(Budget("latency", 12, relative=False)) == "12 ms"


def meter() -> Predicted:
    made = pruner(Fake())
    return Predicted(profile_of(made.base), made.base, made.timed.feeds)


def test_the_cost_of_full_widths_is_what_is_predicted_for_the_whole_model() -> None:
    found, made = meter(), pruner(Fake())
    groups = made.analysis("latency").groups
    cost = found.by_widths(made.analysis("latency").channels, groups)
    full = [len(group.units) for group in groups]
    whole = predict(made.lossless.model, found.profile, feeds=made.timed.feeds).ms
    assert cost.total(full) == pytest.approx(found.whole_ms) == pytest.approx(whole, rel=0.02)


def test_layers_take_the_times_of_the_channels_that_their_groups_leave() -> None:
    made = pruner(Fake())
    found, channels = meter(), made.analysis("latency").channels
    layers = LayerLatency(found.profile)
    groups = made.analysis("latency").groups
    cost = found.by_widths(channels, groups)
    widths = [len(group.units) // 2 for group in groups]
    cut = made.analysis("latency").channels.cut(
        [u for g, w in zip(groups, widths, strict=True) for u in g.units[w:]]
    )
    stored = {tensor.name: list(tensor.dims) for tensor in cut.graph.initializer}
    each = cost.by_owner(widths)
    convolutions = [node for node in cut.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 10
    for node in convolutions:
        outputs, inputs = stored[node.input[1]][:2]
        wanted = layers.us(node.name, inputs, outputs) / 1000
        assert each[node.output[0]] == pytest.approx(wanted), node.name


def test_the_model_is_measured_once_and_the_cut_one_until_the_budget_is_met() -> None:
    fake = Fake(startup=0.5)
    made = pruner(fake)
    found = made.at(Budget("latency", 0.75)).latency
    assert found is not None and found.measured is not None
    assert fake.profiles == 1
    assert len(found.tries) > 1  # the first prediction knew nothing of the start-up
    assert found.measured.ratio == pytest.approx(0.75, rel=0.03)
    assert found.predicted in [tried.predicted for tried in found.tries]
    assert len(fake.timed) == len(found.tries) + 1  # and the finished one
    made.at(Budget("latency", 0.8))
    assert fake.profiles == 1


def test_a_time_is_a_share_of_what_the_profile_measured() -> None:
    made = pruner(Fake())
    whole = profile_of(made.base).steady_ms.median
    found = made.at(Budget("latency", 0.7 * whole, relative=False)).latency
    assert found is not None and found.asked == pytest.approx(0.7)
    assert found.original_ms == whole


def test_more_time_than_the_model_takes_is_no_budget() -> None:
    with pytest.raises(UsageError, match="within the budget already"):
        pruner(Fake()).at(Budget("latency", 5.0, relative=False))


def test_a_budget_that_cannot_be_met_says_how_far_it_goes_and_what_stands_in_the_way() -> None:
    with pytest.raises(UsageError) as caught:
        pruner(Fake()).at(Budget("latency", 0.05))
    assert "5% of the time cannot be reached" in caught.value.what
    assert "channels stay" in caught.value.what and "what no group makes" in caught.value.what
    assert "ask for at least" in caught.value.fix


def test_drawing_layers_by_complexity_is_refused_before_anything_is_measured() -> None:
    fake = Fake()
    with pytest.raises(UsageError, match="not by time"):
        pruner(fake, replace(QUICK, strategy="complexity")).at(Budget("latency", 0.5))
    assert not fake.profiles


def test_groups_are_shown_by_their_share_of_the_time() -> None:
    fake = Fake()
    found = pruner(fake).preview("latency", Budget("latency", 0.7))
    assert 0.3 < sum(group.share for group in found.groups) < 1
    assert any(w < g.units for w, g in zip(found.widths, found.groups, strict=True))
    assert any("a dry run predicts it" in note for note in found.notes)
    assert not fake.timed


class Machine:
    """Choices whose predicted time is what was asked for, on the grid; and what they take."""

    def __init__(self, grid: float = 0.0, factor: float = 1.2, least: float = 0.0) -> None:
        self.grid, self.factor, self.least = grid, factor, least
        self.asked: list[float] = []

    def chosen(self, target: float) -> Choice:
        self.asked.append(target)
        if target < self.least:
            raise UsageError("the smallest widths leave more", "ask for more")
        made = round(target / self.grid) * self.grid if self.grid else target
        return Choice((), frozenset([round(1e6 * made)]), made / target - 1, 1)

    def cut(self, dead: frozenset[int]) -> onnx.ModelProto:
        proto = onnx.ModelProto()
        proto.CopyFrom(digits())
        proto.doc_string = str(next(iter(dead)))
        return proto

    def time(self, proto: onnx.ModelProto) -> Timing:
        ratio = self.factor * float(proto.doc_string) / 1e6 / meter().whole_ms
        return Timing(1.0, ratio, ratio, ratio - 0.001, ratio + 0.001, 9, 1, 1)


class Cuts:
    """What stands in for channels."""

    def __init__(self, machine: Machine) -> None:
        self.cut = machine.cut


def confirmed(machine: Machine, asked: float) -> tuple[Confirming, Choice]:
    made = Confirming(asked, meter(), machine.time, lambda stage, done: None)
    return made, made(machine.chosen, Cuts(machine))  # type: ignore[arg-type]


def test_what_is_asked_for_is_rescaled_by_what_was_predicted_by_what_was_measured() -> None:
    machine = Machine(factor=1.25)
    made, choice = confirmed(machine, 0.8)
    whole = meter().whole_ms
    assert machine.asked == pytest.approx([0.8 * whole, 0.64 * whole], rel=1e-4)
    assert made.taken is not None and made.taken.measured is not None
    assert made.taken.measured.ratio == pytest.approx(0.8, rel=1e-3)
    assert made.taken.predicted == pytest.approx(0.64, rel=1e-3)
    assert choice.dead == frozenset([round(1e6 * machine.asked[1])])


def test_a_first_try_that_meets_the_budget_is_the_only_one() -> None:
    made, _ = confirmed(Machine(factor=1.01), 0.8)
    assert len(made.tries) == 1 and not made.stopped


def test_the_same_widths_again_end_the_tries_and_the_closest_are_taken() -> None:
    machine = Machine(grid=0.25 * meter().whole_ms, factor=0.8)
    made, _ = confirmed(machine, 0.66)
    assert [t.predicted for t in made.tries] == pytest.approx([0.75])
    assert made.stopped == SAME_WIDTHS


def test_where_a_correction_asks_for_the_impossible_the_best_try_is_kept() -> None:
    whole = meter().whole_ms
    made, _ = confirmed(Machine(factor=1.5, least=0.5 * whole), 0.6)
    assert len(made.tries) == 1 and made.stopped == "the smallest widths leave more"
    with pytest.raises(UsageError):
        confirmed(Machine(least=0.7 * whole), 0.6)


def test_of_several_tries_the_closest_is_taken_and_not_the_last() -> None:
    machine = Machine()
    ratios = iter([0.55, 0.52, 0.7])

    def time(proto: onnx.ModelProto) -> Timing:
        ratio = next(ratios)
        return Timing(1.0, ratio, ratio, ratio, ratio, 9, 1, 1)

    made = Confirming(0.5, meter(), time, lambda stage, done: None)
    choice = made(machine.chosen, Cuts(machine))  # type: ignore[arg-type]
    assert made.taken is made.tries[1] and len(made.tries) == 3
    assert choice.dead == machine.chosen(machine.asked[1]).dead


def latency(ratio: float, low: float, high: float, *before: float, stopped: str = "") -> Latency:
    def timing(middle: float) -> Timing:
        return Timing(1.0, middle, middle, low, high, 9, 1, 1)

    tries = tuple(LatencyTry(0.5, timing(r)) for r in before)
    return Latency(0.5, 2.0, 0.5, timing(ratio), tries, "made up", stopped)


def test_a_budget_that_is_met_needs_no_remark() -> None:
    assert not list(of_latency(latency(0.514, 0.51, 0.52, 0.51)))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (latency(0.55, 0.49, 0.6, 0.5), "10.0% more time than asked for: measurements spread"),
        (latency(0.45, 0.44, 0.46, 0.45, stopped=SAME_WIDTHS), "10.0% less .* in steps"),
        (latency(0.55, 0.54, 0.56, 0.51), "before the refits the same widths met it"),
        (latency(0.55, 0.54, 0.56, 0.6, 0.57, 0.55), "3 tries, each corrected"),
    ],
)
def test_a_miss_is_told_with_its_size_and_its_reason(found: Latency, said: str) -> None:
    (remark,) = of_latency(found)
    import re

    assert re.search(said, remark), remark


def test_a_stopwatch_leaves_out_pairs_that_others_disturbed() -> None:
    calm = [(Run(1.0, 1.0), Run(0.5, 0.5))] * 6
    disturbed = [(Run(1.0, 1.0), Run(5.0, 0.5)), (Run(9.0, 1.0), Run(0.5, 0.5))]
    found = timing_of([*disturbed, *calm, *disturbed], 4)
    assert (found.ratio, found.low, found.high) == (0.5, 0.5, 0.5)
    assert (found.first_ms, found.second_ms, found.pairs, found.batch) == (1000, 500, 6, 4)


def test_where_all_pairs_were_disturbed_the_calmest_count() -> None:
    pairs = [(Run(1.0, 0.1), Run(0.1, 0.01))] * 4
    pairs += [(Run(1.0, 0.9), Run(0.7 + i / 100, 0.6)) for i in range(5)]
    found = timing_of(pairs, 1)
    assert found.pairs == 5
    assert found.ratio == pytest.approx(0.7)


def test_others_make_runs_slower_and_so_the_fastest_ones_count() -> None:
    """Under load the larger model suffers more: the median of the pairs would say 0.4."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(100):
        first, second = (2.0, 0.8) if rng.random() < 0.6 else (1.0, 0.6)
        pairs.append((Run(first, first), Run(second, second)))
    found = timing_of(pairs, 1)
    assert (found.first_ms, found.second_ms) == (1000, 600)
    assert found.ratio == pytest.approx(0.6)
    assert found.pairs == 100 and found.low == found.high == pytest.approx(0.6)


def test_two_models_are_timed_in_the_same_turns(tmp_path: Path) -> None:
    times = FakeTime()
    feeds = pruner(Fake()).timed.feeds

    def wall() -> float:
        times.step(0.001)()
        return times.now

    found = against(digits(), digits(), feeds, Clock(wall, wall), seconds=0.05)
    assert found.pairs >= 5 and found.threads == 1 and found.batch == 1


def device_pruner(given: onnx.ModelProto, fake: Fake, options: PruneOptions = QUICK) -> Pruner:
    profile = timed_models.of_device(given)
    return Pruner(digits(), None, options, profile=profile, stopwatch=fake.stopwatch)


def test_with_the_profile_of_a_device_nothing_is_measured_here_and_that_is_said() -> None:
    fake = Fake()
    made = device_pruner(digits(), fake).at(Budget("latency", 0.7))
    found = made.latency
    assert found is not None and found.measured is None
    assert not fake.timed and not fake.profiles
    assert found.machine == "a device" and found.reached == found.predicted
    assert found.predicted == pytest.approx(0.7, rel=0.03)
    assert any("not confirmed" in note and "a device" in note for note in made.notes)


def test_a_profile_of_this_machine_with_the_same_inputs_is_confirmed_by_measuring() -> None:
    fake = Fake()
    profile = timed_models.made_up(profile_of(digits()), machine())
    made = Pruner(digits(), None, QUICK, profile=profile, stopwatch=fake.stopwatch)
    batch = len(next(iter(made.timed.feeds.values())))
    profile = timed_models.made_up(profile_of(digits(), batch), machine())
    fake.profile = profile
    made = Pruner(digits(), None, QUICK, profile=profile, stopwatch=fake.stopwatch)
    found = made.at(Budget("latency", 0.75)).latency
    assert found is not None and found.measured is not None and not fake.profiles


def test_the_profile_of_another_model_is_refused_by_the_layer_that_is_not_in_it() -> None:
    other = onnx.ModelProto()
    other.CopyFrom(digits())
    for node in other.graph.node:
        node.name = f"other{node.name}"
    with pytest.raises(UsageError, match="does not know the layer '/stem"):
        device_pruner(other, Fake()).at(Budget("latency", 0.7))


def test_the_profile_of_a_model_of_other_widths_is_refused() -> None:
    narrow = Pruner(digits(), None, QUICK).at(Budget("flops", 0.6)).model
    with pytest.raises(UsageError, match=r"channels in and .* out, in the profile"):
        device_pruner(narrow, Fake()).at(Budget("latency", 0.7))


def test_a_profile_without_widths_is_refused_with_the_way_to_get_them() -> None:
    profile = replace(timed_models.of_device(digits()), layers=())
    with pytest.raises(UsageError, match="no layers at several widths") as caught:
        Pruner(digits(), None, QUICK, profile=profile).at(Budget("latency", 0.7))
    assert "--widths" in caught.value.fix


TEST = MODELS / "digits_resnet_test.npz"


def done(monkeypatch: pytest.MonkeyPatch, fake: Fake, job: Job) -> Done:
    monkeypatch.setattr("onnxopt.pruning.prune.Pruner.__init__", _with(fake))
    return run(digits(), job, source="digits.onnx", tell=lambda stage, done: None)


def _with(fake: Fake):  # type: ignore[no-untyped-def]
    usual = Pruner.__init__

    def made(self, *given, **named):  # type: ignore[no-untyped-def]
        usual(self, *given, **{**named, "stopwatch": fake.stopwatch})

    return made


def job(**more: object) -> Job:
    made = Job(Budget("latency", 0.75), mode="latency", options=QUICK, workers=1)
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_plan_of_a_budget_of_time_is_replayed_without_a_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from onnxopt.pruning.plan import plan_json, read_plan

    fake = Fake()
    first = done(monkeypatch, fake, job())
    (tmp_path / "plan.json").write_text(plan_json(first.plan, first.pruned, ""))
    monkeypatch.undo()
    broken = Fake()
    broken._profile = broken._against = None  # type: ignore[method-assign,assignment]
    again = done(monkeypatch, broken, Job(plan=read_plan(tmp_path / "plan.json"), workers=1))
    assert again.pruned.model.SerializeToString() == first.pruned.model.SerializeToString()
    assert again.report.latency is None and again.report.budget == "75% of the time"
    assert again.report.timing is not None


def test_the_report_tells_what_the_stopwatch_measured_last(monkeypatch: pytest.MonkeyPatch) -> None:
    report = done(monkeypatch, Fake(), job()).report
    assert report.latency is not None and report.timing is report.latency.measured
    assert report.reached / report.target == pytest.approx(
        report.latency.reached / report.latency.asked
    )


def test_the_largest_cut_within_a_drop_is_searched_over_shares_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = []
    wanted = job(budget=None, max_drop=100.0, evaluation=TEST, options=ANY_WIDTH)

    def at(self: Pruner, budget: Budget) -> None:
        shares.append(budget)
        raise UsageError("too small", "ask for more")

    monkeypatch.setattr(Pruner, "at", at)
    with pytest.raises(CheckError, match="no cut stays within the drop"):
        done(monkeypatch, Fake(), wanted)
    assert {b.mode for b in shares} == {"latency"} and all(b.relative for b in shares)
    monkeypatch.undo()
    found = done(monkeypatch, Fake(), replace(wanted, budget=Budget("latency", 0.75)))
    assert found.plan.budget.mode == "latency" and found.plan.budget.relative
    assert found.report.latency is not None
    assert found.plan.budget.amount == pytest.approx(found.report.latency.reached)


def test_a_preview_needs_a_profile_and_no_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr("onnxopt.pruning.prune.Pruner.__init__", _with(fake))
    found = preview(digits(), job(), lambda stage, done: None)
    assert found.widths and fake.profiles == 1 and not fake.timed


class Coarse(Static):
    """Knows of each layer only half of what narrower channels save."""

    def by_widths(self, channels: Channels, groups: Sequence[ChannelGroup]) -> WidthCost:
        cost = width_cost(channels, groups, self.mode)
        return replace(cost, terms=tuple(replace(t, scale=t.scale / 2) for t in cost.terms))


def test_a_budget_is_beyond_reach_only_if_the_whole_models_say_so() -> None:
    exact, coarse = Static("flops"), Coarse("flops")
    analysis, options = pruner(Fake()).analysis("latency"), PruneOptions()
    whole = exact.of(analysis.proto)
    for share in (0.6, 0.3):  # half of what is saved would leave 0.5
        require_possible(analysis, coarse, share * whole, options, whole)
        found = choose(analysis, coarse, share * whole, options, {})
        assert exact.of(analysis.channels.cut(found.dead)) == pytest.approx(
            share * whole, rel=exact.tolerated
        )
        sets = chosen(analysis, {}, coarse, share * whole, options, lambda stage, done: None)
        assert not sets[0].value.excess
    for measure in (exact, coarse):
        with pytest.raises(UsageError, match="cannot be reached"):
            require_possible(analysis, measure, 0.0002 * whole, options, whole)
        with pytest.raises(UsageError):
            choose(analysis, measure, 0.0002 * whole, options, {})


def test_fused_layers_and_what_lies_between_layers_shrink_with_their_channels() -> None:
    """ONNX Runtime's own operators end shape inference, and were no layers; HardSwish was taken
    to cost the same at any width."""
    proto = weighted(
        "float[N,16,24,24] x, float[64,16,1,1] w1, float[64,1,3,3] w2, float[32,64,1,1] w3",
        """
        a = com.microsoft.FusedConv <activation = "Relu">(x, w1)
        b = com.microsoft.FusedConv <activation = "Relu", group = 64, pads = [1,1,1,1]>(a, w2)
        s = HardSigmoid(b) h = Mul(b, s) c = Conv(h, w3) y = GlobalAveragePool(c)
        """,
    )
    given = Calibration.from_arrays(judge.drawn(proto, 0, 32), model_inputs(proto))
    made = Pruner(proto, given, ANY_WIDTH, stopwatch=Fake().stopwatch, workers=1)
    measure, groups = made.meter("latency"), made.analysis("latency").groups
    cost = measure.by_widths(made.analysis("latency").channels, groups)
    full = cost.by_owner([len(g.units) for g in groups])
    quarter = cost.by_owner([len(g.units) // 4 for g in groups])
    assert all(quarter[name] < 0.8 * full[name] for name in ("a", "b", "c", "s", "h"))
    for width in (48, 32, 16):
        dead = [u for g in groups for u in g.units[round(len(g.units) * width / 64) :]]
        widths = [round(len(g.units) * width / 64) for g in groups]
        told = cost.total(widths)
        assert told == pytest.approx(
            measure.of(made.analysis("latency").channels.cut(dead)), rel=0.1
        )


@pytest.mark.parametrize(
    ("op", "is_layer"), [("FusedConv", True), ("FusedGemm", True), ("FusedMatMul", False)]
)
def test_what_onnx_runtime_fused_in_the_file_is_a_layer_where_profiles_measure_it(
    op: str, is_layer: bool
) -> None:
    size = "2,3,1,1" if op == "FusedConv" else "2,3"
    proto = weighted(f"float[{size}] x, float[{size}] w", f"y = com.microsoft.{op}(x, w)")
    assert has_timed_widths(proto) == is_layer


def test_a_model_that_cannot_be_cut_is_refused_before_its_layers_are_timed() -> None:
    """With what helps, where its weights are inputs that callers may override."""
    proto = weighted("float[N,6] x, float[6,8] w1, float[8,4] w2",
                     "h = MatMul(x, w1) r = Relu(h) y = MatMul(r, w2)")  # fmt: skip
    for tensor in proto.graph.initializer:
        shape = list(tensor.dims)
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
        proto.graph.input.append(info)
    fake = Fake()
    given = Calibration.from_arrays({"x": judge.drawn(proto, 0, 32)["x"]}, model_inputs(proto)[:1])
    made = Pruner(proto, given, PruneOptions(), stopwatch=fake.stopwatch, workers=1)
    with pytest.raises(UsageError, match="may override") as told:
        made.at(Budget("latency", 0.5))
    assert told.value.fix.startswith("--freeze-inputs") and not fake.profiles and not fake.timed
