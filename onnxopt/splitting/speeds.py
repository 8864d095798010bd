"""What each cut takes on one machine, by its profile: measured, or between what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.splitting.enumeration import Cuts, Floats, names_of
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.profile_file import MeasuredCut, SplitProfile

US = 1e-6


@dataclass(frozen=True)
class Speeds:
    """One machine, as planning sees it.

    Attributes:
        operators_s: of each operator, fused with its neighbours, kernels alone.
        unfused_s: of each operator, as it is in the file.
        apart_s: for each tensor what its readers take more where they are fused with its producer
            no more.
        profile: where it is from.
        factor: all times are multiplied by this: 0.1 is a machine ten times as fast.
    """

    operators_s: tuple[float, ...]
    unfused_s: tuple[float, ...]
    apart_s: tuple[float, ...]
    profile: SplitProfile
    factor: float

    def before(self, cuts: Cuts) -> tuple[Floats, frozenset[int]]:
        """Seconds of what is on the device, for each cut; and the cuts that were measured."""
        known = {
            cut: self._seconds(measured.prefix_us.median)
            for cut, measured in measured_cuts(cuts, self.profile).items()
            if measured.prefix_us is not None
        }
        times = self._between(cuts, cuts.sums(self.operators_s), known, cuts.whole)
        times[0] = 0.0
        return times, frozenset(known)

    def behind(self, cuts: Cuts) -> tuple[Floats, frozenset[int]]:
        """Seconds of what is at the edge, for each cut; and the cuts that were measured."""
        known = {
            cut: self._seconds(measured.suffix_us.median)
            for cut, measured in measured_cuts(cuts, self.profile).items()
            if measured.suffix_us is not None
        }
        sums = cuts.sums(self.operators_s)
        sums = sums[cuts.whole] - sums
        times = self._between(cuts, sums, known, 0) + cuts.sent(self.apart_s)
        for cut, seconds in known.items():
            times[cut] = seconds
        times[cuts.whole] = 0.0
        return times, frozenset(known)

    def _seconds(self, us: float) -> float:
        return us * US * self.factor

    def _between(self, cuts: Cuts, sums: Floats, known: dict[int, float], whole: int) -> Floats:
        """Sums of kernels made to agree with what was measured.

        Between two cuts that were measured the time grows in proportion to the sum. Nothing at all
        takes what a run takes without kernels, and everything what the whole model takes. A cut
        through a fused kernel tells nothing of others.
        """
        points = {
            0.0: [self._seconds(self.profile.run_us)],
            float(sums[whole]): [self._seconds(self.profile.whole_us.median)],
        }
        for cut, seconds in known.items():
            if not any(self.apart_s[tensor] for tensor in cuts.crossing[cut]):
                points.setdefault(float(sums[cut]), []).append(seconds)
        places = sorted(points)
        times: Floats = np.interp(sums, places, [sum(points[p]) / len(points[p]) for p in places])
        for cut, seconds in known.items():
            times[cut] = seconds
        return times


def speeds(subject: Subject, profile: SplitProfile, factor: float = 1.0) -> Speeds:
    """Times of operators from times of nodes.

    Raises:
        UsageError: the profile is of another model.
    """
    if len(profile.nodes_us) != len(subject.proto.graph.node):
        raise UsageError(
            f"the profile of '{profile.source}' is of a model with {len(profile.nodes_us)} nodes, "
            f"and this one has {len(subject.proto.graph.node)}",
            "profile this model: onnxopt split profile MODEL -o profile.json",
        )
    dag = subject.dag

    def of_operators(nodes_us: Sequence[float]) -> tuple[float, ...]:
        return tuple(sum(nodes_us[n] for n in op.nodes) * US * factor for op in dag.operators)

    unfused = of_operators(profile.unfused_us)
    fused = of_operators(profile.nodes_us)
    home = {node: number for number, op in enumerate(dag.operators) for node in op.nodes}
    kernel: dict[int, int] = {}
    for number, nodes in enumerate(profile.kernels):
        kernel.update((home[node], number) for node in nodes if node in home)
    apart = []
    for tensor in dag.tensors:
        group = None if tensor.producer is None else kernel.get(tensor.producer)
        readers = [v for v in tensor.readers if group is not None and kernel.get(v) == group]
        apart.append(sum(max(0.0, unfused[v] - fused[v]) for v in readers))
    return Speeds(fused, unfused, tuple(apart), profile, factor)


def measured_cuts(cuts: Cuts, profile: SplitProfile) -> dict[int, MeasuredCut]:
    """The cuts that a profile has measured, by their numbers."""
    place = {tensor.name: number for number, tensor in enumerate(cuts.dag.tensors)}
    wanted: dict[tuple[int, ...], list[MeasuredCut]] = {}
    for measured in profile.cuts:
        if all(name in place for name in measured.tensors):
            crossing = tuple(sorted(place[name] for name in measured.tensors))
            wanted.setdefault(crossing, []).append(measured)
    return {
        cut: measured
        for cut, crossing in enumerate(cuts.crossing)
        for measured in wanted.get(crossing, ())
        if set(names_of(cuts, cut)[1]) == set(measured.outputs)
    }
