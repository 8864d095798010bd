"""Measure the tolerance of verification: do right rewrites pass, and are planted faults caught?

    python benchmarks/noise.py MODEL.onnx... [--peer PYTHON]

Right rewrites are made by other optimizers (onnxsim, onnxslim, ONNX Runtime's basic level) in the
interpreter given as PYTHON, where they are installed. Faults are planted in one channel of one
layer. For each candidate the table gives the share of the tolerance that its worst error takes:
below 1 passes. `quiet` and `loud` say whether noise had to be measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper

import onnxopt.verification.reference
from onnxopt.errors import OnnxoptError
from onnxopt.model import load
from onnxopt.verification.verify import Verifier

ORT = (
    "import onnxruntime as o; s = o.SessionOptions(); s.optimized_model_filepath = b; "
    "s.log_severity_level = 4; "
    "s.graph_optimization_level = o.GraphOptimizationLevel.ORT_ENABLE_{}; "
    "o.InferenceSession(a, s, providers=['CPUExecutionProvider'])"
)
PEERS = {
    "onnxsim": "import onnx, onnxsim; m, _ = onnxsim.simplify(onnx.load(a)); onnx.save(m, b)",
    "onnxslim": "import onnx, onnxslim; onnx.save(onnxslim.slim(onnx.load(a)), b)",
    "basic": ORT.format("BASIC"),
    "extended": ORT.format("EXTENDED"),
    "all": ORT.format("ALL"),
}

WEIGHTED = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "MatMul")


def right_rewrites(model: Path, peer: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    with tempfile.TemporaryDirectory() as folder:
        for name, code in PEERS.items():
            out = Path(folder) / f"{name}.onnx"
            program = f"import sys; a, b = sys.argv[1:]; {code}"
            run = [peer, "-c", program, str(model), str(out)]
            done = subprocess.run(run, capture_output=True, timeout=300, check=False)
            if done.returncode == 0 and out.exists():
                yield name, load(out)


def without_defaults(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constant weights only: other optimizers drop inputs with defaults."""
    if proto.ir_version < 4:
        return proto
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return proto


def faults(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """One fault each, in an early, a middle and a late layer."""
    rng = np.random.default_rng(0)
    arrays = {t.name: i for i, t in enumerate(proto.graph.initializer)}
    # The weight of a quantized layer is the integer tensor that a DequantizeLinear reads.
    sources = {
        node.output[0]: list(node.input)
        for node in proto.graph.node
        if node.op_type in ("DequantizeLinear", "Identity")
    }
    layers = []
    for node in proto.graph.node:
        if node.op_type in WEIGHTED and len(node.input) > 1:
            names = [sources.get(name, [name]) for name in node.input]
            if names[1][0] in arrays:
                layers.append((node, names))
    for place in sorted({0, len(layers) // 2, len(layers) - 1}) if layers else []:
        node, names = layers[place]
        label = f"{place}/{len(layers)}"
        weight = _array(proto, arrays[names[1][0]])
        axis = _channel_axis(node, weight)
        channel = int(rng.integers(weight.shape[axis]))
        for name, changed in _weight_faults(weight, axis, channel):
            yield f"{label} {name}", _with_initializer(proto, arrays[names[1][0]], changed)
        for kind, parts in zip(("scale", "bias"), (names[1][1:2], names[2:3]), strict=True):
            part = parts[0] if kind == "scale" and parts else parts[0][0] if parts else ""
            if part in arrays:
                changed = _array(proto, arrays[part]).copy()
                at = channel % changed.size
                if changed.reshape(-1)[at] != 0:
                    factor = 1.01 if kind == "scale" else 0
                    changed.reshape(-1)[at] = changed.reshape(-1)[at] * factor
                    yield (
                        f"{label} {kind} x{factor}",
                        _with_initializer(proto, arrays[part], changed),
                    )
    yield from _epsilon_faults(proto)


def _array(proto: onnx.ModelProto, index: int) -> np.ndarray:
    return onnx.numpy_helper.to_array(proto.graph.initializer[index])


def _channel_axis(node: onnx.NodeProto, weight: np.ndarray) -> int:
    if node.op_type == "MatMul":
        return weight.ndim - 1
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    if node.op_type == "ConvTranspose" or (node.op_type == "Gemm" and not transposed):
        return 1
    return 0


def _weight_faults(weight: np.ndarray, axis: int, channel: int) -> Iterator[tuple[str, np.ndarray]]:
    at = (slice(None),) * axis + (channel,)
    other = (slice(None),) * axis + ((channel + 1) % weight.shape[axis],)
    if weight.shape[axis] < 2:
        return
    for factor in (1.001, 1.01) if weight.dtype.kind == "f" else ():
        changed = weight.copy()
        changed[at] = (changed[at] * factor).astype(weight.dtype)
        yield f"x{factor}", changed
    changed = weight.copy()
    changed[at], changed[other] = weight[other], weight[at]
    yield "swapped", changed


def _epsilon_faults(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    norms = [i for i, n in enumerate(proto.graph.node) if n.op_type == "BatchNormalization"]
    for place in sorted({0, len(norms) // 2, len(norms) - 1}) if norms else []:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        for attribute in copy.graph.node[norms[place]].attribute:
            if attribute.name == "epsilon":
                attribute.f = max(attribute.f * 100, 1e-3)
                yield f"{place}/{len(norms)} epsilon", copy


def _with_initializer(proto: onnx.ModelProto, index: int, array: np.ndarray) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    name = copy.graph.initializer[index].name
    copy.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array, name))
    return copy


def measure(model: Path, peer: str) -> None:
    proto = without_defaults(load(model))
    steps: list[str] = []
    verifier = Verifier(proto, progress=steps.append)
    candidates = [("right", *c) for c in right_rewrites(model, peer)] if peer else []
    for kind, name, candidate in [*candidates, *(("fault", *c) for c in faults(proto))]:
        before = len(steps)
        try:
            verdict = verifier.check(candidate, "rounding")
        except OnnxoptError as error:
            print(f"{model.stem:30} {kind} {name:22} {error}")
            continue
        measured = sum("noise" in step for step in steps[before:])
        worst = max((output.excess for output in verdict.outputs), default=0.0)
        expected = (kind == "right") == verdict.passed
        relative = verdict.worst_relative
        print(
            f"{model.stem:30} {kind} {name:22} {'passed' if verdict.passed else 'failed'} "
            f"{worst:10.3g} relative {relative:8.2g} noise {measured} "
            f"{'' if expected else '<-- ' + (verdict.reason or 'MISSED')[:90]}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--no-quick", action="store_true", help="measure the noise always")
    parser.add_argument("--peer", default="", help="interpreter with other optimizers")
    options = parser.parse_args()
    if options.no_quick:
        for name in ("QUICK_ABSOLUTE_ULPS", "QUICK_RELATIVE_ULPS", "QUICK_HALF_ULPS"):
            setattr(onnxopt.verification.reference, name, 1e-9)
    for model in options.models:
        try:
            measure(model, options.peer)
        except OnnxoptError as error:
            print(f"{model.stem}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
