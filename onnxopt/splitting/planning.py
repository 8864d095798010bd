"""What `split plan` does: the best way to split by two profiles, and what is next to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxopt.errors import CheckError, UsageError
from onnxopt.splitting.baselines import METHODS, Setting
from onnxopt.splitting.bound import Bound, ErrorOf
from onnxopt.splitting.candidates import Candidates, Ints, candidates
from onnxopt.splitting.choosing import Task, kept, objective, pareto, ranked
from onnxopt.splitting.codings import Machines, codings_of
from onnxopt.splitting.context import Box
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.envelope import best_chain, survivors
from onnxopt.splitting.exploring import Sums, explore
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.plan_file import SCHEMA, Compared, Plan
from onnxopt.splitting.plan_notes import notes_on
from onnxopt.splitting.planned_cuts import Writer

NEXT_BEST = 5


@dataclass(frozen=True)
class Wish:
    """What is asked of a plan.

    Attributes:
        codecs: that tensors may cross in; `none` is always one of them.
        box: conditions that the plan shall adapt to; None: one cut for one context.
        most: cuts at most, beside nothing and everything on the device.
        raw_bytes: inputs that the application has in a smaller form (pixels as bytes), which the
            edge can make inputs of: their sizes, by name.
        compare: names of methods, see `baselines.METHODS`.
        max_error: largest relative error that a codec may cause in the outputs, where errors can
            be measured; None: any.
        notes: what the plan shall say of these wishes, in sentences.
    """

    task: Task
    codecs: tuple[Codec, ...] = ("none", "fp16", "uint8")
    box: Box | None = None
    most: int = 1
    raw_bytes: Mapping[str, int] = field(default_factory=dict)
    compare: tuple[str, ...] = ()
    pareto: bool = False
    max_error: float | None = None
    notes: tuple[str, ...] = ()


def plan_split(
    subject: Subject,
    machines: Machines,
    wish: Wish,
    *,
    source: str = "",
    digest: str = "",
    errors: ErrorOf | None = None,
) -> Plan:
    """The best way to split a model, and the cuts to export for it.

    Args:
        errors: measures what a codec at a cut changes in the outputs; it is asked about what the
            plan would show, until all that it shows is within the bound of the wish.

    Raises:
        CheckError: no cut keeps the budgets; it says which one cannot be kept, and by how much.
        UsageError: an input or a method that there is none of; no watts where energy is asked for;
            a bound on errors, and nothing to measure them with.
    """
    _check(subject.dag, wish, errors)
    dag, task = subject.dag, wish.task
    codings = codings_of(dag, wish.codecs, wish.raw_bytes, machines)
    cuts = enumerate_cuts(dag)
    sums = Sums(machines.device.operators_s, machines.edge.operators_s)
    cuts = explore(cuts, sums, codings, task, wish.box)
    device_s, on_device = machines.device.before(cuts)
    edge_s, at_edge = machines.edge.behind(cuts)
    found = candidates(cuts, codings, device_s, edge_s)
    measured = (on_device | {0, cuts.whole}) & (at_edge | {0, cuts.whole})
    bound = Bound(errors, wish.max_error)
    draft = _draft(found, wish)
    while (within := bound.kept(found, draft.numbers)) is not None:
        found = found.only(within)
        draft = _redraft(found, wish, bound)
    writer = Writer(found, task, measured, bound)
    numbers = list(draft.chain)
    planned = [writer.cut(number) for number in numbers]
    if found.cut[numbers[0]] != 0:
        planned.insert(0, writer.unsendable())
        numbers.insert(0, -1)
    rank = np.full(len(found) + 1, len(found))  # the last one for what is no candidate
    rank[draft.best] = np.arange(len(draft.best))
    chosen = int(np.argmin(rank[numbers]))
    return Plan(
        SCHEMA,
        source,
        digest,
        task.objective,
        task.context,
        wish.box,
        tuple(planned),
        chosen,
        draft.regret,
        cuts.is_complete,
        tuple(writer.cut(i) for i in draft.next_best),
        tuple(writer.cut(i) for i in draft.pareto),
        tuple(
            _compared(name, Setting(found, task, machines.device, machines.edge), writer, draft)
            for name in wish.compare
        ),
        (*notes_on(cuts, machines, wish.raw_bytes, planned[chosen]), *bound.notes(), *wish.notes),
    )


@dataclass(frozen=True)
class _Draft:
    """A plan as numbers of candidates.

    Attributes:
        best: all that keep the budgets, the best ones first.
        next_best: the first few of these with different cuts.
        chain: those to export; regret: of these.
        alive: those that are best somewhere in the box.
    """

    best: Ints
    next_best: tuple[int, ...]
    chain: tuple[int, ...]
    regret: float | None
    alive: tuple[int, ...]
    pareto: tuple[int, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """All that the plan shows or rests on, what matters most first."""
        all_of_them = (*self.chain, *self.alive, *self.next_best, *self.pareto)
        return tuple(dict.fromkeys(all_of_them))


def _draft(found: Candidates, wish: Wish) -> _Draft:
    best = ranked(found, wish.task)
    chain, regret, alive = _chain(found, wish, int(best[0]))
    beyond = pareto(found, wish.task) if wish.pareto else ()
    return _Draft(
        best,
        tuple(_different(found, best)),
        tuple(chain),
        regret,
        tuple(alive),
        tuple(int(i) for i in beyond),
    )


def _redraft(found: Candidates, wish: Wish, bound: Bound) -> _Draft:
    """As `_draft`, after some were taken out; it says so where no other keeps the budgets."""
    try:
        return _draft(found, wish)
    except CheckError as error:
        raise CheckError(f"{error.what}; {'; '.join(bound.notes())}", error.fix) from None


def _check(dag: Dag, wish: Wish, errors: ErrorOf | None) -> None:
    if not dag.operators:
        raise UsageError("there is nothing to split: no output of the model is computed")
    inputs = [tensor.name for tensor in dag.tensors if tensor.producer is None]
    for name in wish.raw_bytes:
        if name not in inputs:
            raise UsageError(f"the model has no input '{name}'", f"it has {', '.join(inputs)}")
    for name in wish.compare:
        if name not in METHODS:
            raise UsageError(f"there is no method '{name}'", f"there are {', '.join(METHODS)}")
    if wish.max_error is not None and errors is None:
        raise UsageError(
            "what codecs change in the outputs is bounded, and nothing is there to measure it on",
            "add --calibration FILE.npz",
        )
    task = wish.task
    if task.powers is None and (task.objective == "energy" or task.budgets.energy_j is not None):
        raise UsageError(
            "energy follows from what the device draws, and no watts are given",
            "add --device-power 4 --radio-power 1",
        )


def _chain(found: Candidates, wish: Wish, best: int) -> tuple[list[int], float | None, list[int]]:
    """The candidates to export, from nothing on the device to everything; their regret, and
    what may be best in the box.

    The best one is among them, but that with nothing on the device has the codec of least regret.
    """
    task = wish.task
    good = np.flatnonzero(kept(found, task))
    inner = [best] if 0 < found.cut[best] != found.cuts.whole else []
    starts = [int(i) for i in np.flatnonzero(found.cut == 0)]
    if wish.box is None:
        first = best if best in starts else found.all_edge(task.context)
        return [*([] if first is None else [first]), *inner, found.all_device], None, []
    alive = survivors(found, wish.box, good)
    chains = []
    for start in starts or [-1]:
        ends = [i for i in (start, found.all_device) if i in good]
        chain = best_chain(found, wish.box, alive, ends, wish.most, inner)
        chains.append((chain.regret, chain.mean_regret, start, chain))
    regret, _, start, chain = min(chains, key=lambda entry: entry[:3])
    whole = [*([start] if start >= 0 else []), *chain.numbers, found.all_device]
    return whole, regret, [int(i) for i in alive]


def _different(found: Candidates, best: Ints) -> list[int]:
    """The first few with different cuts."""
    first: dict[int, int] = {}
    for number in best:
        first.setdefault(int(found.cut[number]), int(number))
        if len(first) == NEXT_BEST:
            break
    return list(first.values())


def _compared(name: str, setting: Setting, writer: Writer, draft: _Draft) -> Compared:
    method = METHODS[name]
    number = method.choose(setting)
    if number is None:
        return Compared(name, None, None, None, method.remark)
    value = objective(setting.found, setting.task)
    cut = writer.cut(number)
    return Compared(
        name, cut, cut.latency_s, float(value[number] / value[draft.best[0]]), method.remark
    )
