"""A model with the profiles of two machines, at the sizes that it was profiled with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxopt.errors import UsageError
from onnxopt.splitting.codings import Machines
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.splitting.profile_file import SplitProfile, read_split_profile
from onnxopt.splitting.speeds import speeds


@dataclass(frozen=True)
class Profiled:
    """All that planning is about."""

    subject: Subject
    machines: Machines
    digest: str


def profiled(
    proto: onnx.ModelProto,
    model: Path,
    device: Path,
    edge: Path,
    device_slowdown: float = 1.0,
    edge_speedup: float = 1.0,
) -> Profiled:
    """Read both profiles, and look at the model at their sizes.

    Raises:
        UsageError: a profile is of another model, or both are of different sizes.
    """
    if not (0 < device_slowdown < float("inf") and 0 < edge_speedup < float("inf")):
        raise UsageError("a machine is some times as fast as it was measured: above 0")
    source = read_source(model, proto)
    both = [read_split_profile(file) for file in (device, edge)]
    for file, profile in zip((device, edge), both, strict=True):
        if profile.model != source.digest:
            raise UsageError(
                f"'{file}' is a profile of another model ('{profile.source}'): its hash differs",
                f"run onnxopt split profile {model} -o {file} on that machine",
            )
    if dict(both[0].shapes) != dict(both[1].shapes):
        raise UsageError(
            f"the profiles are of inputs of different sizes: {_shapes(both[0])} on the device, "
            f"{_shapes(both[1])} at the edge",
            "profile both with the same --set-shape",
        )
    subject = read_subject(proto, dict(both[0].shapes))
    machines = Machines(
        speeds(subject, both[0], device_slowdown), speeds(subject, both[1], 1 / edge_speedup)
    )
    return Profiled(subject, machines, source.digest)


def _shapes(profile: SplitProfile) -> str:
    return ", ".join(f"{name} {list(dims)}" for name, dims in profile.shapes.items())
