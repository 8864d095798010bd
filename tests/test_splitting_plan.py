from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from split_machines import both_machines, made_profile, spread

from onnxopt.errors import CheckError, UsageError
from onnxopt.model import load
from onnxopt.profiling.files import as_json, write_json
from onnxopt.pruning.asked import Job
from onnxopt.splitting import wishes
from onnxopt.splitting.baselines import METHODS
from onnxopt.splitting.candidates import Powers, candidates
from onnxopt.splitting.choosing import Budgets, Task
from onnxopt.splitting.codings import Machines, codings_of
from onnxopt.splitting.context import Box, Context, latency_s
from onnxopt.splitting.enumeration import enumerate_cuts, names_of
from onnxopt.splitting.gads import Gads
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.splitting.plan_file import Plan, plan_of, read_plan
from onnxopt.splitting.planning import Wish, plan_split
from onnxopt.splitting.profile_file import MeasuredCut
from onnxopt.splitting.pruned_worth import Kept, Pruning, why_refused
from onnxopt.splitting.speeds import measured_cuts, speeds
from onnxopt.splitting.spots import spots
from onnxopt.splitting.switching import Adapter

DIGITS = Path(__file__).parent.parent / "models" / "digits_resnet.onnx"
ALL = tuple(METHODS)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return read_subject(load(DIGITS))


def _wish(bandwidth_bits: float = 1e6, **rest: object) -> Wish:
    return replace(Wish(Task(Context(bandwidth_bits, 0.001))), **rest)  # type: ignore[arg-type]


def _plan(subject: Subject, wish: Wish, machines: Machines | None = None) -> Plan:
    return plan_split(
        subject, machines or both_machines(subject), wish, source="m.onnx", digest="h"
    )


def test_a_fast_link_computes_at_the_edge_and_a_slow_one_on_the_device(subject: Subject) -> None:
    assert _plan(subject, _wish(1e9)).chosen == 0
    slow = _plan(subject, _wish(1e2))
    assert slow.chosen == len(slow.cuts) - 1
    assert not slow.cuts[-1].point.is_remote
    assert slow.cuts[-1].tensors == ()


def test_the_best_plan_is_the_best_of_all_cuts_with_all_codecs(subject: Subject) -> None:
    machines = both_machines(subject)
    for rate in np.geomspace(1e3, 1e9, 13):
        wish = _wish(float(rate))
        plan = _plan(subject, wish, machines)
        cuts = enumerate_cuts(subject.dag)
        codings = codings_of(subject.dag, wish.codecs, {}, machines)
        found = candidates(
            cuts, codings, machines.device.before(cuts)[0], machines.edge.behind(cuts)[0]
        )
        least = found.latency_s(wish.task.context).min()
        chosen = plan.cuts[plan.chosen]
        assert chosen.latency_s == pytest.approx(least, rel=1e-12)
        assert latency_s(chosen.point, plan.context) == pytest.approx(chosen.latency_s)
        assert plan.best[0] == chosen and plan.proved
        times = [cut.latency_s for cut in plan.best]
        assert times == sorted(times)


