from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from splitting_dags import all_down_sets, parallel_chains, peak_of, random_dag

from onnxopt.errors import CheckError
from onnxopt.splitting.candidates import Candidates, Coding, Powers, candidates
from onnxopt.splitting.choosing import Budgets, Task, kept, objective, pareto, ranked
from onnxopt.splitting.context import Box, Context, latency_s
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.envelope import best_chain, survivors
from onnxopt.splitting.exploring import Sums, explore
from onnxopt.splitting.plan_file import Objective

POWERS = Powers(2.0, 3.0, 0.5)


@dataclass(frozen=True)
class _Case:
    """A random model with times and codecs."""

    dag: Dag
    sums: Sums
    codings: tuple[Coding, ...]

    def found(self) -> Candidates:
        cuts = enumerate_cuts(self.dag)
        edge = cuts.sums(self.sums.edge_s)
        return candidates(
            cuts, self.codings, cuts.sums(self.sums.device_s), edge[cuts.whole] - edge
        )


def _case(dag: Dag, draw: random.Random) -> _Case:
    sizes = [float(tensor.size_bytes) for tensor in dag.tensors]
    floats = [tensor.dtype == "float32" for tensor in dag.tensors]
    codec_s = draw.choice((0.0, 0.02))
    smaller = [size / 4 + 5 if f else size for size, f in zip(sizes, floats, strict=True)]
    seconds = [codec_s if f else 0.0 for f in floats]
    zeros = [0.0] * len(sizes)
    return _Case(
        dag,
        Sums(
            [draw.uniform(0, 0.1) for _ in dag.operators],
            [draw.uniform(0, 0.03) for _ in dag.operators],
        ),
        (Coding("none", sizes, zeros, zeros), Coding("uint8", smaller, seconds, seconds)),
    )


def _context(draw: random.Random) -> Context:
    return Context(
        10 ** draw.uniform(3, 7), draw.choice((0.0, 0.05)), draw.uniform(1, 4), draw.uniform(1, 9)
    )


@dataclass(frozen=True)
class _Tried:
    """One way to split, by the definitions alone."""

    device_s: float
    wire_s: float
    edge_s: float
    rtt_s: float
    weight_bytes: int
    memory_bytes: int

    @property
    def latency_s(self) -> float:
        return self.device_s + self.wire_s + self.edge_s + self.rtt_s

    @property
    def energy_j(self) -> float:
        waiting = POWERS.idle_w * (self.edge_s + self.rtt_s)
        return POWERS.compute_w * self.device_s + POWERS.radio_w * self.wire_s + waiting

    @property
    def interval_s(self) -> float:
        return max(self.device_s, self.wire_s, self.edge_s)

    def value(self, objective: Objective) -> float:
        values = {"latency": self.latency_s, "energy": self.energy_j}
        return values.get(objective, self.interval_s)


def _tried(case: _Case, context: Context) -> list[_Tried]:
    """All ways to split."""
    made = []
    for chosen in all_down_sets(case.dag):
        crossing = case.dag.crossing(chosen)
        if any(case.dag.tensors[t].why_not for t in crossing) or case.dag.unsent({*chosen}):
            continue
        rest = [v for v in range(len(case.dag.operators)) if v not in chosen]
        weights = {w for v in chosen for w in case.dag.operators[v].weights}
        held = sum(case.dag.weight_bytes[w] for w in weights)
        back = sum(
            tensor.size_bytes
            for tensor in case.dag.tensors
            if tensor.is_output and tensor.producer in rest
        )
        for code in case.codings:
            device = sum(case.sums.device_s[v] for v in chosen)
            device += sum(code.encode_s[t] for t in crossing)
            edge = sum(case.sums.edge_s[v] for v in rest) + sum(code.decode_s[t] for t in crossing)
            sent = sum(code.sent_bytes[t] for t in crossing) + back
            made.append(
                _Tried(
                    context.device_load * device,
                    sent * 8 / context.bandwidth_bits,
                    context.edge_load * edge,
                    context.rtt_s if rest else 0.0,
                    held,
                    held + peak_of(case.dag, sorted(chosen)),
                )
            )
    return made


def _budgets(tried: Sequence[_Tried], draw: random.Random) -> Budgets:
    """Some that at least one way keeps, and some that none may."""
    model = draw.choice(tried)
    slack = draw.choice((0.7, 1.0, 1.5))
    asked = [draw.random() < 0.4 for _ in range(4)]
    return Budgets(
        round(model.weight_bytes * slack) if asked[0] else None,
        round(model.memory_bytes * slack) if asked[1] else None,
        model.energy_j * slack * (1 + 1e-9) if asked[2] else None,
        model.latency_s * slack * (1 + 1e-9) if asked[3] else None,
    )


def _keeps(way: _Tried, budgets: Budgets) -> bool:
    pairs = (
        (way.weight_bytes, budgets.weight_bytes),
        (way.memory_bytes, budgets.memory_bytes),
        (way.energy_j, budgets.energy_j),
        (way.latency_s, budgets.latency_s),
    )
    return all(most is None or value <= most for value, most in pairs)


@pytest.mark.parametrize("wanted", ["latency", "energy", "throughput"])
@pytest.mark.parametrize("with_budgets", [False, True])
def test_the_plan_is_what_trying_everything_finds(wanted: Objective, with_budgets: bool) -> None:
    """With several inputs, readers and outputs, round trip, results that come back, and codecs."""
    for seed in range(500 if wanted == "latency" else 150):
        draw = random.Random(seed)
        case = _case(random_dag(seed, most=7, why_not=draw.choice((0.0, 0.2))), draw)
        context = _context(draw)
        tried = _tried(case, context)
        budgets = _budgets(tried, draw) if with_budgets else Budgets()
        task = Task(context, wanted, budgets, POWERS)
        good = [way.value(wanted) for way in tried if _keeps(way, budgets)]
        found = case.found()
        if good:
            best = ranked(found, task)[0]
            assert objective(found, task)[best] == pytest.approx(min(good), rel=1e-9), seed
            assert kept(found, task)[best]
        else:
            with pytest.raises(CheckError, match="no cut keeps the budgets"):
                ranked(found, task)


