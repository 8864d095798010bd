"""Profiles, kits and clocks for tests: small, and made of numbers instead of measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

from onnxopt.profiling.document import (
    SCHEMA,
    KernelTime,
    LayerTimes,
    Machine,
    Memory,
    Noise,
    Overhead,
    Profile,
    Sample,
    Settings,
    Spread,
    WidthTime,
)
from onnxopt.profiling.turns import Clock

RESIDUAL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,16,8,8] x) => (float[N,10] y) {
        [first] a = Conv<pads = [1, 1, 1, 1]>(x, w1)
        [relu] r = Relu(a)
        [second] b = Conv<pads = [1, 1, 1, 1]>(r, w2)
        [sum] s = Add(b, x)
        [last] t = Relu(s)
        [mean] p = GlobalAveragePool(t)
        [flat] f = Flatten(p)
        [classes] y = MatMul(f, w3)
    }
"""
"""A block with all that kernels are named after; its weights are filled in by `residual`."""


def residual() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(RESIDUAL)
    rng = np.random.default_rng(0)
    for name, shape in (("w1", (16, 16, 3, 3)), ("w2", (16, 16, 3, 3)), ("w3", (16, 10))):
        weight = 0.1 * rng.standard_normal(shape, dtype=np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return proto


def written(proto: onnx.ModelProto, file: Path) -> Path:
    file.write_bytes(proto.SerializeToString())
    return file


class FakeTime:
    """A clock that only goes on when told; for `others_s` the processor does other work."""

    def __init__(self) -> None:
        self.now, self.worked = 0.0, 0.0

    def step(self, seconds: float, *, others_s: float = 0.0) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds + others_s
            self.worked += seconds

        return run

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.worked)


def conv_us(inputs: int, outputs: int) -> float:
    """What the made-up machine takes for a 3x3 convolution at 8x8."""
    moved = 4 * (inputs * 64 + outputs * 64 + 9 * inputs * outputs + outputs)
    return 3.0 + 0.02 * (64 * 9 * inputs * outputs) / 1e3 + 0.1 * moved / 1e3


def conv_kernel(inputs: int, outputs: int) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    shapes = (f"float[1,{inputs},8,8]", f"float[{outputs},{inputs},3,3]", f"float[{outputs}]")
    return "Conv.nchwc", shapes, (f"float[1,{outputs},8,8]",)


def conv_width(inputs: int, outputs: int) -> WidthTime:
    us = conv_us(inputs, outputs)
    op, given, made = conv_kernel(inputs, outputs)
    return WidthTime(inputs, outputs, 576 * inputs * outputs, 4, us, us, us, op, given, made)


def profile(
    widths: Sequence[tuple[int, int]] = ((64, 64), (48, 48), (32, 32), (16, 16), (64, 16)),
    *,
    in_model: float = 1.0,
) -> Profile:
    """Of a model with one convolution and one Relu.

    Args:
        in_model: what kernels took in the model by what they took alone.
    """
    op, given, made = conv_kernel(64, 64)
    us = in_model * conv_us(64, 64)
    relu = KernelTime("r", "Relu", made, made, 4.0, 0.1, ("relu",))
    layer = LayerTimes(
        "Conv", "3x3", ("conv",), 1, us, tuple(conv_width(*w) for w in widths), None, None
    )
    return Profile(
        SCHEMA,
        "made.onnx",
        Machine("Linux", "made up", 1, 16, "1", "2", "3"),
        Settings(1, "CPUExecutionProvider", {"x": (1, 64, 8, 8)}, 9, 1.0),
        *(Spread(1.0, 0.9, 1.1, 5),) * 3,
        Noise(0.99, 1.01, 0.0, 0, True, ""),
        Memory(None, "not measured: made up"),
        Overhead(5.0, 1.0, 1.0),
        (KernelTime("c", op, given, made, us, 0.9, ("conv",)), relu),
        1.0,
        (layer,) if widths else (),
        (),
        (Sample("ReorderInput", ("float[1,64,8,8]",), ("float[1,64,8,8]",), 2.5),),
        (),
    )
