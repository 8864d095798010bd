"""What ONNX Runtime's profiler wrote about each kernel: read, without what is counted twice.

The file is a list of events (https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html).
Each run of a kernel is one with `cat` "Node" and a name that ends with `_kernel_time`; `ts` and
`dur` are whole microseconds. `dur` includes what making the record itself takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxopt.profiling.sessions import MeasureError
from onnxopt.profiling.tensors import texts_of

_SUFFIX = "_kernel_time"
_HOLDERS = frozenset(("If", "Loop", "Scan"))
"""Their time includes that of the kernels in their bodies, which the profiler lists as well."""


@dataclass(frozen=True)
class Kernel:
    """One kernel: what it is called, what it does and on what."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """A kernel with its times in microseconds, one for each run that was watched."""

    kernel: Kernel
    times_us: tuple[float, ...]


def read_trace(file: Path) -> list[Traced]:
    """All kernels in the order of their first run; the file is removed.

    Raises:
        MeasureError: the profiler wrote something else.
    """
    try:
        events = json.loads(file.read_bytes())
        found = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_SUFFIX)]
        return traced(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeasureError(
            f"the profiler of ONNX Runtime wrote nothing to be understood: {error}"
        ) from None
    finally:
        file.unlink(missing_ok=True)


def traced(events: Iterable[dict[str, Any]]) -> list[Traced]:
    """Events of kernels, one kernel after the other."""
    times: dict[Kernel, list[float]] = {}
    for event in _outermost(list(events)):
        times.setdefault(_kernel(event), []).append(float(event["dur"]))
    return [Traced(kernel, tuple(found)) for kernel, found in times.items()]


def _outermost(events: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Those that no If, Loop or Scan contains."""
    spans = [(e["ts"], e["ts"] + e["dur"], e) for e in events if e["args"]["op_name"] in _HOLDERS]
    for event in events:
        start, end = event["ts"], event["ts"] + event["dur"]
        if not any(s <= start and end <= e and held is not event for s, e, held in spans):
            yield event


def _kernel(event: dict[str, Any]) -> Kernel:
    arguments = event["args"]
    name = event["name"].removesuffix(_SUFFIX)
    # The record names no domain, and the blocked Conv is called like the standard one.
    blocked = name.endswith("_nchwc") or "_nchwc_" in name
    return Kernel(
        name,
        arguments["op_name"] + (".nchwc" if blocked else ""),
        texts_of(arguments["input_type_shape"]),
        texts_of(arguments["output_type_shape"]),
    )
