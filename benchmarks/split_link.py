"""Is what `split plan` predicts true? Every cut of a plan over a link shaped to five rates.

    python benchmarks/split_link.py MODEL[@INPUT=1,3,224,224]... [--slowdown 8] [--rtt 10]
        [--repeats 7] [--output FILE.md]

Each model is profiled, planned for links of 1.1 to 1000 Mbit/s (`--adaptive 4`), profiled again at
the cuts of that plan, planned once more and exported: all by the commands. Then each cut is run
through a proxy that lets bits pass at the rate of the link and with its delay, to a server in a
process of its own, in turns with the others.

Device and edge are the same machine. So that there is something to gain, the device is made slow:
it does its part `--slowdown` times over, and the plan is told so. (One that sleeps instead has cold
caches whenever it wakes, and multiplies what that costs, too.) The
round trip of the prediction is that of requests with one number through a link of the same kind,
plus the time that head and JSON of a request and of its answer take at that rate.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from edges import Process
from shaped import LinkProcess
from switching import drawn

from onnxopt.signature import Array
from onnxopt.splitting.chain import Chain
from onnxopt.splitting.client import SplitClient
from onnxopt.splitting.context import Context, latency_s
from onnxopt.splitting.manifest import Manifest
from onnxopt.splitting.plan_file import Plan, read_plan

RATES = (1.1, 5.85, 18.88, 100.0, 1000.0)
HEADS_BYTES = 400
"""Heads of HTTP, there and back."""

NOTHING = """
    <ir_version: 8, opset_import: ["" : 17]>
    nothing (float[1] x) => (float[1] y) {
        a = Relu(x)
        y = Neg(a)
    }
"""

HEADER = (
    "| model | Mbit/s | cut | what crosses | kB | predicted ms | measured ms | error | |\n"
    + 9 * "|---"
    + "|"
)


class SlowChain(Chain):
    """Takes `slowdown` times as long as this machine does."""

    slowdown = 1.0

    def run(self, first: int, end: int, values: Mapping[str, Array]) -> dict[str, Array]:
        return self._stretched(super().run, first, end, values)

    def encode(self, cut: int, values: Mapping[str, Array]) -> dict[str, Array]:
        return self._stretched(super().encode, cut, values)

    def _stretched(self, work: Any, *arguments: Any) -> Any:
        more, part = divmod(self.slowdown - 1, 1)
        for _ in range(int(more)):
            work(*arguments)
        began = time.thread_time()  # of the processor: waiting for it is no slow device
        found = work(*arguments)
        time.sleep(part * (time.thread_time() - began))
        return found


def slow_client(folder: Path, url: str | None, slowdown: float, **options: Any) -> SplitClient:
    client = SplitClient(folder, url, **options)
    client.chain.__class__ = SlowChain
    client.chain.slowdown = slowdown  # type: ignore[attr-defined]
    return client


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "onnxopt", "split", *map(str, words)], check=True)


def planned(model: Path, shape: list[str], slowdown: float, rtt_ms: float, place: Path) -> Plan:
    """Profile, plan, profile what was planned, plan again, export."""
    profile, plan = place / "profile.json", place / "plan.json"
    asked = ("--device-slowdown", slowdown, "--bandwidth", "18.88Mbit", "--rtt", f"{rtt_ms}ms")
    spread = ("--adaptive", 4, "--bandwidths", "1.1Mbit..1Gbit", "-o", plan, "--quiet")
    command("profile", model, *shape, "-o", profile, "--quiet")
    command("plan", model, "--device", profile, *asked, *spread)
    command("profile", model, *shape, "-o", profile, "--plan", plan, "--quiet")
    command("plan", model, "--device", profile, *asked, *spread)
    # Times are measured: what quantized halves round otherwise than the whole does not matter.
    accepted = ("--tolerance", "10%")
    command("export", model, "--plan", plan, "-o", place / "parts", *shape, *accepted, "--quiet")
    return read_plan(plan)


class Nothing:
    """A model of one number, served as the others are: what its requests take is the round trip of
    a request without data, the price of the protocol and of this machine's scheduler included."""

    def __init__(self, place: Path, rtt_s: float) -> None:
        file = place / "nothing.onnx"
        file.write_bytes(onnx.parser.parse_model(NOTHING).SerializeToString())
        command("export", file, "--at", "a", "-o", place / "nothing", "--quiet")
        self._edge = Process(place / "nothing")
        self.link = LinkProcess("127.0.0.1", self._edge.port, bits=1e9, rtt_s=rtt_s)
        self._client = SplitClient(place / "nothing", self.link.url, fallback="off")
        feeds = {"x": np.zeros(1, np.float32)}
        self._ask = lambda: self._client.request(feeds).timings
        first = self._ask()
        self.size_bytes = first.sent_bytes + first.received_bytes + HEADS_BYTES

    def takes_s(self, bits: float) -> float:
        """The middle one of several, without the time that its own bytes are on the link."""
        taken = statistics.median(self._ask().total_s for _ in range(15))
        return taken - 8 * self.size_bytes / bits

    def close(self) -> None:
        self._client.close()
        self.link.close()
        self._edge.end(signal.SIGTERM)


