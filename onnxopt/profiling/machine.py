"""What machine this is: its processor, and how many channels its kernels take at once."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

from onnxopt.profiling.document import Machine
from onnxopt.profiling.sessions import runtime_version

CPUINFO = Path("/proc/cpuinfo")


def channel_block(cpuinfo: Path = CPUINFO) -> int:
    """Channels that ONNX Runtime's convolutions take at once: 16 with AVX-512, otherwise 8."""
    return 16 if "avx512f" in _entry("flags", cpuinfo).split() else 8


def machine() -> Machine:
    """This machine, for the record."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_entry("model name", CPUINFO) or platform.processor() or "unknown",
        cores=os.cpu_count() or 1,
        channel_block=channel_block(),
        onnxruntime=runtime_version(),
        numpy=np.__version__,
        python=platform.python_version(),
    )


def _entry(name: str, cpuinfo: Path) -> str:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        text = cpuinfo.read_text()
    except OSError:  # not Linux
        return ""
    lines = (line for line in text.splitlines() if line.startswith(name))
    return next(lines, "").partition(":")[2].strip()
