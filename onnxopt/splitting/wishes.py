"""Where to cut: what a user names, what a plan says, or some cuts spread over the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from onnxopt.errors import UsageError
from onnxopt.splitting.boundary import before, complete
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.enumeration import Cuts, enumerate_cuts
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.plan_file import Plan, PlannedCut


@dataclass(frozen=True)
class Wish:
    """Nested cuts to export.

    Attributes:
        chain: for each inner cut the operators on the device, each within the next one.
        codecs: of each cut, with nothing and with everything on the device too.
        chosen: number of the cut to use where nothing else is said.
        planned: the plan as its text; None without one.
        remarks: what was added or decided, in sentences.
    """

    chain: tuple[frozenset[int], ...]
    codecs: tuple[Codec, ...]
    chosen: int
    planned: str | None = None
    remarks: tuple[str, ...] = ()


def split_names(subject: Subject, texts: Sequence[str]) -> list[str]:
    """NAME[,NAME] as names; one that holds a comma itself is taken as it is."""
    graph = subject.proto.graph
    known = {tensor.name for tensor in subject.dag.tensors} | {node.name for node in graph.node}
    return [
        name
        for text in texts
        for name in ([text] if text in known else filter(None, map(str.strip, text.split(","))))
    ]


def named(subject: Subject, names: Sequence[str], codec: Codec) -> Wish:
    """The cut that a user names, its boundary completed.

    Raises:
        UsageError: see `boundary.complete`.
    """
    found = complete(subject, names)
    remarks = []
    if found.added:
        listed = ", ".join(f"'{name}'" for name in found.added)
        remarks.append(f"added to the boundary, for the edge needs it too: {listed}")
    remarks += [
        f"`split serve` and `split run` will refuse this cut: the edge makes the output "
        f"'{tensor.name}', {tensor.why_not.removeprefix('it is ')}, and cannot send it back"
        for tensor in subject.dag.unsent(found.device)
    ]
    if not found.device:
        remarks.append("nothing runs on the device: it sends the inputs of the model")
        return Wish((), (codec, "none"), 0, remarks=tuple(remarks))
    return Wish((found.device,), ("none", codec, "none"), 1, remarks=tuple(remarks))


def planned(subject: Subject, plan: Plan, text: str, model: str) -> Wish:
    """The cuts that a plan chose.

    Args:
        text: of the plan, to be kept.
        model: SHA-256 of the model.

    Raises:
        UsageError: the plan is for another model, or its cuts are not nested.
    """
    if plan.model != model:
        raise UsageError(
            "the plan is for another model: its hash is not that of this file",
            "plan again with `onnxopt split plan`",
        )
    chain = tuple(device_of(subject.dag, cut) for cut in plan.cuts[1:-1])
    bounds = [frozenset[int](), *chain, frozenset(range(len(subject.dag.operators)))]
    for number, (inner, outer) in enumerate(pairwise(bounds)):
        if not inner < outer:
            raise UsageError(
                f"cut {number + 1} of the plan does not have all that cut {number} has on the "
                "device, and more",
                "plan again with `onnxopt split plan`",
            )
    return Wish(chain, tuple(cut.codec for cut in plan.cuts), plan.chosen, text)


def device_of(dag: Dag, cut: PlannedCut) -> frozenset[int]:
    """What the device computes: what is sent, and the outputs that it makes."""
    number = {tensor.name: tensor for tensor in dag.tensors}
    unknown = [name for name in (*cut.tensors, *cut.outputs) if name not in number]
    if unknown:
        raise UsageError(f"the plan names '{unknown[0]}', which the model has not")
    producers = (number[name].producer for name in (*cut.tensors, *cut.outputs))
    device = before(dag, (producer for producer in producers if producer is not None))
    crossing = tuple(dag.tensors[tensor].name for tensor in dag.crossing(device))
    if set(crossing) != set(cut.tensors):
        listed = ", ".join(f"'{name}'" for name in cut.tensors)
        raise UsageError(f"what the plan sends ({listed}) is no boundary of the model")
    return device


def spread(subject: Subject, count: int, codec: Codec) -> Wish:
    """Nested cuts along the work of the model, each sending as little as there is near its place.

    Args:
        count: how many at most; fewer where the model has no more.

    Raises:
        UsageError: there is no cut at all.
    """
    cuts = enumerate_cuts(subject.dag)
    sent = cuts.sent([float(tensor.size_bytes) for tensor in subject.dag.tensors])
    inner = cuts.inner()
    chain = _along(cuts, inner, count)
    if not chain and inner:
        chain = [min(inner, key=lambda c: (sent[c], c))]
    if not chain:
        raise UsageError(
            "the model has no place to cut at: it is one operator, or what lies "
            "between its operators, or an output that the edge makes, cannot be sent"
        )
    devices = tuple(frozenset(cuts.operators(cut)) for cut in chain)
    chosen = 1 + min(range(len(chain)), key=lambda place: (sent[chain[place]], place))
    codecs: tuple[Codec, ...] = ("none", *[codec] * len(chain), "none")
    return Wish(
        devices,
        codecs,
        chosen,
        remarks=(
            "the cuts are spread over the work of the model, without a plan: the one that sends "
            "least is the one to begin with",
        ),
    )


def _along(cuts: Cuts, inner: Sequence[int], count: int) -> list[int]:
    """Nested cuts, each the one that sends least in its share of the work."""
    work = cuts.sums([float(operator.macs) for operator in cuts.dag.operators])
    if not work.max(initial=0.0):
        work = cuts.sums([1.0] * len(cuts.dag.operators))
    sent = cuts.sent([float(tensor.size_bytes) for tensor in cuts.dag.tensors])
    step = work.max(initial=0.0) / (2 * count + 2)
    chain: list[int] = []
    last = 0
    for number in range(1, count + 1):
        low, high = (2 * number - 1) * step, (2 * number + 1) * step
        near = [
            cut
            for cut in inner
            if low <= work[cut] <= high
            and last & ~cuts.device[cut] == 0
            and cuts.device[cut] != last
        ]
        if near:
            chain.append(min(near, key=lambda cut: (sent[cut], cut)))
            last = cuts.device[chain[-1]]
    return chain
