"""Change the cut a thousand times under load: wrong and failed answers, time, memory.

    python benchmarks/switching.py MODEL[@INPUT=1,3,224,224]... [--switches 1000] [--output FILE.md]

Each model is split into up to six segments (`split export --adaptive 5`) and served by a process of
its own; a client changes the cut at every request, at random, while two others keep the server
busy. Every answer is compared with that of the model as one session here. Memory is that of a
process which ran the model as one session, against one which ran all cuts of the chain of segments;
both in the same way, resident, with and without what a process takes that only imports.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from edges import Process

from onnxopt.fixed_shapes import fix_shapes
from onnxopt.model import load, save
from onnxopt.runtime import Session
from onnxopt.signature import Array
from onnxopt.splitting.chain import Chain
from onnxopt.splitting.client import SplitClient
from onnxopt.splitting.folder import read_manifest
from onnxopt.splitting.manifest import Manifest

TOLERANCE = 1e-5
HEADER = (
    "| model | segments | requests | switches | wrong | failed | ms of a request: switching | "
    "staying | whole MB | chain MB | ratio | without imports |\n" + 12 * "|---" + "|"
)


class Random:
    """A cut at random, another one each time."""

    def __init__(self, cuts: int) -> None:
        self._draw, self._cuts, self._last = random.Random(0), cuts, 0
        self.allowed = range(cuts)

    def choose(self) -> int:
        self._last = self._draw.choice([c for c in range(self._cuts) if c != self._last])
        return self._last

    def observe(self, **what: float) -> None:
        pass

    def probed(self, size_bytes: float, wire_s: float) -> None:
        pass

    def failed(self) -> None:
        pass


def drawn(manifest: Manifest, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for port in manifest.inputs:
        shape = [dim if isinstance(dim, int) else 1 for dim in port.shape or ()]
        kind = np.dtype(port.dtype)
        feeds[port.name] = np.asarray(rng.random(shape) * (1 if kind.kind == "f" else 100), kind)
    return feeds


def differs(found: dict[str, Array], expected: dict[str, Array]) -> bool:
    """Beyond the tolerance, relative to the largest element of an output."""
    for name, want in expected.items():
        scale = max(float(np.abs(want.astype(np.float64)).max(initial=0)), 1e-4)
        off = np.abs(found[name].astype(np.float64) - want.astype(np.float64)).max(initial=0)
        if not off <= TOLERANCE * scale:
            return True
    return False


def measured(kind: str, model: Path, folder: Path) -> dict[str, float]:
    """In this process: what it holds after imports, and after runs."""
    manifest = read_manifest(folder)
    feeds = drawn(manifest, 0)
    before = resident_mb()
    if kind == "whole":
        session = Session(onnx.load(str(model)), optimized=True, threads=1, file=model)
        for _ in range(20):
            session.run(feeds)
    else:
        chain = Chain(folder, manifest)
        last = len(manifest.segments)
        chain.load(range(last))
        for cut in [*range(last + 1)] * 3:
            chain.run(cut, last, chain.decode(cut, chain.encode(cut, chain.run(0, cut, feeds))))
    return {"before": before, "after": resident_mb()}


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def in_a_process(kind: str, model: Path, folder: Path) -> dict[str, float]:
    """The middle one of three."""
    command = [sys.executable, __file__, "--measure", kind, str(model), str(folder)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in "123"
    ]
    return sorted(runs, key=lambda run: run["after"])[1]


def one(name: str, switches: int, place: Path) -> str:
    """The row of a model."""
    path, _, shape = name.partition("@")
    proto = load(Path(path))
    if shape:
        port, _, dims = shape.rpartition("=")
        proto = fix_shapes(proto, {port: tuple(map(int, dims.split(",")))})
    model, folder = place / Path(path).name, place / Path(path).stem
    save(proto, model)
    command = [sys.executable, "-m", "onnxopt", "split", "export", str(model), "--adaptive", "5"]
    subprocess.run([*command, "-o", str(folder), "--quiet"], check=True)
    manifest = read_manifest(folder)
    cuts = len(manifest.cuts)
    feeds = [drawn(manifest, seed) for seed in range(5)]
    session = Session(proto, optimized=True, threads=1)
    expected = [session.run(feed) for feed in feeds]
    edge, over = Process(folder), threading.Event()

    def busy() -> None:
        with SplitClient(folder, edge.url, cut=0) as client:
            while not over.is_set():
                client.run(feeds[0])
                time.sleep(0.01)

    load_threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in load_threads:
        thread.start()
    wrong = failed = 0
    times, staying = [], []
    with SplitClient(folder, edge.url, chooser=Random(cuts)) as client:
        for number in range(switches):
            answer = client.request(feeds[number % 5])
            wrong += differs(dict(answer.outputs), expected[number % 5])
            failed += bool(answer.timings.failure)
            times.append((answer.timings.cut, 1000 * answer.timings.total_s))
    for cut in range(cuts):
        with SplitClient(folder, edge.url, cut=cut) as client:
            for number in range(max(20, switches // (2 * cuts))):
                staying.append((cut, 1000 * client.request(feeds[number % 5]).timings.total_s))
    over.set()
    for thread in load_threads:
        thread.join()
    edge.end(signal.SIGTERM)
    whole, chain = (in_a_process(kind, model, folder) for kind in ("whole", "chain"))
    ratio = chain["after"] / whole["after"]
    net = (chain["after"] - chain["before"]) / (whole["after"] - whole["before"])
    return (
        f"| {model.stem} | {cuts - 1} | {switches} | {switches} | {wrong} | {failed} | "
        f"{by_cut(times):.2f} | {by_cut(staying):.2f} | {whole['after']:.1f} | "
        f"{chain['after']:.1f} | {ratio:.2f} | {net:.2f} |"
    )


def by_cut(times: list[tuple[int, float]]) -> float:
    """The mean over the cuts of their medians, so that each counts alike."""
    cuts = sorted({cut for cut, _ in times})
    return statistics.mean(statistics.median(t for c, t in times if c == cut) for cut in cuts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        kind, model, folder = asked.measure
        print(json.dumps(measured(kind, Path(model), Path(folder))))
        return
    rows = [HEADER]
    with tempfile.TemporaryDirectory(prefix="onnxopt-switching-") as place:
        for name in asked.models:
            rows.append(one(name, asked.switches, Path(place)))
            print(rows[-1], file=sys.stderr, flush=True)
    text = "# Changing the cut under load\n\n" + "\n".join(rows) + "\n"
    print(text)
    if asked.output is not None:
        asked.output.write_text(text)


if __name__ == "__main__":
    main()