def extra_bytes(answer: Any, manifest: Manifest) -> int:
    """What crosses beside the tensors."""
    timings = answer.timings
    if not timings.sent_bytes:
        return 0
    cut = manifest.cuts[timings.cut]
    made = {name for s in manifest.segments[timings.cut :] for name in s.makes}
    back = sum(answer.outputs[p.name].nbytes for p in manifest.outputs if p.name in made)
    sent = sum(port.size_bytes for port in cut.wire)
    return int(timings.sent_bytes + timings.received_bytes - sent - back + HEADS_BYTES)


def over_the_link(
    name: str, plan: Plan, folder: Path, slowdown: float, rtt_ms: float, repeats: int
) -> list[str]:
    """The rows of a model."""
    edge = Process(folder)
    link = LinkProcess("127.0.0.1", edge.port, bits=1e9, rtt_s=rtt_ms / 1000)
    nothing = Nothing(folder.parent, rtt_ms / 1000)
    clients = [
        slow_client(folder, link.url, slowdown, cut=cut, deadline_s=300, fallback="lazy")
        for cut in range(len(plan.cuts))
    ]
    manifest = clients[0].manifest
    feeds = drawn(manifest, 0)
    more = [extra_bytes(client.request(feeds), manifest) for client in clients]
    rows = []
    for rate in RATES:
        link.set_bits(1e6 * rate)
        nothing.link.set_bits(1e6 * rate)
        round_trip = nothing.takes_s(1e6 * rate)
        times: list[list[float]] = [[] for _ in clients]
        for turn in range(repeats + 1):
            for cut, client in enumerate(clients):
                timings = client.request(feeds).timings
                assert not timings.failure, timings.failure
                if turn:
                    times[cut].append(timings.total_s)
        measured = [statistics.median(taken) for taken in times]
        predicted = [
            latency_s(cut.point, replace(context(rate), rtt_s=round_trip + 8e-6 * extra / rate))
            for cut, extra in zip(plan.cuts, more, strict=True)
        ]
        chosen, best = int(np.argmin(predicted)), int(np.argmin(measured))
        for number, cut in enumerate(plan.cuts):
            wire = manifest.cuts[number].wire if number < len(manifest.segments) else ()
            marks = ["chosen"] * (number == chosen) + ["best"] * (number == best)
            if number == chosen and measured[chosen] > min(measured):
                marks.append(f"{measured[chosen] / min(measured) - 1:.1%} over the best")
            what = "all on the device" if not wire else f"{len(wire)} tensors, {cut.codec}"
            rows.append(
                f"| {name} | {rate:g} | {manifest.cuts[number].name} | {what} | "
                f"{sum(p.size_bytes for p in wire) / 1000:.1f} | {1000 * predicted[number]:.2f} | "
                f"{1000 * measured[number]:.2f} | "
                f"{predicted[number] / measured[number] - 1:+.1%} | {', '.join(marks)} |"
            )
        print("\n".join(rows[-len(plan.cuts) :]), file=sys.stderr, flush=True)
    for client in clients:
        client.close()
    link.close()
    nothing.close()
    edge.end(signal.SIGTERM)
    return rows


def context(rate: float) -> Context:
    return Context(1e6 * rate, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--slowdown", type=float, default=8.0)
    parser.add_argument("--rtt", type=float, default=10.0, help="milliseconds")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    rows = []
    for name in asked.models:
        path, _, shape = name.partition("@")
        with tempfile.TemporaryDirectory(prefix="onnxopt-link-") as place:
            shapes = ["--set-shape", shape] if shape else []
            plan = planned(Path(path), shapes, asked.slowdown, asked.rtt, Path(place))
            rows += over_the_link(
                Path(path).stem,
                plan,
                Path(place) / "parts",
                asked.slowdown,
                asked.rtt,
                asked.repeats,
            )
    errors = [abs(float(row.split("|")[8].strip().rstrip("%"))) for row in rows]
    regrets = [row for row in rows if "over the best" in row]
    close = sum(error <= 15 for error in errors)
    text = "\n".join(
        [
            "# Predicted and measured over shaped links\n",
            f"{close} of {len(errors)} predictions within 15 %; mean error "
            f"{statistics.mean(errors):.1f} %, largest {max(errors):.1f} %. The chosen cut was the "
            f"measured best one {len([r for r in rows if 'chosen, best' in r])} times and another "
            f"one {len(regrets)} times. Round trip {asked.rtt:g} ms, device slowed down "
            f"{asked.slowdown:g} times.\n",
            HEADER,
            *rows,
        ]
    )
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
