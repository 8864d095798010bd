"""How other methods choose a cut, by the same profiles: to be compared with, not to be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxopt.splitting.candidates import Bools, Candidates
from onnxopt.splitting.choosing import Task, memory_bytes
from onnxopt.splitting.gads import Gads
from onnxopt.splitting.speeds import Speeds


@dataclass(frozen=True)
class Setting:
    """What a method may know."""

    found: Candidates
    task: Task
    device: Speeds
    edge: Speeds


@dataclass(frozen=True)
class Method:
    """Chooses the number of a candidate; None if it has none. The remark says what it looks at."""

    choose: Callable[[Setting], int | None]
    remark: str


def device_only(setting: Setting) -> int | None:
    """Everything on the device."""
    return setting.found.all_device


def edge_only(setting: Setting) -> int | None:
    """Everything at the edge, the inputs as they are."""
    return setting.found.find(0, 0)


def neurosurgeon(setting: Setting) -> int | None:
    """Kang et al., Neurosurgeon (ASPLOS 2017): a chain of layers, cut where one tensor crosses.

    Latency is the sum of times of layers and of the tensor by the bandwidth; the round trip and
    what comes back do not count. Theirs are predicted by regressions for each type of layer; ours
    are those of this very model, which is in its favour.
    """
    found = _unfused(setting)
    return _least(found, _single(found) & _plain(found), _link_only(setting.task))


def dads(setting: Setting) -> int | None:
    """Hu et al., DADS (INFOCOM 2019): the minimum cut of the graph of layers, times unfused.

    Where one request runs at a time it is the least sum; where many do (here: throughput) the
    least maximum of both sides and the link. The minimum cut is the least of all that are listed.
    """
    found = _unfused(setting)
    return _least(found, _plain(found), _link_only(setting.task))


def jalad(setting: Setting) -> int | None:
    """Like JALAD (Li et al., ICPADS 2018): a chain of layers, by cut and bits of the one tensor.

    Theirs solves an integer program over cuts and 1 to 8 bits with entropy coding and a bound for
    the accuracy; the bits here are those of the codecs.
    """
    found = _unfused(setting)
    return _least(found, _single(found), _link_only(setting.task))


def lmos(setting: Setting) -> int | None:
    """Like LMOS: a chain of layers, by latency and memory of the device, weighed alike.

    Each is taken as a share of its range over all cuts.
    """
    found = _unfused(setting)
    among = np.flatnonzero(_single(found) & _plain(found))
    if not len(among):
        return None
    times = found.latency_s(_link_only(setting.task).context)[among]
    held = memory_bytes(found)[among].astype(float)
    both = sum((v - v.min()) / (np.ptp(v) or 1.0) for v in (times, held))
    return int(among[np.argmin(both)])


def gads(setting: Setting) -> int | None:
    """GADS, from everything on the device; see `gads.Gads`."""
    found = setting.found
    states = np.flatnonzero(_single(found) & _plain(found))
    search = Gads(found, [int(i) for i in states], start=found.all_device)
    return search.tune(setting.task.context)


METHODS = {
    "gads": Method(gads, "search among neighbours from the last state, cuts of one tensor"),
    "dads": Method(dads, "minimum cut over unfused times, no round trip, no codec"),
    "neurosurgeon": Method(neurosurgeon, "cuts of one tensor over unfused times, no round trip"),
    "jalad": Method(jalad, "cuts of one tensor by codec over unfused times, no round trip"),
    "lmos": Method(lmos, "latency and device memory weighed alike, cuts of one tensor"),
    "device-only": Method(device_only, "everything on the device"),
    "edge-only": Method(edge_only, "everything at the edge, inputs as they are"),
}


def _single(found: Candidates) -> Bools:
    """What sends one tensor, or nothing, or the inputs."""
    crossing = found.cuts.crossing
    return np.array([cut == 0 or len(crossing[cut]) <= 1 for cut in found.cut])


def _plain(found: Candidates) -> Bools:
    plain: Bools = found.coding == 0
    return plain


def _unfused(setting: Setting) -> Candidates:
    """The candidates with sums of unfused times, and nothing that comes back."""
    cuts = setting.found.cuts
    device = cuts.sums(setting.device.unfused_s)
    edge = cuts.sums(setting.edge.unfused_s)
    edge = edge[cuts.whole] - edge
    numbers = setting.found.cut
    return replace(
        setting.found, device_s=device[numbers], edge_s=edge[numbers], back=0 * setting.found.back
    )


def _link_only(task: Task) -> Task:
    """The same without the round trip."""
    return replace(task, context=replace(task.context, rtt_s=0.0))


def _least(found: Candidates, among: Bools, task: Task) -> int | None:
    chosen = np.flatnonzero(among)
    if not len(chosen):
        return None
    if task.objective == "throughput":
        values = found.interval_s(task.context)
    elif task.objective == "energy" and task.powers is not None:
        values = found.energy_j(task.context, task.powers)
    else:
        values = found.latency_s(task.context)
    return int(chosen[np.argmin(values[chosen])])
