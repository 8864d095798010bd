"""Optimize every model of a folder through the command line and judge the results independently.

    python benchmarks/corpus.py ../shared/models [--only NAME] [--workers 2]

For each model: the exit code, one line of error and no output file where it is not 0; otherwise
the signature, the size, the outputs on the feed that INDEX.tsv names (both models in ONNX Runtime
with its optimizations off), and a second run over the result, which must reproduce its bytes.
The judge uses onnx and onnxruntime alone, nothing of onnxopt.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

Array = np.ndarray[Any, np.dtype[Any]]
TIMEOUT_S = 1200
EXPECTED_FAILURES = (1, 3, 4)
SMALLEST_SCALE = 1e-4
"""Outputs smaller than this throughout are compared absolutely: the tail of a sigmoid, all of whose
values may be 1e-8, is rounded to 3e-8."""


@dataclass
class Outcome:
    name: str
    group: str
    code: int = 0
    problems: list[str] = field(default_factory=list)
    message: str = ""
    worst: float = 0.0
    nodes: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    transposes: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    unverified: list[str] = field(default_factory=list)
    judged: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with (options.folder / "INDEX.tsv").open() as stream:
        rows = [r for r in csv.DictReader(stream, delimiter="\t") if options.only in r["name"]]
    outcomes = []
    with ThreadPoolExecutor(options.workers) as pool:
        for outcome in pool.map(lambda row: _judge(options.folder, row), rows):
            outcomes.append(outcome)
            _show(outcome)
    _summarize(outcomes)
    if options.json:
        options.json.write_text(json.dumps([vars(o) for o in outcomes], indent=1))
    return 1 if any(o.problems for o in outcomes) else 0


def _judge(folder: Path, row: dict[str, str]) -> Outcome:
    file = folder / row["set"] / row["name"]
    outcome = Outcome(row["name"], row["set"])
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "out.onnx"
        before = file.read_bytes()
        started = time.perf_counter()
        report = _optimize(file, target, outcome)
        outcome.seconds = time.perf_counter() - started
        if file.read_bytes() != before:
            outcome.problems.append("the input was changed")
        if outcome.code != 0:
            if any(Path(temporary).iterdir()):
                outcome.problems.append("a file was left behind")
            if row["set"] != "hostile" and _runs(file, row["test_feed"]):
                outcome.problems.append(f"refused: {outcome.message}")
            return outcome
        verdict = report.get("verification") or {}
        outcome.unverified = list(verdict.get("unverified", []))
        _compare(file, target, row, outcome)
        again = Path(temporary) / "again.onnx"
        _optimize(target, again, outcome)
        if not again.exists() or again.read_bytes() != target.read_bytes():
            outcome.problems.append("a second run changes the result")
    return outcome


def _runs(file: Path, feed_text: str) -> bool:
    """ONNX Runtime runs the original on what the index names."""
    try:
        session = _session(file)
        session.run(None, _feeds(session, feed_text, 0, "normal"))
    except Exception:
        return False
    return True


def _optimize(file: Path, target: Path, outcome: Outcome) -> dict[str, Any]:
    command = [sys.executable, "-m", "onnxopt", "optimize", str(file), str(target), "--json"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        outcome.code = 1
        outcome.problems.append(f"no answer in {TIMEOUT_S} s")
        return {}
    outcome.code = run.returncode
    if run.returncode == 0:
        return dict(json.loads(run.stdout))
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    outcome.message = lines[0] if lines else ""
    if "Traceback" in run.stderr or not lines or run.returncode not in EXPECTED_FAILURES:
        outcome.problems.append(f"crash, exit {run.returncode}: {run.stderr[-300:]}")
    return {}


def _compare(file: Path, target: Path, row: dict[str, str], outcome: Outcome) -> None:
    before, after = onnx.load(file), onnx.load(target)
    outcome.nodes = (_count(before.graph), _count(after.graph))
    outcome.transposes = (_count(before.graph, "Transpose"), _count(after.graph, "Transpose"))
    outcome.size = (before.ByteSize(), after.ByteSize())
    allowed = before.ByteSize() + max(before.ByteSize() // 100, 64 * 1024)
    if after.ByteSize() > allowed:
        outcome.problems.append(f"grew from {before.ByteSize()} to {after.ByteSize()} bytes")
    for part, old, new in _signatures(before, after):
        if old != new:
            outcome.problems.append(f"{part} changed")
    outcome.worst = _worst_error(file, target, row["test_feed"], outcome)


def _count(graph: onnx.GraphProto, op: str = "") -> int:
    total = 0
    for node in graph.node:
        total += not op or node.op_type == op
        for attribute in node.attribute:
            if attribute.HasField("g"):
                total += _count(attribute.g, op)
            total += sum(_count(g, op) for g in attribute.graphs)
    return total


def _domains(graph: onnx.GraphProto) -> set[str]:
    found = {node.domain for node in graph.node}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _domains(attribute.g)
    return found


def _signatures(a: onnx.ModelProto, b: onnx.ModelProto) -> list[tuple[str, Any, Any]]:
    def inputs(model: onnx.ModelProto) -> list[bytes]:
        given = {t.name for t in model.graph.initializer}
        return [i.SerializeToString() for i in model.graph.input if i.name not in given]

    def overridable(model: onnx.ModelProto) -> set[str]:
        given = {t.name for t in model.graph.initializer}
        if model.ir_version < 4:
            return set()
        return {i.name for i in model.graph.input if i.name in given}

    def outputs(model: onnx.ModelProto) -> list[bytes]:
        return [o.SerializeToString() for o in model.graph.output]

    return [
        ("the inputs", inputs(a), inputs(b)),
        ("the overridable initializers", overridable(a), overridable(b)),
        ("the outputs", outputs(a), outputs(b)),
        ("the opset", str(a.opset_import), str(b.opset_import)),
        ("the IR version", a.ir_version, b.ir_version),
        ("the metadata", str(a.metadata_props), str(b.metadata_props)),
        ("the functions", str(a.functions), str(b.functions)),
        ("the doc string", a.doc_string, b.doc_string),
        ("the domains (new ones)", set(), _domains(b.graph) - _domains(a.graph)),
    ]


def _worst_error(file: Path, target: Path, feed_text: str, outcome: Outcome) -> float:
    first, second = _session(file), _session(target)
    worst = 0.0
    if _is_random(onnx.load(file).graph):
        return worst
    for seed, kind in enumerate(("normal", "unit")):
        feeds = _feeds(first, feed_text, seed, kind)
        if feeds is None:
            return worst
        try:
            expected = first.run(None, feeds)
        except Exception:
            continue  # the original does not take these (an input is a shape, say)
        outcome.judged += 1
        try:
            found = second.run(None, feeds)
        except Exception as error:
            outcome.problems.append(f"the result does not run: {str(error)[:200]}")
            return worst
        for name, a, b in zip(first.get_outputs(), expected, found, strict=True):
            error = _error(a, b)
            worst = max(worst, error)
            if error > 1e-3:
                outcome.problems.append(f"output {name.name} is off by {error:.2g} ({kind})")
    return worst


def _is_random(graph: onnx.GraphProto) -> bool:
    named = ("RandomNormal", "RandomUniform", "Multinomial", "Bernoulli")
    return any(
        node.op_type.startswith(named) or (node.op_type == "Dropout" and len(node.input) > 2)
        for node in graph.node
    )


def _session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _feeds(
    session: ort.InferenceSession, text: str, seed: int, kind: str
) -> dict[str, Array] | None:
    """Inputs of the types and shapes that the index names, as `a:float32[1, 3]; b:int64[1]`."""
    rng = np.random.default_rng(seed)
    names = {i.name: i.type for i in session.get_inputs()}
    feeds: dict[str, Array] = {}
    for item in filter(None, (part.strip() for part in text.split("; "))):
        name, _, rest = item.rpartition(":")
        dtype, _, dims = rest.partition("[")
        shape = tuple(int(d) for d in dims.rstrip("]").split(",") if d.strip())
        if name == "sr":
            feeds[name] = np.array(16000, dtype)
        elif dtype.startswith("float"):
            drawn = rng.standard_normal(shape) if kind == "normal" else rng.random(shape)
            feeds[name] = drawn.astype(dtype)
        elif dtype == "bool":
            feeds[name] = rng.integers(0, 2, shape).astype(bool)
        elif dtype.startswith(("int", "uint")):
            feeds[name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            return None
    return feeds if set(feeds) == set(names) else None


def _error(a: Any, b: Any) -> float:
    """Largest error relative to the largest element; infinite where anything else differs."""
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return float("inf")
        return max((_error(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub":
        same = np.array_equal(a, b) if isinstance(a, np.ndarray) else _close(a, b)
        return 0.0 if same else float("inf")
    if a.dtype != b.dtype or a.shape != b.shape:
        return float("inf")
    if a.size == 0 or np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    scale = np.max(np.abs(x[np.isfinite(x)]), initial=SMALLEST_SCALE)
    if not np.array_equal(np.isfinite(x), np.isfinite(y)):
        return float("inf")
    return float(np.max(np.abs(x - y)[np.isfinite(x)], initial=0.0) / scale)


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(_close(a[k], b[k]) for k in a)
    if isinstance(a, float):
        return bool(np.isclose(a, b, rtol=1e-4))
    return bool(a == b)


def _show(outcome: Outcome) -> None:
    state = "ok" if outcome.code == 0 else f"exit {outcome.code}"
    print(
        f"{outcome.group}/{outcome.name}: {state}, nodes {outcome.nodes[0]} -> {outcome.nodes[1]}, "
        f"bytes {outcome.size[0]} -> {outcome.size[1]}, error {outcome.worst:.1g}, "
        f"{outcome.seconds:.1f} s {outcome.message}",
        flush=True,
    )
    for problem in outcome.problems:
        print(f"    PROBLEM {problem}")
    for reason in outcome.unverified:
        print(f"    unverified: {reason}")


def _summarize(outcomes: list[Outcome]) -> None:
    for group in dict.fromkeys(o.group for o in outcomes):
        some = [o for o in outcomes if o.group == group]
        done = [o for o in some if o.code == 0]
        print(
            f"{group}: {len(some)} models, {len(done)} written, {len(some) - len(done)} refused, "
            f"{sum(bool(o.problems) for o in some)} with problems, "
            f"{sum(o.judged == 0 for o in done)} not judged by outputs; "
            f"nodes {sum(o.nodes[0] for o in done)} -> {sum(o.nodes[1] for o in done)}, "
            f"bytes {sum(o.size[0] for o in done)} -> {sum(o.size[1] for o in done)}"
        )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest resident memory of one run: {peak:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
