"""How fast and how well cuts are found again when conditions change; and how fast plans are made.

    python benchmarks/adapting.py MODEL[@INPUT=1,3,224,224]... [--seconds 2] [--contexts 5000]
        [--slowdown 30] [--output table.md]

Each model is profiled on this machine; the device is taken to be `--slowdown` times as slow, the
edge as this machine. Conditions wander by themselves (bandwidth 1.1 Mbit/s to 1 Gbit/s, round trip
5 to 100 ms, load of the device 1 to 4 and of the edge 1 to 8), and jump now and then.

1. Re-tuning: in each condition the best cut is found by `Adapter.best` over the survivors and by
   GADS from its last state, once over its own states (cuts of one tensor, no codec) and once over
   these with our codecs, both ends being neighbours of all states. Time of a call, and what the
   result loses to the best of all candidates.
2. Traces: requests one after the other. `Adapter` knows of the conditions what requests told it;
   GADS, the best fixed cut and the others are told the conditions exactly.
3. Plans: listing all cuts and planning, without loading, for large graphs.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import onnx

import onnxopt
from onnxopt.cli.options import shape as read_shape
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Machine, Noise, Settings, Spread
from onnxopt.profiling.machine import machine
from onnxopt.splitting.candidates import Candidates, candidates
from onnxopt.splitting.choosing import Task
from onnxopt.splitting.codings import Machines, codings_of
from onnxopt.splitting.context import Box, Context, Point, latency_s
from onnxopt.splitting.dag import Dag, Operator, Tensor
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.envelope import survivors
from onnxopt.splitting.exploring import Sums, explore
from onnxopt.splitting.gads import Gads
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.measuring import measure_split
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.splitting.planning import Wish, plan_split
from onnxopt.splitting.probing import EVERY, SIZE_BYTES
from onnxopt.splitting.profile_file import SplitProfile
from onnxopt.splitting.speeds import speeds
from onnxopt.splitting.spots import spots
from onnxopt.splitting.switching import Adapter

BOX = Box(Context(1.1e6, 0.005, 1.0, 1.0), Context(1e9, 0.1, 4.0, 8.0))
CODECS: tuple[Codec, ...] = ("none", "fp16", "uint8")
RATES = (1.1e6, 5.85e6, 18.88e6, 100e6, 1e9)
EQUAL = 1e-9
"""What is so close to the best one is the best one."""


def wander(count: int, seed: int = 0, *, jump: float = 0.02, step: float = 0.08) -> list[Context]:
    """Conditions that wander in the box, evenly in logarithms, and jump anywhere now and then."""
    draw = random.Random(seed)
    names = ("bandwidth_bits", "rtt_s", "device_load", "edge_load")
    ends = [[math.log(getattr(end, name)) for end in (BOX.least, BOX.most)] for name in names]
    place = [draw.uniform(low, high) for low, high in ends]
    made = []
    for _ in range(count):
        for i, (low, high) in enumerate(ends):
            if draw.random() < jump:
                place[i] = draw.uniform(low, high)
            place[i] = min(max(place[i] + draw.gauss(0, step * (high - low)), low), high)
        made.append(Context(*(math.exp(p) for p in place)))
    return made


@dataclass(frozen=True)
class Case:
    """A model with all ways to split it."""

    name: str
    found: Candidates
    kept: tuple[int, ...]


def case(text: str, seconds: float, slowdown: float) -> Case:
    """Profile a model on this machine."""
    name, _, shapes = text.partition("@")
    given = {}
    if shapes:
        port, _, dims = shapes.partition("=")
        given = {port: read_shape(dims)}
    subject = read_subject(onnxopt.load(Path(name)), given)
    cuts = enumerate_cuts(subject.dag)
    asked = Asked(shapes=given, seconds=seconds)
    profile = measure_split(subject, cuts, spots(cuts, 12), asked, source=name)
    print(f"{name}: profiled, {profile.noise.why or 'quiet'}", file=sys.stderr)
    machines = Machines(speeds(subject, profile, slowdown), speeds(subject, profile))
    codings = codings_of(subject.dag, CODECS, {}, machines)
    sums = Sums(machines.device.operators_s, machines.edge.operators_s)
    cuts = explore(cuts, sums, codings, Task(BOX.least), BOX)
    found = candidates(
        cuts, codings, machines.device.before(cuts)[0], machines.edge.behind(cuts)[0]
    )
    kept = survivors(found, BOX, np.arange(len(found)))
    return Case(Path(name).stem, found, tuple(int(i) for i in kept))


def own_states(found: Candidates, *, codecs: bool = False) -> list[int]:
    """What GADS chooses of: cuts of one tensor, without codecs unless said, and both ends."""
    crossing = found.cuts.crossing
    return [
        i
        for i in range(len(found))
        if (codecs or found.coding[i] == 0)
        and (found.cut[i] == 0 or len(crossing[found.cut[i]]) <= 1)
    ]


@dataclass
class Tuned:
    """What one way to re-tune took, in microseconds, and lost, as shares."""

    name: str
    states: int
    us: list[float]
    lost: list[float]

    def row(self, model: str) -> str:
        off = [loss for loss in self.lost if loss > EQUAL]
        us = np.array(self.us)
        return (
            f"| {model} | {self.name} | {self.states} | {us.mean():.1f} | "
            f"{np.percentile(us, 50):.1f} | {np.percentile(us, 99):.1f} | "
            f"{len(off) / len(self.lost):.1%} | {mean(self.lost):.1%} | {max(self.lost):.0%} |"
        )


def timed(
    name: str, states: int, tune: Callable[[Context], int], contexts: Sequence[Context], case: Case
) -> Tuned:
    """Call it in each of the conditions."""
    for context in contexts[:50]:
        tune(context)
    us, chosen = [], []
    for context in contexts:
        start = time.perf_counter_ns()
        number = tune(context)
        us.append((time.perf_counter_ns() - start) / 1000)
        chosen.append(number)
    lost = []
    for context, number in zip(contexts, chosen, strict=True):
        times = case.found.latency_s(context)
        lost.append(float(times[number] / times.min() - 1))
    return Tuned(name, states, us, lost)


def retuning(case: Case, contexts: Sequence[Context]) -> list[str]:
    """The survivors, and GADS twice."""
    found, kept = case.found, case.kept
    adapter = Adapter([found.point(i) for i in kept], contexts[0])
    own = own_states(found)
    small = Gads(found, own, start=found.all_device)
    coded = own_states(found, codecs=True)
    edge = found.find(0, 0)
    ends = [found.all_device, *([] if edge is None else [edge])]
    large = Gads(found, coded, start=found.all_device, always=ends)
    rows = [
        timed("onnxopt", len(kept), lambda c: kept[adapter.best(c)], contexts, case),
        timed("GADS, its own states", len(own), small.tune, contexts, case),
        timed("GADS, codecs, ends are neighbours", len(coded), large.tune, contexts, case),
    ]
    return [row.row(case.name) for row in rows]


def traces() -> dict[str, list[Context]]:
    """Conditions of 2,000 requests each."""
    start = Context(18.88e6, 0.02)
    steps = [replace(start, bandwidth_bits=r) for r in (*RATES, *RATES[::-1]) for _ in range(200)]
    draw = random.Random(3)
    bursts, rate = [], 100e6
    for _ in range(2000):
        if draw.random() < 0.03:
            rate = draw.choice((100e6, 5.85e6))
        bursts.append(replace(start, bandwidth_bits=rate))
    loads = [
        replace(start, edge_load=1 + 7 * math.sin(i / 150) ** 2, bandwidth_bits=100e6)
        for i in range(2000)
    ]
    return {
        "the five rates, up and down": steps,
        "rate wanders": [
            replace(start, bandwidth_bits=c.bandwidth_bits)
            for c in wander(2000, 1, jump=0.0, step=0.02)
        ],
        "rate in bursts": bursts,
        "load of the edge comes and goes": loads,
        "all wanders and jumps": wander(2000, 2, jump=0.005, step=0.02),
    }


def adapted(
    points: Sequence[Point], trace: Sequence[Context], noise: float, *, probes: bool = False
) -> tuple[float, int]:
    """Seconds of all requests of a client that knows what requests tell; and its changes.

    Args:
        probes: as `probing.Prober` sends them, beside requests computed on the device alone.
    """
    clock, draw = [0.0], random.Random(0)
    adapter = Adapter(points, trace[0], box=BOX, clock=lambda: clock[0])
    total, alone = 0.0, 0
    for context in trace:
        cut = adapter.choose()
        point = points[cut]
        off = [draw.lognormvariate(0, noise) for _ in range(3)]
        device = context.device_load * point.device_s * off[0]
        edge = context.edge_load * point.edge_s * off[1]
        moved = (point.sent_bytes + point.back_bytes) * context.seconds_per_byte
        wire = (context.rtt_s + moved) * off[2] if point.is_remote else 0.0
        adapter.observe(
            bytes_sent=point.sent_bytes,
            bytes_received=point.back_bytes,
            wall_s=wire + edge,
            device_s=device,
            edge_s=edge,
            cut=cut,
        )
        if not point.is_remote:
            alone += 1
        if probes and alone == EVERY:
            alone = 0
            took = context.rtt_s + SIZE_BYTES * context.seconds_per_byte
            adapter.probed(SIZE_BYTES, took * off[2])
        clock[0] += device + wire + edge
        total += latency_s(point, context)
    return total, adapter.switches


def following(case: Case) -> list[str]:
    """Each trace: seconds by those of a clairvoyant."""
    found = case.found
    points = [found.point(i) for i in case.kept]
    rows = []
    for name, trace in traces().items():
        times = np.stack([found.latency_s(context) for context in trace])
        clairvoyant = times.min(axis=1).sum()
        quiet, switches = adapted(points, trace, 0.0)
        noisy, more = adapted(points, trace, 0.2)
        probing, last = adapted(points, trace, 0.2, probes=True)
        edge = found.find(0, 0)
        assert edge is not None
        ends = (found.all_device, edge)
        small = Gads(found, own_states(found), start=found.all_device, always=ends)
        searched = sum(times[n, small.tune(context)] for n, context in enumerate(trace))
        rows.append(
            f"| {case.name} | {name} | {quiet / clairvoyant:.3f} ({switches}) | "
            f"{noisy / clairvoyant:.3f} ({more}) | {probing / clairvoyant:.3f} ({last}) | "
            f"{searched / clairvoyant:.3f} | "
            f"{times.sum(axis=0).min() / clairvoyant:.3f} | "
            f"{times[:, found.all_device].sum() / clairvoyant:.3f} | "
            f"{times[:, edge].sum() / clairvoyant:.3f} |"
        )
    return rows


def made_up(count: int, branches: Sequence[int]) -> Dag:
    """Blocks of branches side by side, as an Inception has them; without any a chain."""
    reads: list[list[int]] = []
    last = 0
    while len(reads) < count:
        ends = []
        for length in branches:
            tensor = last
            for _ in range(length):
                reads.append([tensor])
                tensor = len(reads)
            ends.append(tensor)
        reads.append(ends or [last])
        last = len(reads)
    readers: list[list[int]] = [[] for _ in range(len(reads) + 1)]
    for number, read in enumerate(reads):
        for tensor in read:
            readers[tensor].append(number)
    draw = random.Random(0)
    tensors = tuple(
        Tensor(
            f"t{t}",
            "float32",
            (1, 8),
            draw.randint(10_000, 900_000),
            t - 1 if t else None,
            tuple(readers[t]),
            is_output=not readers[t],
        )
        for t in range(len(readers))
    )
    operators = tuple(
        Operator(f"op{v}", "Conv", (v,), tuple(read), (v + 1,), (v,), 10**7)
        for v, read in enumerate(reads)
    )
    return Dag(operators, tensors, (100_000,) * len(reads))


def planning(name: str, subject: Subject) -> str:
    """Listing all cuts of a graph, and all of a plan, the fastest of five."""
    nodes = max((n for op in subject.dag.operators for n in op.nodes), default=0) + 1
    draw = random.Random(0)
    us = tuple(draw.uniform(5, 200) for _ in range(nodes))
    spread = Spread(sum(us), sum(us), sum(us), 1)
    noise = Noise(1.0, 1.0, None, 0, True, "")
    settings = Settings(1, "", {}, 1, 1.0)
    where = Machine("", "", 1, 8, "", "", "")
    profile = SplitProfile(
        "onnxopt-split-profile/1",
        *(name, "", where, settings, noise, spread, 1.0, us, us, (), 1.0, (), (), ()),
    )
    bare = replace(subject, proto=onnx.ModelProto())
    bare.proto.graph.node.extend(onnx.NodeProto() for _ in range(nodes))
    machines = Machines(speeds(bare, profile, 10.0), speeds(bare, profile))
    listed, planned = [], []
    wish = Wish(Task(Context(18.88e6, 0.02)))
    for _ in range(5):
        start = time.perf_counter()
        cuts = enumerate_cuts(subject.dag)
        middle = time.perf_counter()
        plan_split(bare, machines, wish)
        listed.append(middle - start)
        planned.append(time.perf_counter() - middle)
    left = sum(not block.is_complete for block in cuts.blocks)
    return (
        f"| {name} | {len(subject.dag.operators):,} | {len(cuts):,} | {left} | "
        f"{1000 * min(listed):.0f} | {1000 * min(planned):.0f} |"
    )


def subject_of(dag: Dag) -> Subject:
    return Subject(onnx.ModelProto(), dag, {}, (), (), frozenset(), ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--contexts", type=int, default=5000)
    parser.add_argument("--slowdown", type=float, default=30.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    contexts = wander(options.contexts)
    cases = [case(text, options.seconds, options.slowdown) for text in options.models]
    here = machine()
    lines = [
        "# Adapting: how fast, and how well",
        "",
        f"{here.processor}, {here.cores} cores, onnxruntime {here.onnxruntime}, Python "
        f"{here.python}; {options.contexts:,} conditions; the device is taken to be "
        f"{options.slowdown:g} times as slow as this machine, the edge to be it.",
        "See the docstring of benchmarks/adapting.py for what is done.",
        "",
        "## Re-tuning",
        "",
        "| model | method | states | mean us | p50 us | p99 us | not best | mean loss | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in cases:
        lines += retuning(entry, contexts)
    lines += [
        "",
        "## Traces of 2,000 requests: time by that of a clairvoyant (changes of the cut)",
        "",
        "| model | trace | onnxopt | times off by 20% | and probes "
        "| GADS with both ends, told the conditions | best fixed cut | device only | edge only |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in cases:
        lines += following(entry)
    lines += [
        "",
        "## Plans: milliseconds, the model being loaded",
        "",
        "| graph | operators | cuts | blocks left to flows | listing ms | plan, all of it, ms |",
        "|---|---|---|---|---|---|",
        planning("chain", subject_of(made_up(1000, ()))),
        planning("four branches a block", subject_of(made_up(1000, (1, 2, 3, 2)))),
        planning("two branches of 8 a block", subject_of(made_up(1000, (8, 8)))),
    ]
    for text in options.models:
        name = text.partition("@")[0]
        lines.append(planning(Path(name).stem, read_subject(onnxopt.load(Path(name)))))
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
