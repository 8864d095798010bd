"""What `make demo-split` shows last: a split model that is served, run, and adapts, on one machine.

    python benchmarks/split_demo.py OUT SAMPLES.npz [--slowdown 10] [--rtt 5] [--requests 150]

OUT is what `split export --plan` wrote. The edge is `onnxopt split serve` in a process of its own,
behind a link whose rate is changed, and is killed and started again. The device is this machine,
made as many times slower as the plan was told. Beside the adaptive client two others always send
everything to the edge and never anything.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from edges import Process
from shaped import LinkProcess
from split_link import slow_client

from onnxopt.report.table import console, plain_table
from onnxopt.signature import Array
from onnxopt.splitting.answers import Answer
from onnxopt.splitting.client import SplitClient
from onnxopt.splitting.plan_file import Plan, plan_of
from onnxopt.splitting.requests import Requests, read_requests
from onnxopt.splitting.switching import Adapter

COLUMNS = (
    "what happens",
    "where it ran",
    "adaptive",
    "always edge",
    "always device",
    "same class",
)
BESIDE = 15


@dataclass
class Scene:
    """Everything that a phase acts on."""

    folder: Path
    edge: Process
    link: LinkProcess
    samples: list[dict[str, Array]]
    classes: list[Array]

    def kill(self) -> None:
        self.edge.end(signal.SIGKILL)

    def restart(self) -> None:
        self.edge = Process(self.folder, port=self.edge.port)


def answers(client: SplitClient, scene: Scene, count: int) -> tuple[list[Answer], int, int]:
    """The answers, and how many classes there are in them that the whole model gives, too."""
    found, same, total = [], 0, 0
    for number in range(count):
        place = number % len(scene.samples)
        found.append(client.request(scene.samples[place]))
        (logits,) = found[-1].outputs.values()
        same += int((logits.argmax(1) == scene.classes[place]).sum())
        total += len(logits)
    return found, same, total


def phase(
    what: str, scene: Scene, clients: tuple[SplitClient, SplitClient, SplitClient], count: int
) -> tuple[str, ...]:
    """A row of the table."""
    adaptive, remote, local = clients
    found, same, total = answers(adaptive, scene, count)
    taken = f"{1000 * statistics.median(a.timings.total_s for a in found):.1f}"
    beside = []
    for client in (remote, local):
        times = [a.timings for a in answers(client, scene, BESIDE)[0]]
        ran = [t.total_s for t in times if not t.failure]
        beside.append(f"{1000 * statistics.median(ran):.1f}" if len(ran) == BESIDE else "fails")
    return what, did(adaptive, found), taken, *beside, f"{same / total:.2%}"


def did(client: SplitClient, found: list[Answer]) -> str:
    """How often each cut was used, and how often the edge failed."""
    last = len(client.manifest.segments)
    names = {0: "edge", last: "device"}
    used = Counter(answer.timings.cut for answer in found)
    failed = sum(bool(answer.timings.failure) for answer in found)
    said = [
        f"{names.get(cut, client.manifest.cuts[cut].name)} {n}" for cut, n in sorted(used.items())
    ]
    return ", ".join(said) + (f"; {failed} finished here" if failed else "")


def shown(folder: Path, samples: Requests, slowdown: float, rtt_s: float, count: int) -> None:
    """Play all phases and print the table."""
    edge = Process(folder)
    link = LinkProcess("127.0.0.1", edge.port, bits=100e6, rtt_s=rtt_s)
    feeds = list(samples)
    with SplitClient(folder, None) as whole:
        classes = [next(iter(whole.run(feed).values())).argmax(1) for feed in feeds]
        plan: Plan = plan_of(whole.manifest.planned or "")
    scene = Scene(folder, edge, link, feeds, classes)
    chooser = Adapter(plan.points, plan.context, allowed=plan.allowed, box=plan.box)
    clients = (
        slow_client(folder, link.url, slowdown, chooser=chooser, deadline_s=2),
        slow_client(folder, link.url, slowdown, cut=0, deadline_s=2),
        slow_client(folder, None, slowdown),
    )
    phases: tuple[tuple[str, Callable[[], None]], ...] = (
        ("a link of 100 Mbit/s", lambda: link.set_bits(100e6)),
        ("it falls to 0.5 Mbit/s", lambda: link.set_bits(0.5e6)),
        ("it is back at 100 Mbit/s", lambda: link.set_bits(100e6)),
        ("the edge is killed", scene.kill),
        ("the edge is started again", scene.restart),
    )
    rows = []
    for what, act in phases:
        act()
        rows.append(phase(what, scene, clients, count))
    for client in clients:
        client.close()
    link.close()
    scene.edge.end(signal.SIGTERM)
    first = next(iter(feeds[0].values()))
    screen = console()
    screen.print(
        f"\n{count} requests of {len(first)} samples in each phase, medians in ms: a device "
        f"{slowdown:g} times as slow as this machine, and a round trip of {1000 * rtt_s:g} ms"
    )
    screen.print(plain_table(COLUMNS, rows, left=2))
    screen.print(
        "every request got its answer; who always asks the edge would have had none where it says "
        "'fails'; 'same class' is the share of samples with the class that the whole model gives"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--slowdown", type=float, default=10.0)
    parser.add_argument("--rtt", type=float, default=5.0, help="milliseconds")
    parser.add_argument("--requests", type=int, default=150)
    asked = parser.parse_args()
    with SplitClient(asked.folder, None) as client:
        inputs = client.manifest.inputs
    samples = read_requests(asked.samples, inputs, batch=asked.batch)
    shown(asked.folder, samples, asked.slowdown, asked.rtt / 1000, asked.requests)


if __name__ == "__main__":
    main()
