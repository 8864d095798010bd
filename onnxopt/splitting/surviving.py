"""Run a quantized model in a process of its own first: ONNX Runtime crashes on some."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxopt.model import save
from onnxopt.profiling.memory import peak_memory
from onnxopt.profiling.sessions import CPU

QUANTIZED = ("Quantize", "QLinear", "Integer")
"""Parts of names of operators that ONNX Runtime fuses into kernels which do not check sizes."""


def check_survives(
    proto: onnx.ModelProto, feeds: Iterable[Mapping[str, Any]], *, threads: int
) -> None:
    """Run a quantized model with ONNX Runtime's optimizations elsewhere, once for each size.

    Fused kernels of quantized products read beyond the end of a scale whose size is not the one
    that they expect, though the model is valid: that would end this process. Other models are not
    known to do that, and are not run.

    Args:
        feeds: those that hold anything but arrays are left out.

    Raises:
        MeasureError: ONNX Runtime crashes.
    """
    ops = {node.op_type for node in proto.graph.node}
    if not any(part in op for op in ops for part in QUANTIZED):
        return
    sizes = {
        tuple(value.shape for value in arrays.values()): arrays
        for arrays in feeds
        if all(isinstance(value, np.ndarray) for value in arrays.values())
    }
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder:
        model, file = Path(folder) / "model.onnx", Path(folder) / "feeds.npz"
        save(proto, model)
        for arrays in sizes.values():
            np.savez(file, allow_pickle=False, **arrays)
            peak_memory(model, file, threads=threads, provider=CPU)