def test_what_cannot_be_kept_is_named_with_how_much_is_missing() -> None:
    draw = random.Random(0)
    case = _case(parallel_chains(2, 2), draw)
    found = case.found()
    least = min(found.latency_s(Context(1e6, 0.01)))
    task = Task(Context(1e6, 0.01), budgets=Budgets(weight_bytes=30, latency_s=least / 2))
    with pytest.raises(CheckError) as raised:
        ranked(found, task)
    assert "latency cannot be below" in str(raised.value)
    assert "above the budget" in str(raised.value)


def test_survivors_hold_the_best_of_all_anywhere_in_the_box() -> None:
    fewer = 0
    for seed in range(60):
        draw = random.Random(seed)
        found = _case(random_dag(seed, most=9), draw).found()
        box = Box(Context(1e3, 0.01, 1.0, 1.0), Context(1e7, 0.1, 2.0, 5.0))
        every = np.arange(len(found))
        best = survivors(found, box, every)
        fewer += len(best) < len(found)
        for _ in range(40):
            context = Context(
                10 ** draw.uniform(3, 7),
                draw.uniform(0.01, 0.1),
                draw.uniform(1, 2),
                draw.uniform(1, 5),
            )
            times = found.latency_s(context)
            assert times[best].min() == times.min(), seed
            points = [latency_s(found.point(number), context) for number in range(len(found))]
            assert points == pytest.approx(list(times), rel=1e-12)
    assert fewer > 40


def test_the_pareto_front_is_what_nothing_beats_and_beats_all_else() -> None:
    for seed in range(60):
        draw = random.Random(seed)
        found = _case(random_dag(seed, most=7), draw).found()
        task = Task(_context(draw), powers=POWERS)
        columns = (
            found.latency_s(task.context),
            found.energy_j(task.context, POWERS),
            found.weight_bytes,
            found.weight_bytes + found.peak_bytes,
        )
        rows = [tuple(float(column[i]) for column in columns) for i in range(len(found))]
        beaten = {
            i
            for i, row in enumerate(rows)
            for other in set(rows) - {row}
            if all(a <= b for a, b in zip(other, row, strict=True))
        }
        best = pareto(found, task)
        assert {rows[i] for i in best} == {row for i, row in enumerate(rows) if i not in beaten}
        assert len({rows[i] for i in best}) == len(best)


def test_a_chain_is_nested_and_leaves_the_regret_that_it_tells() -> None:
    box = Box(Context(1e3, 0.01), Context(1e7, 0.01))
    for seed in range(40):
        draw = random.Random(seed)
        found = _case(random_dag(seed, most=9), draw).found()
        best = survivors(found, box, np.arange(len(found)))
        ends = [i for i in range(len(found)) if found.cut[i] in (0, found.cuts.whole)]
        regrets = []
        for most in (0, 1, 2, 4):
            chain = best_chain(found, box, best, ends, most, [])
            devices = [found.cuts.device[found.cut[i]] for i in chain.numbers]
            assert len(devices) <= most
            assert all(a & ~b == 0 and a != b for a, b in pairwise(devices))
            regrets.append(chain.regret)
            chosen = [*chain.numbers, *ends]
            for _ in range(20):
                context = Context(10 ** draw.uniform(3, 7), 0.01)
                times = found.latency_s(context)
                assert times[chosen].min() <= times.min() * (1 + chain.regret) * (1 + 1e-9)
        assert regrets == sorted(regrets, reverse=True)


def test_of_all_nested_pairs_the_one_with_least_regret_is_chosen() -> None:
    """Where nothing else may be chosen two cuts that are not nested are often better."""
    box = Box(Context(1e3, 0.01, 1.0, 1.0), Context(1e6, 0.01, 8.0, 8.0))
    for seed in range(40):
        found = _case(random_dag(seed, most=6), random.Random(seed)).found()
        every = np.arange(len(found))
        chain = best_chain(found, box, every, [], 2, [])
        devices = [found.cuts.device[found.cut[i]] for i in chain.numbers]
        assert 1 <= len(devices) <= 2 or len(found.cuts) <= 2
        assert all(a & ~b == 0 and a != b for a, b in pairwise(devices)), seed


@pytest.mark.parametrize("wanted", ["latency", "energy"])
def test_above_the_cap_flows_find_what_a_full_list_holds(wanted: Objective) -> None:
    """Both sides are about as fast, so that each operator matters."""
    box = Box(Context(1e3, 0.01, 1.0, 3.0), Context(1e9, 0.01, 1.0, 3.0))
    for seed in range(8):
        draw = random.Random(seed)
        dag = parallel_chains(5, 3, draw)
        case = _case(dag, draw)
        task = Task(_context(draw), wanted, powers=POWERS)
        every = case.found()
        few = explore(enumerate_cuts(dag, most=50), case.sums, case.codings, task, box)
        edge = few.sums(case.sums.edge_s)
        found = candidates(few, case.codings, few.sums(case.sums.device_s), edge[few.whole] - edge)
        assert len(found) < len(every) / 2
        assert objective(found, task).min() == pytest.approx(objective(every, task).min(), rel=1e-9)
        for _ in range(50):
            context = Context(10 ** draw.uniform(3, 9), 0.01, 1.0, 3.0)
            assert found.latency_s(context).min() == pytest.approx(
                every.latency_s(context).min(), rel=1e-9
            )
