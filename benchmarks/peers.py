"""What onnxopt and its peers make of the same files: nodes, bytes, correctness, and running time.

    python benchmarks/peers.py ../shared/models/real [--only NAME] [--time]

Each tool runs in a process of its own, under ONNXOPT_PEERS_PYTHON where it is not installed here
(onnxslim, onnxsim, onnxscript). Results are compared with the original in ONNX Runtime with its
optimizations off. `--time` measures each result beside the original, interleaved, one thread,
ONNX Runtime's default optimizations on, and gives the median of the ratios (below 1: faster).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parent))

from corpus import _count, _error, _feeds, _session

TIMEOUT_S = 300
PEERS_PYTHON = os.environ.get("ONNXOPT_PEERS_PYTHON", sys.executable)
TOOLS = {
    "onnxopt": (sys.executable, "-m", "onnxopt", "optimize", "{0}", "{1}", "--quiet"),
    "onnxslim": (PEERS_PYTHON, "-m", "onnxslim", "{0}", "{1}"),
    "onnxsim": (PEERS_PYTHON, "-m", "onnxsim", "{0}", "{1}"),
    "onnxscript": (
        PEERS_PYTHON,
        "-c",
        "import sys, onnx, onnxscript.optimizer as o; "
        "onnx.save(o.optimize(onnx.load(sys.argv[1])), sys.argv[2])",
        "{0}",
        "{1}",
    ),
}
WRONG_ABOVE = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    feeds = _index(options.folder.parent / "INDEX.tsv")
    totals: dict[str, dict[str, float]] = {tool: {} for tool in TOOLS}
    for file in sorted(options.folder.glob("*.onnx")):
        if options.only not in file.name:
            continue
        print(f"{file.name}: nodes {_count(onnx.load(file).graph)}, bytes {file.stat().st_size}")
        for tool, command in TOOLS.items():
            _one(file, tool, command, feeds.get(file.name, ""), totals[tool], options.time)
    print(f"{'tool':12}{'right':>7}{'wrong':>7}{'failed':>7}{'larger':>7}{'nodes':>8}{'MB':>8}")
    for tool, total in totals.items():
        numbers = [int(total.get(k, 0)) for k in ("right", "wrong", "failed", "larger", "nodes")]
        row = "".join(f"{n:>{w}}" for n, w in zip(numbers, (7, 7, 7, 7, 8), strict=True))
        print(f"{tool:12}{row}{total.get('bytes', 0) / 1e6:>8.1f}")
    return 0


def _index(file: Path) -> dict[str, str]:
    lines = [line.rstrip("\n").split("\t") for line in file.read_text().splitlines()]
    name, feed = lines[0].index("name"), lines[0].index("test_feed")
    return {line[name]: line[feed] for line in lines[1:]}


def _one(
    file: Path,
    tool: str,
    command: tuple[str, ...],
    feed: str,
    total: dict[str, float],
    measure: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.onnx"
        try:
            subprocess.run(
                [part.format(file, target) for part in command],
                capture_output=True,
                timeout=TIMEOUT_S,
                check=True,
            )
            made = onnx.load(target)
            error = _worst(file, target, feed)
        except Exception as problem:
            total["failed"] = total.get("failed", 0) + 1
            print(f"    {tool:12} failed: {type(problem).__name__}")
            return
        state = "right" if error <= WRONG_ABOVE else "wrong"
        nodes, size = _count(made.graph), made.ByteSize()
        total[state] = total.get(state, 0) + 1
        total["larger"] = total.get("larger", 0) + (size > file.stat().st_size * 1.01 + 65536)
        total["nodes"] = total.get("nodes", 0) + nodes
        total["bytes"] = total.get("bytes", 0) + size
        speed = f", time x{_time_ratio(file, target, feed):.2f}" if measure else ""
        print(f"    {tool:12} {state}, nodes {nodes}, bytes {size}, error {error:.1g}{speed}")


def _worst(file: Path, target: Path, text: str) -> float:
    first, second = _session(file), _session(target)
    worst = 0.0
    for seed, kind in enumerate(("normal", "unit")):
        feeds = _feeds(first, text, seed, kind)
        if feeds is None:
            return worst
        expected, found = first.run(None, feeds), second.run(None, feeds)
        worst = max(
            worst, max((_error(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)
        )
    return worst


def _time_ratio(file: Path, target: Path, text: str, repeats: int = 15) -> float:
    """Median over interleaved pairs of runs of time(target) / time(file)."""
    sessions = [_default_session(file), _default_session(target)]
    feeds = _feeds(sessions[0], text, 0, "unit")
    if feeds is None:
        return float("nan")
    for session in sessions:
        session.run(None, feeds)
    inner = max(1, int(0.01 / max(_seconds(sessions[0], feeds, 1), 1e-6)))
    ratios = []
    for _ in range(repeats):
        before, after = (_seconds(session, feeds, inner) for session in sessions)
        ratios.append(after / before)
    return statistics.median(ratios)


def _seconds(
    session: ort.InferenceSession, feeds: dict[str, np.ndarray[Any, Any]], inner: int
) -> float:
    started = time.perf_counter()
    for _ in range(inner):
        session.run(None, feeds)
    return time.perf_counter() - started


def _default_session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    sys.exit(main())