def test_a_plan_comes_back_from_its_file_and_from_the_text_of_a_manifest(
    subject: Subject, tmp_path: Path
) -> None:
    box = Box(Context(1e4, 0.001), Context(1e9, 0.05, 2.0, 4.0))
    powers = Powers(4.0, 1.0, 0.1)
    wish = replace(
        _wish(1e5, box=box, most=3, compare=ALL, pareto=True),
        task=Task(Context(1e5, 0.001), "energy", Budgets(latency_s=1.0), powers),
    )
    plan = _plan(subject, wish)
    write_json(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    assert plan_of((tmp_path / "plan.json").read_text()) == plan
    for wrong in ({"chosen": 99}, {"context": Context(0.0, 0.0)}):
        with pytest.raises(UsageError):
            plan_of(as_json(replace(plan, **wrong)))
    with pytest.raises(UsageError, match="no plan"):
        plan_of("{}")


def test_the_cuts_of_an_adaptive_plan_are_nested_and_an_adapter_finds_the_best_of_them(
    subject: Subject,
) -> None:
    box = Box(Context(1e4, 0.001), Context(1e9, 0.001))
    plan = _plan(subject, _wish(1e5, box=box, most=3))
    assert 2 <= len(plan.cuts) <= 5
    counts = [cut.operators for cut in plan.cuts]
    assert counts == sorted(set(counts)) and counts[0] == 0
    assert counts[-1] == len(subject.dag.operators)
    assert plan.regret is not None and plan.regret >= 0
    fewer = _plan(subject, _wish(1e5, box=box, most=1))
    assert fewer.regret is not None and fewer.regret >= plan.regret
    adapter = Adapter(plan.points, plan.context, allowed=plan.allowed, box=plan.box)
    assert adapter.cut == plan.chosen
    for rate in np.geomspace(1e4, 1e9, 30):
        context = Context(float(rate), 0.001)
        alone = _plan(subject, _wish(float(rate)))
        reached = latency_s(plan.points[adapter.best(context)], context)
        best = alone.cuts[alone.chosen].latency_s
        assert best * (1 - 1e-9) <= reached <= best * (1 + plan.regret + 1e-9)


def test_budgets_forbid_and_the_plan_says_so(subject: Subject) -> None:
    weights = sum(subject.dag.weight_bytes)
    budgets = Budgets(weight_bytes=weights // 2)
    plan = _plan(subject, replace(_wish(), task=Task(Context(1e2, 0.0), budgets=budgets)))
    assert plan.cuts[-1].broken and len(plan.cuts) - 1 not in plan.allowed
    assert plan.cuts[plan.chosen].weight_bytes <= weights // 2
    hopeless = replace(_wish(), task=Task(Context(1e2, 0.0), budgets=Budgets(latency_s=1e-9)))
    with pytest.raises(CheckError, match="latency cannot be below"):
        _plan(subject, hopeless)


def test_energy_needs_watts_and_names_must_exist(subject: Subject) -> None:
    with pytest.raises(UsageError, match="watts"):
        _plan(subject, replace(_wish(), task=Task(Context(1e6, 0.0), "energy")))
    with pytest.raises(UsageError, match="no method 'oracle'"):
        _plan(subject, _wish(compare=("oracle",)))
    with pytest.raises(UsageError, match="no input 'y'"):
        _plan(subject, _wish(raw_bytes={"y": 1}))


def test_an_input_that_the_application_has_in_fewer_bytes_is_sent_in_these(
    subject: Subject,
) -> None:
    (name,) = (t.name for t in subject.dag.tensors if t.producer is None)
    plan = _plan(subject, _wish(1e7, codecs=("none",), raw_bytes={name: 64}))
    assert plan.cuts[0].point.sent_bytes == 64
    assert any("smaller form" in note for note in plan.notes)


def test_no_other_method_beats_the_plan(subject: Subject) -> None:
    for rate in (1e4, 1e5, 1e6, 1e8):
        for goal in ("latency", "throughput"):
            task = Task(Context(rate, 0.01), goal)
            plan = _plan(subject, replace(_wish(compare=ALL), task=task))
            assert [entry.method for entry in plan.compared] == list(ALL)
            assert all(e.by is not None and e.by >= 1 - 1e-12 for e in plan.compared)


def test_dads_and_neurosurgeon_are_the_least_of_what_they_see(subject: Subject) -> None:
    """Unfused times of both sides and bytes by the bandwidth; no codec, no round trip."""
    machines = both_machines(subject, slower=1.5)
    cuts = enumerate_cuts(subject.dag)
    device, edge = (cuts.sums(side.unfused_s) for side in (machines.device, machines.edge))
    sent = cuts.sent([float(t.size_bytes) for t in subject.dag.tensors])
    for rate in (1e5, 1e6, 3e6, 1e7, 1e8):
        seen = device + edge[cuts.whole] - edge + sent * 8 / rate
        task = Task(Context(rate, 0.05))
        wish = replace(_wish(compare=("dads", "neurosurgeon")), task=task)
        plan = _plan(subject, wish, machines)
        single = [c for c in range(len(cuts)) if len(cuts.crossing[c]) <= 1]
        for entry, among in zip(plan.compared, (range(len(cuts)), single), strict=True):
            assert entry.cut is not None
            names = (entry.cut.tensors, entry.cut.outputs)
            (chosen,) = (c for c in range(len(cuts)) if names_of(cuts, c) == names)
            assert seen[chosen] == pytest.approx(min(seen[c] for c in among), rel=1e-12)


def test_gads_ends_where_no_neighbour_is_better_and_begins_at_its_last_state(
    subject: Subject,
) -> None:
    machines = both_machines(subject)
    cuts = enumerate_cuts(subject.dag)
    codings = codings_of(subject.dag, ("none",), {}, machines)
    found = candidates(
        cuts, codings, machines.device.before(cuts)[0], machines.edge.behind(cuts)[0]
    )
    search = Gads(found, range(len(found)), start=found.all_device)
    stuck = 0
    for rate in np.geomspace(1e3, 1e9, 40):
        context = Context(float(rate), 0.001)
        times = found.latency_s(context)
        before = search.state
        state = search.tune(context)
        assert times[state] <= times[before]
        stuck += times[state] > times.min() * (1 + 1e-9)
        assert search.tune(context) == state
    assert search.looked_at > 80


def test_a_measured_cut_takes_what_was_measured_and_others_lie_between(subject: Subject) -> None:
    cuts = enumerate_cuts(subject.dag)
    chosen = spots(cuts, 3)
    profile = made_profile(subject)
    shares = [len(cuts.operators(cut)) / len(subject.dag.operators) for cut in chosen]
    whole = profile.whole_us.median
    measured = [
        MeasuredCut(
            *names_of(cuts, cut),
            spread(whole * s * (1.3 - 0.3 * s)),
            spread(whole * (1 - s) * 0.8),
        )
        for cut, s in zip(chosen, shares, strict=True)
    ]
    found = speeds(subject, replace(profile, cuts=tuple(measured)), 2.0)
    assert sorted(measured_cuts(cuts, found.profile)) == sorted(chosen)
    before, known = found.before(cuts)
    behind, _ = found.behind(cuts)
    assert known == set(chosen)
    for cut, s in zip(chosen, shares, strict=True):
        assert before[cut] == pytest.approx(2e-6 * whole * s * (1.3 - 0.3 * s))
        assert behind[cut] == pytest.approx(2e-6 * whole * (1 - s) * 0.8)
    assert before[0] == 0 and behind[cuts.whole] == 0
    assert before[cuts.whole] == pytest.approx(2e-6 * whole)
    assert behind[0] == pytest.approx(2e-6 * whole)
    order = np.argsort([len(cuts.operators(cut)) for cut in range(len(cuts))], kind="stable")
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(before[order]))


def test_a_cut_through_a_fused_kernel_costs_what_is_run_alone_then(subject: Subject) -> None:
    dag = subject.dag
    tensor = next(
        t for t, e in enumerate(dag.tensors) if e.producer is not None and len(e.readers) == 1
    )
    entry = dag.tensors[tensor]
    assert entry.producer is not None
    ends = (*dag.operators[entry.producer].nodes, *dag.operators[entry.readers[0]].nodes)
    fused = replace(made_profile(subject), kernels=(tuple(sorted(ends)),))
    cuts = enumerate_cuts(dag)
    cut = next(c for c in range(len(cuts)) if cuts.crossing[c] == (tensor,))
    plain = speeds(subject, made_profile(subject)).behind(cuts)[0][cut]
    more = speeds(subject, fused).behind(cuts)[0][cut] - plain
    assert more == pytest.approx(10e-6 * len(dag.operators[entry.readers[0]].nodes))
    known = replace(fused, cuts=(MeasuredCut(*names_of(cuts, cut), spread(70.0), spread(80.0)),))
    assert speeds(subject, known).before(cuts)[0][cut] == pytest.approx(70e-6)
    assert speeds(subject, known).behind(cuts)[0][cut] == pytest.approx(80e-6)
    others = speeds(subject, known).behind(cuts)[0][cuts.whole - 1]
    assert others == pytest.approx(speeds(subject, fused).behind(cuts)[0][cuts.whole - 1])


def test_a_profile_of_another_model_is_refused(subject: Subject) -> None:
    profile = replace(made_profile(subject), nodes_us=(1.0, 2.0))
    with pytest.raises(UsageError, match="is of a model with 2 nodes"):
        speeds(subject, profile)


def test_the_cuts_to_measure_are_legal_inner_and_in_order(subject: Subject) -> None:
    cuts = enumerate_cuts(subject.dag)
    for most in (0, 1, 5, 12):
        chosen = spots(cuts, most)
        counts = [len(cuts.operators(cut)) for cut in chosen]
        assert len(chosen) == min(most, len(chosen)) and counts == sorted(counts)
        assert all(cuts.is_legal(cut) and cut not in (0, cuts.whole) for cut in chosen)
    assert len(spots(cuts, 12)) == 12
    single = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }'
    )
    assert spots(enumerate_cuts(read_subject(single).dag), 12) == ()


