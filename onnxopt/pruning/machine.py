"""What the kernels of this machine like: widths that are multiples of their channel block."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def channel_block(cpuinfo: Path = CPUINFO) -> int:
    """Channels that ONNX Runtime's convolutions take at once: 16 with AVX-512, otherwise 8."""
    try:
        text = cpuinfo.read_text()
    except OSError:  # not Linux
        return 8
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    return 16 if "avx512f" in next(lines, "").split() else 8
