"""The best way to split by one objective, under hard budgets; and by how much budgets cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxopt.errors import CheckError
from onnxopt.quantities import bytes_text
from onnxopt.splitting.candidates import Bools, Candidates, Ints, Powers
from onnxopt.splitting.context import Context
from onnxopt.splitting.enumeration import Floats
from onnxopt.splitting.pareto import front
from onnxopt.splitting.plan_file import Objective


@dataclass(frozen=True)
class Budgets:
    """What a split must keep, on the device; None: anything goes.

    Attributes:
        weight_bytes: of the weights.
        memory_bytes: of weights and of the activations alive at once, together.
        energy_j, latency_s: of one request.
    """

    weight_bytes: int | None = None
    memory_bytes: int | None = None
    energy_j: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True)
class Task:
    """What to plan for.

    Attributes:
        powers: must be given where energy is the objective or has a budget.
    """

    context: Context
    objective: Objective = "latency"
    budgets: Budgets = Budgets()
    powers: Powers | None = None


@dataclass(frozen=True)
class _Limit:
    """One budget: what it is called, its values for all candidates, and how to write them."""

    name: str
    values: Floats | Ints
    most: float
    text: Callable[[float], str]

    def broken(self) -> Bools:
        found: Bools = self.values > self.most
        return found


def objective(found: Candidates, task: Task) -> Floats:
    """What is to be small, for all candidates: seconds or joules."""
    if task.objective == "latency":
        return found.latency_s(task.context)
    if task.objective == "throughput":
        return found.interval_s(task.context)
    assert task.powers is not None
    return found.energy_j(task.context, task.powers)


def kept(found: Candidates, task: Task) -> Bools:
    """Which candidates keep all budgets."""
    good = np.ones(len(found), np.bool_)
    for limit in _limits(found, task):
        good &= ~limit.broken()
    return good


def broken(found: Candidates, task: Task, number: int) -> tuple[str, ...]:
    """The budgets that one candidate breaks, in words."""
    return tuple(
        f"{limit.name} of {limit.text(limit.values[number])}, "
        f"{limit.text(limit.values[number] - limit.most)} above the budget of "
        f"{limit.text(limit.most)}"
        for limit in _limits(found, task)
        if limit.broken()[number]
    )


def ranked(found: Candidates, task: Task) -> Ints:
    """The candidates that keep all budgets, the best ones first.

    Of equally good ones that with less latency, then that with less on the device.

    Raises:
        CheckError: there is none; it says which budget cannot be kept, and by how much.
    """
    good = np.flatnonzero(kept(found, task))
    if not len(good):
        raise CheckError(_why_none(found, task), "raise that budget, or prune the model first")
    keys = (found.cut[good], found.weight_bytes[good], found.latency_s(task.context)[good])
    return good[np.lexsort((*keys, objective(found, task)[good]))]


def pareto(found: Candidates, task: Task) -> Ints:
    """Those that keep the budgets and that no other one beats in everything that is asked about.

    That is latency, weights and memory on the device, and energy where powers are given.
    """
    good = np.flatnonzero(kept(found, task))
    columns = [found.latency_s(task.context)]
    if task.powers is not None:
        columns.append(found.energy_j(task.context, task.powers))
    columns += [found.weight_bytes.astype(float), memory_bytes(found).astype(float)]
    best = good[front(np.stack([column[good] for column in columns], axis=1))]
    return best[np.argsort(found.latency_s(task.context)[best], kind="stable")]


def memory_bytes(found: Candidates) -> Ints:
    """Weights, and activations alive at once, on the device."""
    both: Ints = found.weight_bytes + found.peak_bytes
    return both


def _limits(found: Candidates, task: Task) -> list[_Limit]:
    budgets, made = task.budgets, []
    if budgets.weight_bytes is not None:
        most = budgets.weight_bytes
        made.append(_Limit("weights on the device", found.weight_bytes, most, _bytes))
    if budgets.memory_bytes is not None:
        made.append(
            _Limit("memory on the device", memory_bytes(found), budgets.memory_bytes, _bytes)
        )
    if budgets.energy_j is not None:
        assert task.powers is not None
        energy = found.energy_j(task.context, task.powers)
        made.append(_Limit("energy", energy, budgets.energy_j, lambda j: f"{j:.4g} J"))
    if budgets.latency_s is not None:
        times = found.latency_s(task.context)
        made.append(_Limit("latency", times, budgets.latency_s, lambda s: f"{1000 * s:.4g} ms"))
    return made


def _why_none(found: Candidates, task: Task) -> str:
    """For each budget, how much is needed at least where the others are kept, if they can be."""
    limits = _limits(found, task)
    said = []
    for limit in limits:
        others = np.ones(len(found), np.bool_)
        for other in limits:
            others &= ~other.broken() | (other is limit)
        together = bool(others.any()) and len(limits) > 1
        least = limit.values[others].min() if others.any() else limit.values.min()
        if least > limit.most:
            said.append(
                f"{limit.name} cannot be below {limit.text(least)}"
                + (" where the other budgets are kept" if together else "")
                + f", {limit.text(least - limit.most)} above the budget of {limit.text(limit.most)}"
            )
    return "no cut keeps the budgets: " + "; ".join(said or ["no two of them can be kept at once"])


def _bytes(size_bytes: float) -> str:
    return bytes_text(round(size_bytes))
