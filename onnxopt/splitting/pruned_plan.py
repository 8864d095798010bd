"""Compression and cut together: prune to several budgets, plan each, take the best allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from onnxopt.errors import CheckError, UsageError
from onnxopt.model import load, save
from onnxopt.profiling.machine import machine
from onnxopt.pruning.analysis import Tell
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.plan_file import Plan
from onnxopt.splitting.planning import Wish
from onnxopt.splitting.profiled import Profiled
from onnxopt.splitting.pruned_search import Joint, Search
from onnxopt.splitting.pruned_worth import Pruning

ROUNDS = 3
"""So many cuts at most have the part before them pruned: pruning it may make another cut best."""


def plan_pruned(
    proto: onnx.ModelProto,
    known: Profiled,
    wish: Wish,
    pruning: Pruning,
    *,
    source: str,
    tell: Tell = lambda stage, done: None,
) -> Joint:
    """Plan the model and pruned versions of it, and take the best that loses no more than it may.

    First the whole model is pruned to each budget. Where the best plan then has a part at the edge,
    or that of the original has, the part before that cut is pruned alone, to the same shares of
    what it costs, and all is planned again; and so on while that makes another cut the best.
    What a version loses is told with the codecs that its plan has. Where these lose too much it is
    planned without.

    The pruned versions are measured on this machine, so both profiles must be of this machine, made
    slower or faster by factors. The plan of a pruned model has no hash yet: that comes with its
    file.

    Raises:
        UsageError: a profile is of another machine, nothing says what may be lost, or samples do
            not fit.
        CheckError: no version has a cut that keeps the budgets.
    """
    _check(known, pruning)
    search = Search(proto, known, wish, pruning, source, tell)
    search.whole()
    for _ in range(ROUNDS):
        cut = search.next_cut()
        if cut is None:
            break
        search.before(cut)
    if search.best is None:
        raise CheckError("no cut keeps the budgets, of the model or of any pruned version", "")
    plan, model = search.best.plan, search.best.model
    return Joint(replace(plan, variants=tuple(search.variants)), model)


def _check(known: Profiled, pruning: Pruning) -> None:
    if pruning.most_drop is None and pruning.least_agreement is None:
        raise UsageError(
            "pruning changes what the model gives, and nothing says how much may be lost",
            "add --max-drop 2.5 with --eval FILE.npz, or --min-agreement 97.5% with --calibration",
        )
    here = machine()
    for side, at in (("device", known.machines.device), ("edge", known.machines.edge)):
        there = at.profile.machine
        if (there.processor, there.onnxruntime) != (here.processor, here.onnxruntime):
            raise UsageError(
                f"pruned models are measured here ({here.processor}), and the profile of the "
                f"{side} is of another machine ({there.processor})",
                "prune with `onnxopt prune --sweep`, profile the results on both machines, and "
                "plan each",
            )


def plan_and_prune(
    proto: onnx.ModelProto,
    known: Profiled,
    wish: Wish,
    pruning: Pruning,
    model: Path,
    target: Path,
    *,
    tell: Tell = lambda stage, done: None,
) -> Plan:
    """As `plan_pruned`; a pruned model is written, and the plan is for that file."""
    joint = plan_pruned(proto, known, wish, pruning, source=str(model), tell=tell)
    if joint.model is None:
        note = "no pruned version is better: the plan is for the original, and nothing was written"
        return replace(joint.plan, notes=(*joint.plan.notes, note))
    save(joint.model, target)
    written = load(target)
    note = f"the plan is for '{target}': export that with it; it runs on both sides"
    return replace(
        joint.plan,
        source=str(target),
        model=read_source(target, written).digest,
        notes=(*joint.plan.notes, note),
    )
