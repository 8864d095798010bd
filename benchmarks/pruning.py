"""How well pruned CIFAR-10 models do, what they cost and what that took: ways side by side.

    python benchmarks/pruning.py ../shared/models/cifar10/resnet56.onnx --flops 0.5 0.4 0.3 \\
        [--rows NAME ...] [--seeds 0 1 2] [--samples 256] [--flip] [--output FILE.md]
    python benchmarks/pruning.py ../shared/models/cifar10/resnet56.onnx --latency 0.7 0.5 0.43 \\
        [--profile profile.json] [--seeds 0 1 2]
    python benchmarks/pruning.py ../shared/models/cifar10/resnet56.onnx --measure

Each model is pruned in a process of its own, so that its peak of memory is its own. Calibration
samples are drawn from ../data/cifar10_calibration.npz by the seed; accuracy is on all images of
../data/cifar10_test.npz. Time is wall time, and as a multiple of the pure forward passes of the
original over the same samples. onnxsim runs under ONNXOPT_PEERS_PYTHON where it is not installed
here; it has no budget, so its sparsity is bisected to the multiply-accumulates. `--measure` prunes
by the default row alone, at half the FLOPs: time and memory. With `--latency` budgets are shares of
the time of one run, measured beside the original; with `--profile` layers are not timed anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PEERS_PYTHON = os.environ.get("ONNXOPT_PEERS_PYTHON", sys.executable)
BATCH = 32
TIMEOUT_S = 3600

ROWS: dict[str, dict[str, Any]] = {
    "obs + ridge (default)": {},
    "obs + ridge, --reads all": {"reads": "all"},
    "obs + ridge, --blocks drop": {"blocks": "drop"},
    "obs + ridge, multiples of 8": {"multiple_of": 8},
    "l1 + ridge": {"criterion": "l1"},
    "l1, nothing made up for": {
        "criterion": "l1",
        "compensation": "none",
        "strategy": "uniform",
    },
    "admm + ridge": {"criterion": "admm"},
    "random + ridge": {"criterion": "random"},
    "obs + ridge, --strategy complexity": {"strategy": "complexity"},
    "obs + ridge, --strategy uniform": {"strategy": "uniform"},
    "onnxsim l2": {"peer": "l2"},
    "onnxsim l2, global": {"peer": "global"},
    "onnxsim wanda": {"peer": "wanda"},
}
LATENCY_ROWS: dict[str, dict[str, Any]] = {
    "blocks and channels together (default)": {},
    "channels alone": {"blocks": "keep"},
    "--strategy slr": {"strategy": "slr"},
    "--strategy uniform": {"strategy": "uniform"},
}
"""What a budget of time is compared by."""

UNSEEDED = ("onnxsim l2", "onnxsim l2, global")
"""Rows that look at no samples and draw nothing: one seed is all."""

PEER = """
import sys, json, numpy as np, onnx, onnxsim
source, target, samples, kind, sparsity = sys.argv[1:]
model, _ = onnxsim.simplify(onnx.load(source))  # it prunes where normalizations are folded
options = dict(sparsity=float(sparsity), global_sparsity=kind == "global")
if kind == "wanda":
    x = np.load(samples)
    data = [{"input": x[i : i + 32]} for i in range(0, len(x), 32)]
    made = onnxsim.apply_structured_wanda_pruning(model, data, **options)
else:
    made = onnxsim.apply_structured_pruning(model, **options)
