"""Profiles of split models for tests, made of numbers instead of measurements."""

from __future__ import annotations

from collections.abc import Sequence

from onnxopt.profiling.document import Machine, Noise, Settings, Spread
from onnxopt.splitting.codings import Machines
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.profile_file import CodecTimes, MeasuredCut, SplitProfile
from onnxopt.splitting.speeds import speeds


def spread(us: float) -> Spread:
    return Spread(us, us, us, 9)


def made_profile(
    subject: Subject, cuts: Sequence[MeasuredCut] = (), *, us: float = 10.0
) -> SplitProfile:
    """As if every node took so long; unfused twice that."""
    nodes = [us] * len(subject.proto.graph.node)
    machine = Machine("Linux", "some processor", 2, 8, "1", "2", "3")
    return SplitProfile(
        "onnxopt-split-profile/1",
        "model.onnx",
        "hash",
        machine,
        Settings(1, "CPUExecutionProvider", {}, 9, 1.0),
        Noise(1.0, 1.0, 0.0, 0, True, ""),
        spread(sum(nodes) + 5.0),
        5.0,
        tuple(nodes),
        tuple(2 * each for each in nodes),
        (),
        1.0,
        tuple(cuts),
        (CodecTimes("fp16", 1.0, 10.0, 1.0, 10.0), CodecTimes("uint8", 1.0, 20.0, 1.0, 20.0)),
        (),
    )


def both_machines(subject: Subject, *, slower: float = 20.0) -> Machines:
    profile = made_profile(subject)
    return Machines(speeds(subject, profile, slower), speeds(subject, profile))
