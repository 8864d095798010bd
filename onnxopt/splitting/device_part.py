"""The part of a model that a plan has on the device, to be pruned while the other one stays."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from onnxopt.errors import UsageError
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.splitting.plan_file import PlannedCut
from onnxopt.splitting.wishes import device_of


@dataclass(frozen=True)
class DevicePart:
    """What to prune.

    Attributes:
        proto: the model, all of its nodes with names.
        kept: names of the nodes at the edge: what they make keeps all of its channels. What they
            read of the device may lose some, and then they have fewer weights for these.
        share: of the device in what the model costs.
    """

    proto: onnx.ModelProto
    kept: tuple[str, ...]
    share: float

    def job(self, job: Job) -> Job:
        """The same job for this part alone."""
        patterns = tuple(glob.escape(name) for name in self.kept)
        options = replace(job.options, ignore=(*job.options.ignore, *patterns))
        return replace(job, options=options)

    def budget(self, budget: Budget) -> Budget:
        """A share of what the part costs, as one of what the whole model costs.

        What is no share is of the whole model as it is.
        """
        if not budget.relative:
            return budget
        return replace(budget, amount=1 - (1 - budget.amount) * self.share)


def device_part(
    proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], cut: PlannedCut, job: Job
) -> DevicePart:
    """The part of a model before a cut.

    Args:
        proto: the model as pruning begins with it.
        shapes: of its inputs.

    Raises:
        UsageError: the model does not have the tensors of the cut, or costs by which pruning is
            budgeted do not tell parts apart.
    """
    if job.mode not in ("flops", "params"):
        raise UsageError(f"a budget of {job.mode} is of the whole model, not of a part of it")
    named = _named(proto)
    subject = read_subject(named, shapes)
    device = device_of(subject.dag, cut)
    places = {
        place
        for number, operator in enumerate(subject.dag.operators)
        if number not in device
        for place in operator.nodes
    }
    names = tuple(node.name for place, node in enumerate(named.graph.node) if place in places)
    return DevicePart(named, names, _share(subject, device, job))


def _named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each node has a name of its own."""
    named = onnx.ModelProto()
    named.CopyFrom(proto)
    taken: set[str] = set()
    for node in named.graph.node:
        base = node.name or next(filter(None, node.output), node.op_type)
        name, count = base, 0
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        node.name = name
        taken.add(name)
    return named


def _share(subject: Subject, device: frozenset[int], job: Job) -> float:
    """Of the device in what budgets are of: arithmetic, or weights."""
    operators, sizes = subject.dag.operators, subject.dag.weight_bytes
    if job.mode == "params":
        held = {weight for number in device for weight in operators[number].weights}
        return sum(sizes[weight] for weight in held) / max(1, sum(sizes))
    done = sum(operators[number].macs for number in device)
    return done / max(1, sum(operator.macs for operator in operators))
