"""Run a quantized model in a process of its own first: ONNX Runtime crashes on some."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxopt.graph_protos import operators
from onnxopt.model import save
from onnxopt.profiling.feeds import write_feeds
from onnxopt.profiling.memory import run_elsewhere
from onnxopt.profiling.sessions import CPU, MeasureError

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
        feeds: those that hold anything but arrays of numbers are left out.

    Raises:
        MeasureError: ONNX Runtime crashes, or it cannot be found out. What is a mere error there
            will be one here too, where the model is run next.
    """
    if not any(part in op for op in operators(proto) for part in QUANTIZED):
        return
    sizes = {
        tuple(value.shape for value in arrays.values()): arrays
        for arrays in feeds
        if all(isinstance(v, np.ndarray) and not v.dtype.hasobject for v in arrays.values())
    }
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder:
        model, file = Path(folder) / "model.onnx", Path(folder) / "feeds.npz"
        save(proto, model)
        for arrays in sizes.values():
            write_feeds(file, arrays)
            try:
                ended = run_elsewhere(model, file, threads=threads, provider=CPU, runs=1)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise MeasureError(
                    "whether ONNX Runtime crashes on this quantized model cannot be found out: "
                    f"a process of its own is not done ({type(error).__name__})",
                    "try again when the machine is less busy",
                ) from error
            if ended.returncode < 0:
                raise MeasureError(
                    "whether ONNX Runtime crashes on this quantized model cannot be found out: a "
                    f"process of its own was killed by signal {-ended.returncode}",
                    "see that there is memory for the model twice, and try again",
                )
