"""Shapes of tensors that nothing tells but a run of the model."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.runtime import Session
from onnxopt.verification.feeds import first_run

PREFIX = "onnxopt shape "
"""Of the outputs that tell shapes; no exporter puts spaces into names."""


def run_shapes(proto: onnx.ModelProto, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors in one run on drawn inputs, by name; none where the model does not run.

    The model gets a Shape for each of them, so that none has to be kept.

    Args:
        proto: the model with numbers for all dimensions of its inputs that are to be fixed.
        names: of tensors of the main graph.
    """
    if not names:
        return {}
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    if not any(entry.domain in ("", "ai.onnx") for entry in shown.opset_import):
        shown.opset_import.add(domain="", version=13)
    for name in names:
        shown.graph.node.add(op_type="Shape", input=[name], output=[PREFIX + name])
        shown.graph.output.append(onnx.ValueInfoProto(name=PREFIX + name))
    try:
        found = first_run(shown, Session(shown)) or {}
    except OnnxoptError:
        return {}
    return {n: tuple(map(int, found[PREFIX + n])) for n in names if PREFIX + n in found}
