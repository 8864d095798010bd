"""Candidates as a plan names them: where they cut, what they cost, and which budgets they break."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxopt.splitting.bound import Bound
from onnxopt.splitting.candidates import Candidates
from onnxopt.splitting.choosing import Task, broken
from onnxopt.splitting.enumeration import names_of
from onnxopt.splitting.plan_file import PlannedCut


@dataclass(frozen=True)
class Writer:
    """Puts candidates into words.

    Attributes:
        measured: cuts of which both sides were.
    """

    found: Candidates
    task: Task
    measured: frozenset[int]
    bound: Bound

    def cut(self, number: int) -> PlannedCut:
        found, task = self.found, self.task
        cut = int(found.cut[number])
        energy = None
        if task.powers is not None:
            energy = float(found.energy_j(task.context, task.powers)[number])
        return PlannedCut(
            *names_of(found.cuts, cut),
            found.codec(number),
            len(found.cuts.operators(cut)),
            found.point(number),
            int(found.weight_bytes[number]),
            int(found.peak_bytes[number]),
            float(found.latency_s(task.context)[number]),
            energy,
            float(found.interval_s(task.context)[number]),
            cut in self.measured,
            broken(found, task, number),
            self.bound.error(found, number),
        )

    def unsendable(self) -> PlannedCut:
        """Nothing on the device, where inputs cannot be sent, or outputs not be sent back."""
        dag = self.found.cuts.dag
        inputs = [dag.tensors[t] for t in self.found.cuts.crossing[0] if dag.tensors[t].why_not]
        ways = [(tensor, "an input", "cannot be sent") for tensor in inputs]
        ways += [(tensor, "an output", "cannot be sent back") for tensor in dag.stuck]
        tensor, kind, what = ways[0]
        last = self.cut(self.found.all_device)
        why = f"{kind} that {what}, '{tensor.name}': {tensor.why_not}"
        names = names_of(self.found.cuts, 0)
        return replace(
            last,
            tensors=names[0],
            outputs=names[1],
            operators=0,
            point=replace(last.point, is_remote=True),
            measured=False,
            broken=(why,),
        )