@pytest.mark.parametrize(
    ("drop", "agreement", "why"),
    [
        (2.5, None, ""),
        (1.9, None, "it loses 2 of top1"),
        (None, 0.97, ""),
        (None, 0.98, "it gives the same class for 97.5% only"),
        (2.5, 0.98, "it gives the same class for 97.5% only"),
    ],
)
def test_a_pruned_version_that_loses_more_than_it_may_is_refused(
    drop: float | None, agreement: float | None, why: str
) -> None:
    pruning = Pruning((), Job(), drop, agreement)
    kept = Kept(0.93, 0.975)
    assert why_refused(kept, 0.95, pruning) == why
    assert why_refused(kept.and_less(Kept(0.95, 0.99)), 0.95, pruning) == why
    worse = why_refused(kept.and_less(Kept(0.9, 0.9)), 0.95, pruning)
    assert ("loses 5 of top1" if drop else "the same class for 90.0% only") in worse


def test_outputs_that_are_no_classes_agree_with_nothing() -> None:
    pruning = Pruning((), Job(), None, 0.9)
    kept = Kept(None, 1.0).and_less(Kept(None, None))
    assert "no classes" in why_refused(kept, None, pruning)


def test_what_the_edge_could_not_send_back_is_made_on_the_device_with_all_that_it_needs() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,4] x) => (float[1,4] y, seq(float[1,4]) all) {
            a = Relu(x) b = Sin(a) all = SequenceConstruct(b) c = Cos(a) y = Exp(c)
        }
    """
    part = read_subject(onnx.parser.parse_model(text))
    cuts = enumerate_cuts(part.dag)
    legal = [cuts.operators(cut) for cut in range(len(cuts)) if cuts.is_legal(cut)]
    assert sorted(legal) == [(0, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3, 4)]
    plan = _plan(part, _wish(1e9))
    assert plan.cuts[0].broken and "cannot be sent back, 'all'" in plan.cuts[0].broken[0]
    assert plan.cuts[0].operators == 0 and 0 not in plan.allowed and plan.chosen != 0
    assert any("with all that it needs: 'all'" in note for note in plan.notes)
    assert Adapter(plan.points, plan.context, allowed=plan.allowed)._local == len(plan.cuts) - 1


def test_a_model_whose_only_output_cannot_be_sent_back_stays_on_the_device() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,4] x) => (seq(float[1,4]) all) { a = Relu(x) all = SequenceConstruct(a) }
    """
    part = read_subject(onnx.parser.parse_model(text))
    plan = _plan(part, _wish(1e9))
    assert plan.chosen == len(plan.cuts) - 1 and not plan.cuts[-1].point.is_remote
    with pytest.raises(UsageError, match="an output that the edge makes, cannot be sent"):
        wishes.spread(part, 2, "none")
    remarks = wishes.named(part, ["a"], "none").remarks
    assert any("`split run` will refuse this cut" in remark for remark in remarks)
