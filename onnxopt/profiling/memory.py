"""Peak memory of a model: how much a process of its own grows by loading and running it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnxopt
from onnxopt.profiling.document import Memory
from onnxopt.profiling.sessions import MeasureError

PATIENCE_S = 120.0
RUNS = 3
STATUS = Path("/proc/self/status")

CRASHES = tuple(
    -getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT")
    if hasattr(signal, name)
)
"""Exit codes of a process that died of a mistake in native code, and was not killed by others."""

HOW = (
    "the largest resident set of a process that loads the model and runs it three times "
    "(VmHWM of /proc/self/status), less its resident set with numpy and onnxruntime imported"
)


def peak_memory(
    model: Path, feeds: Path, *, threads: int, provider: str, patience_s: float = PATIENCE_S
) -> Memory:
    """Load and run a model in a child process and see how much larger that gets.

    Args:
        feeds: a .npz file with its inputs, which count as memory of the run too.

    Raises:
        MeasureError: ONNX Runtime crashes, and would have taken this process along.
    """
    if not STATUS.is_file():
        return Memory(None, f"not measured: this system has no {STATUS}")
    try:
        run = run_elsewhere(model, feeds, threads=threads, provider=provider, patience_s=patience_s)
        run.check_returncode()
        return Memory(int(json.loads(run.stdout)["bytes"]), HOW)
    except subprocess.TimeoutExpired:
        return Memory(None, f"not measured: the process was not done after {patience_s:.0f} s")
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError, TypeError) as error:
        return Memory(None, f"not measured: the process failed ({type(error).__name__})")


def run_elsewhere(
    model: Path,
    feeds: Path,
    *,
    threads: int,
    provider: str,
    runs: int = RUNS,
    patience_s: float = PATIENCE_S,
) -> subprocess.CompletedProcess[str]:
    """Load and run a model in a child process.

    Args:
        feeds: a .npz file with its inputs.

    Raises:
        MeasureError: ONNX Runtime crashes.
        OSError, subprocess.TimeoutExpired: there is no such process, or it is not done in time.
    """
    root = str(Path(onnxopt.__file__).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    asked = map(str, (model, feeds, threads, provider, runs))
    run = subprocess.run(
        [sys.executable, "-m", __name__, *asked],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=patience_s,
    )
    if run.returncode in CRASHES:
        raise MeasureError(
            "ONNX Runtime crashes when it runs this model with its optimizations on inputs of "
            f"these sizes ({signal.Signals(-run.returncode).name}, in a process of its own)",
            "it would do so in use as well: give other sizes, or other samples",
        )
    return run


def _resident_bytes(entry: str) -> int:
    """VmRSS, the resident set now; VmHWM, its largest so far."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(entry + ":"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"there is no {entry}")


def _child(model: str, feeds: str, threads: str, provider: str, runs: str) -> None:
    from onnxopt.profiling.feeds import read_feeds
    from onnxopt.profiling.sessions import Measured, runtime_version

    runtime_version()  # so that the runtime itself does not count
    before = _resident_bytes("VmRSS") if STATUS.is_file() else None
    session = Measured(Path(model), threads=int(threads), provider=provider)
    arrays = read_feeds(Path(feeds), session.inputs)
    for _ in range(int(runs)):
        session.run(arrays)
    grown = None if before is None else max(0, _resident_bytes("VmHWM") - before)
    sys.stdout.write(json.dumps({"bytes": grown}))


if __name__ == "__main__":
    _child(*sys.argv[1:])