onnx.save(made, target)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--flops", type=float, nargs="+", default=[0.5], help="what remains")
    parser.add_argument("--latency", type=float, nargs="+", help="what remains of the time")
    parser.add_argument("--profile", type=Path, help="of the layers' times, for --latency")
    parser.add_argument("--rows", nargs="+", default=[""], help="rows that hold one of these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--flip", action="store_true", help="give mirror images too")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("ROW", "SHARE", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        row, share, seed = options.one
        print(json.dumps(_one(options, row, float(share), int(seed))))
        return 0
    if options.measure:
        options.rows, options.flops = ["(default)"], [0.5]
    lines = list(_table(options))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("\n".join(lines) + "\n")
    return 0


def _table(options: argparse.Namespace) -> Any:
    data = _test(options.model)
    base = _outputs(options.model, data["x"]).argmax(1)
    seeds = " ".join(map(str, options.seeds))
    mirrored = ", each mirrored too" if options.flip else ""
    head = (
        f"# {options.model.stem}: {100 * np.mean(base == data['y']):.2f} % on {len(base)} images",
        "",
        f"{options.samples} calibration samples{mirrored}, seeds {seeds}; "
        "accuracy and agreement are means over the seeds, with the range.",
        "",
        f"| way | {'time' if options.latency else 'FLOPs'} asked | FLOPs left | time left "
        "| accuracy % | agreement % | pruned in s | x forward | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    for line in head:
        print(line, flush=True)
        yield line
    for row in LATENCY_ROWS if options.latency else ROWS:
        if not any(part in row for part in options.rows):
            continue
        for share in options.latency or options.flops:
            line = _line(options, row, share)
            print(line, flush=True)
            yield line


def _line(options: argparse.Namespace, row: str, share: float) -> str:
    seeds = options.seeds[:1] if row in UNSEEDED else options.seeds
    found = [_in_own_process(options, row, share, seed) for seed in seeds]
    if failed := [f["error"] for f in found if "error" in f]:
        return f"| {row} | {share:g} | {failed[0]} | | | | | | |"
    mean = {key: statistics.fmean(f[key] for f in found) for key in found[0]}
    accuracies = [f["accuracy"] for f in found]
    spread = f" ({min(accuracies):.2f} - {max(accuracies):.2f})" if len(found) > 1 else ""
    peak = max(f["peak_mb"] for f in found)
    return (
        f"| {row} | {share:g} | {mean['left']:.4f} | {_range([f['time'] for f in found])} "
        f"| {mean['accuracy']:.2f}{spread} "
        f"| {mean['agreement']:.2f} | {mean['time_s']:.0f} | {mean['forward']:.0f} | {peak:.0f} |"
    )


def _range(shares: list[float]) -> str:
    """Of the original's time; empty where that was not measured."""
    if not all(shares):
        return ""
    mean = f"{statistics.fmean(shares):.3f}"
    return mean if len(shares) == 1 else f"{mean} ({min(shares):.3f} - {max(shares):.3f})"


def _in_own_process(
    options: argparse.Namespace, row: str, share: float, seed: int
) -> dict[str, Any]:
    command = [sys.executable, __file__, str(options.model), "--samples", str(options.samples)]
    command += ["--flip"] if options.flip else []
    command += ["--latency", str(share)] if options.latency else []
    command += ["--profile", str(options.profile)] if options.profile else []
    ran = subprocess.run(
        [*command, "--one", row, str(share), str(seed)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if ran.returncode:
        return {"error": (ran.stderr.strip().splitlines() or ["failed"])[-1][:100]}
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def _one(asked: argparse.Namespace, row: str, share: float, seed: int) -> dict[str, float]:
    """Prune once and judge the result."""
    from onnxopt.cost import cost_of

    file = asked.model
    source = onnx.load(file)
    given = _calibration(file, asked.samples, seed)
    forward_s = _forward(file, given)
    start = time.perf_counter()
    way = (LATENCY_ROWS if asked.latency else ROWS)[row]
    kind, left = way.get("peer"), 0.0
    if kind:
        made = _by_onnxsim(file, given, kind, share)
    else:
        made, left = _by_onnxopt(source, given, way, share, seed, asked)
    time_s = time.perf_counter() - start
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = children if kind else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    test = _test(file)
    base = _outputs(file, test["x"]).argmax(1)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "pruned.onnx"
        onnx.save(made, target)
        classes = _outputs(target, test["x"]).argmax(1)
    return {
        "left": cost_of(made).macs / cost_of(source).macs,
        "time": left,
        "accuracy": 100 * float(np.mean(classes == test["y"])),
        "agreement": 100 * float(np.mean(classes == base)),
        "time_s": time_s,
        "forward": time_s / forward_s,
        "peak_mb": peak / 1024,
    }


def _by_onnxopt(
    source: onnx.ModelProto,
    given: Any,
    options: dict[str, Any],
    share: float,
    seed: int,
    asked: argparse.Namespace,
) -> tuple[onnx.ModelProto, float]:
    """The pruned model, and its share of the time if that was the budget."""
    from onnxopt.calibration import Calibration, flipped
    from onnxopt.profiling.document import read_profile
    from onnxopt.pruning.prune import Budget, PruneOptions, prune
    from onnxopt.signature import model_inputs

    ports = model_inputs(source)
    calibration = Calibration.from_arrays({ports[0].name: given}, ports)
    if asked.flip:
        calibration = flipped(calibration)
    profile = None if asked.profile is None else read_profile(asked.profile)
    pruned = prune(
        source,
        Budget("latency" if asked.latency else "flops", share),
        calibration,
        PruneOptions(**options, seed=seed),
        profile=profile,
    )
    return pruned.model, 0.0 if pruned.latency is None else pruned.latency.reached


def _by_onnxsim(file: Path, given: Any, kind: str, share: float) -> onnx.ModelProto:
    """The sparsity at which what is left is next to the budget."""
    from onnxopt.cost import cost_of

    whole = cost_of(onnx.load(file)).macs
    best: tuple[float, onnx.ModelProto] | None = None
    with tempfile.TemporaryDirectory() as folder:
        samples, target = Path(folder) / "samples.npy", Path(folder) / "pruned.onnx"
        np.save(samples, given)
        low, high = 0.0, 1.0
        for _ in range(8):
            middle = (low + high) / 2
            subprocess.run(
                [PEERS_PYTHON, "-c", PEER, str(file), str(target), str(samples), kind, str(middle)],
                check=True,
                capture_output=True,
                timeout=TIMEOUT_S,
            )
            made = onnx.load(target)
            left = cost_of(made).macs / whole
            if best is None or abs(left - share) < best[0]:
                best = abs(left - share), made
            low, high = (middle, high) if left > share else (low, middle)
    assert best is not None
    return best[1]


def _data(file: Path, name: str) -> dict[str, Any]:
    with np.load(file.resolve().parents[2] / "data" / name) as found:
        return {key: np.asarray(found[key]) for key in found.files}


def _normalized(images: Any) -> Any:
    scaled = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def _test(file: Path) -> dict[str, Any]:
    found = _data(file, "cifar10_test.npz")
    return {"x": _normalized(found["x"]), "y": found["y"]}


def _calibration(file: Path, samples: int, seed: int) -> Any:
    images = _data(file, "cifar10_calibration.npz")["x"]
    chosen = np.random.default_rng(seed).permutation(len(images))[:samples]
    return _normalized(images[np.sort(chosen)])


def _outputs(file: Path, x: Any) -> Any:
    from onnxopt.runtime import Session

    session = Session(onnx.load(file), optimized=True)
    name = session.inputs[0].name
    parts = [session.run({name: x[i : i + BATCH]}) for i in range(0, len(x), BATCH)]
    return np.concatenate([next(iter(part.values())) for part in parts])


def _forward(file: Path, x: Any) -> float:
    """Seconds of one pass over these samples; the best of three, without loading the model."""
    from onnxopt.runtime import Session

    session = Session(onnx.load(file), optimized=True)
    name, found = session.inputs[0].name, []
    for _ in range(3):
        start = time.perf_counter()
        for i in range(0, len(x), BATCH):
            session.run({name: x[i : i + BATCH]})
        found.append(time.perf_counter() - start)
    return min(found)


if __name__ == "__main__":
    sys.exit(main())
