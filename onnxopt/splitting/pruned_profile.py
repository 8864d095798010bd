"""Profile a pruned version of a model here, as the original was profiled."""

from __future__ import annotations

import onnx

from onnxopt.profiling.bench import Asked
from onnxopt.splitting.codings import Machines
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.measuring import measure_split
from onnxopt.splitting.operators import read_subject
from onnxopt.splitting.profile_file import SplitProfile
from onnxopt.splitting.profiled import Profiled
from onnxopt.splitting.speeds import speeds
from onnxopt.splitting.spots import spots

CUTS = 12


def profiled_here(model: onnx.ModelProto, known: Profiled, source: str) -> Profiled:
    """A pruned version as the original was profiled, on both sides."""
    profiles: list[SplitProfile] = []
    for at in (known.machines.device, known.machines.edge):
        settings = at.profile.settings
        if profiles and settings == known.machines.device.profile.settings:
            profiles.append(profiles[0])
            continue
        subject = read_subject(model, dict(settings.shapes))
        cuts = enumerate_cuts(subject.dag)
        asked = Asked(
            threads=settings.threads,
            provider=settings.provider,
            shapes=dict(settings.shapes),
            seconds=max(0.01, settings.seconds),
        )
        profiles.append(measure_split(subject, cuts, spots(cuts, CUTS), asked, source=source))
    subject = read_subject(model, dict(profiles[0].shapes))
    device, edge = known.machines.device.factor, known.machines.edge.factor
    machines = Machines(speeds(subject, profiles[0], device), speeds(subject, profiles[1], edge))
    return Profiled(subject, machines, "")
