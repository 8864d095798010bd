"""Profiles of real models with made-up times, and a stopwatch that measures nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from pathlib import Path

import onnx

from onnxopt.latency import predict
from onnxopt.profiler import profile_model
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Machine, Noise, Overhead, Profile, Settings, Spread
from onnxopt.profiling.tensors import dims_of
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.stopwatch import Stopwatch
from onnxopt.timing import Timing

ELSEWHERE = Machine("Linux", "a device", 2, 8, "1.20", "2.0", "3.12")


def kernel_us(op: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> float:
    """What the made-up machine takes: a start-up, and more for all that goes in and out."""
    if "Conv" in op or "Gemm" in op or "MatMul" in op:
        read, made = dims_of(inputs[0]), dims_of(outputs[0])
        axis = 1 if "Conv" in op else -1
        kernel = prod(dims_of(inputs[1])[2:]) if len(inputs) > 1 and "Conv" in op else 1
        return 0.3 + 1e-5 * prod(made) * read[axis] * kernel
    return 0.1 + 1e-4 * sum(prod(dims_of(text)) for text in (*inputs, *outputs))


def made_up(profile: Profile, machine: Machine | None = None) -> Profile:
    """The same kernels and layers, with times of the made-up machine."""
    kernels = tuple(replace(k, us=kernel_us(k.op, k.inputs, k.outputs)) for k in profile.kernels)
    layers = tuple(
        replace(
            layer,
            widths=tuple(
                replace(w, us=kernel_us(w.kernel_op, w.kernel_inputs, w.kernel_outputs))
                for w in layer.widths
            ),
        )
        for layer in profile.layers
    )
    samples = tuple(replace(s, us=kernel_us(s.op, s.inputs, s.outputs)) for s in profile.samples)
    ms = (sum(k.us for k in kernels) + 3.0) / 1000
    steady = Spread(ms, ms, ms, 9)
    return replace(
        profile,
        kernels=kernels,
        layers=layers,
        samples=samples,
        blocks=(),
        steady_ms=steady,
        overhead=Overhead(3.0, 1.0, 1.0),
        noise=Noise(1.0, 1.0, 0.0, 0, True, ""),
        machine=replace(profile.machine, processor="made up") if machine is None else machine,
    )


@cache
def _profiled(serialized: bytes, batch: int) -> Profile:
    proto = onnx.load_model_from_string(serialized)
    asked = Asked(seconds=0.01, batch=batch)
    return made_up(profile_model(proto, asked, source="made.onnx", widths=True))


def profile_of(proto: onnx.ModelProto, batch: int = 1) -> Profile:
    return _profiled(proto.SerializeToString(), batch)


@dataclass
class Fake:
    """A machine that takes what the profile predicts, and a share whatever the model is.

    Attributes:
        startup: what stays of the time whatever is cut.
        drift: what the share is multiplied with, try by try; the last for all that follow.
        timed: the models that were timed.
    """

    startup: float = 0.3
    drift: tuple[float, ...] = (1.0,)
    spread: float = 0.01
    timed: list[onnx.ModelProto] = field(default_factory=list)
    profiles: int = 0
    profile: Profile | None = None

    @property
    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self._profile, self._against)

    def _profile(self, proto: onnx.ModelProto, feeds: Batch, tell: object) -> Profile:
        self.profiles += 1
        self.profile = profile_of(proto, len(next(iter(feeds.values()))))
        return self.profile

    def _against(self, original: onnx.ModelProto, other: onnx.ModelProto, feeds: Batch) -> Timing:
        self.timed.append(other)
        assert self.profile is not None
        after, before = (predict(m, self.profile, feeds=feeds).ms for m in (other, original))
        drift = self.drift[min(len(self.timed), len(self.drift)) - 1]
        ratio = drift * (self.startup + (1 - self.startup) * after / before)
        low, high = ratio - self.spread, ratio + self.spread
        return Timing(1.0, ratio, ratio, low, high, 9, 1, len(next(iter(feeds.values()))))


def device_file(profile: Profile, folder: Path) -> Path:
    from onnxopt.profiling.files import write_json

    write_json(profile, folder / "device.json")
    return folder / "device.json"


def of_device(proto: onnx.ModelProto) -> Profile:
    """As another machine would have measured it."""
    found = profile_of(proto)
    shapes = dict(found.settings.shapes)
    return replace(
        found, machine=ELSEWHERE, settings=Settings(1, found.settings.provider, shapes, 9, 1.0)
    )
