"""What part of models can be pruned: channel groups, proofs of random cuts, and what is declined.

    python benchmarks/pruning_coverage.py FOLDER... [--seeds N] [--output FILE]

Each model is optimized first. Then half of the units of every group, drawn at random, are cut: the
exact groups alone, which must prove, and all groups, which must run; once where layers read all
channels that they are given, and once where they choose (`+ reads`: groups of what a layer reads).
Prints Markdown, one line a model; exits with 1 if a proof fails or a model cannot be analyzed.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.graph_protos import graph_protos
from onnxopt.model import load
from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.proof import Proof, prove
from onnxopt.runtime import Session
from onnxopt.verification.feeds import draws

MOST_REASONS = 2
MOST_FEEDS = 2


@dataclass(frozen=True)
class Row:
    """What was found out about one model."""

    name: str
    groups: int = 0
    exact: int = 0
    reads: int = 0
    units: int = 0
    declined: int = 0
    left: float = 1.0
    worst: float = 0.0
    verdict: str = "pass"
    reasons: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        cells = (
            self.name,
            f"{self.groups} ({self.exact}) + {self.reads}",
            self.units,
            self.declined,
            f"{self.left:.0%}",
            f"{self.worst:.0e}" if self.worst else "0",
            self.verdict,
            f"{self.seconds:.1f}",
            self.reasons,
        )
        return f"| {' | '.join(str(cell) for cell in cells)} |"


HEAD = """\
| model | groups (exact) + reads | units | declined | left | worst | proofs | s | why declined |
|---|---|---|---|---|---|---|---|---|"""


def measure(path: Path, seeds: int) -> Row:
    """Analyze one model and prove random cuts."""
    try:
        proto = optimize(load(path), Options(verify=False)).model
        feeds = [feed.arrays for feed in draws(proto, Session(proto)).feeds[:MOST_FEEDS]]
        start = time.perf_counter()
        channels = Channels(proto, feeds[0])
        seconds = time.perf_counter() - start
    except OnnxoptError as error:
        return Row(path.stem, verdict=f"not run: {error.what[:60]}")
    proofs: list[Proof] = []
    full = max(elements(channels.cut([])), 1)  # with constants in initializers, as in the cut one
    left: list[float] = []
    choosing = Channels(proto, feeds[0], selects=0)
    reads = sum(group.is_read for group in choosing.groups)
    for seed in range(seeds):
        for groups in (tuple(g for g in channels.groups if g.exact), channels.groups):
            if dead := half(channels, groups, seed):
                proofs.append(prove(channels, dead, feeds))
                left.append(elements(channels.cut(dead)) / full)
        exact = tuple(g for g in choosing.groups if g.exact)
        for groups in (tuple(g for g in exact if g.is_read), exact) if reads else ():
            if dead := half(choosing, groups, seed):
                proofs.append(prove(choosing, dead, feeds))
    worst = max((proof.error for proof in proofs if proof.exact), default=0.0)
    noise = " (rounding)" if any(proof.is_noise for proof in proofs) else ""
    return Row(
        path.stem,
        len(channels.groups),
        sum(group.exact for group in channels.groups),
        reads,
        sum(len(group.units) for group in channels.groups),
        sum(item.channels for item in channels.declined),
        float(np.mean(left[1::2])) if left[1::2] else 1.0,
        worst,
        f"pass{noise}" if all(proof.holds for proof in proofs) else "**FAIL**",
        "; ".join(_main_reasons(channels)),
        seconds,
    )


def half(channels: Channels, groups: Iterable[ChannelGroup], seed: int) -> frozenset[int]:
    """Half of the units of each group at random, but no axis without any."""
    rng = np.random.default_rng(seed)
    dead: set[int] = set()
    for group in groups:
        dead.update(rng.choice(group.units, len(group.units) // 2, replace=False).tolist())
    return channels.possible(dead)


def elements(proto: onnx.ModelProto) -> int:
    """Of all initializers, those of bodies among them."""
    return sum(
        int(np.prod(t.dims)) for graph in graph_protos(proto.graph) for t in graph.initializer
    )


def _main_reasons(channels: Channels) -> Iterator[str]:
    """Kinds of reasons with the channels they hold, without the names of nodes and values."""
    kinds: Counter[str] = Counter()
    for item in channels.declined:
        kind = re.sub(r"(( making)? )?'[^']*'", "", item.reason).strip()
        kinds[kind] += item.channels
    for kind, count in kinds.most_common(MOST_REASONS):
        yield f"{kind} ({count})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    lines = ["# What can be pruned", "", "Made by `make coverage`. Half of the units of each"]
    lines += ["group were cut, at random; see benchmarks/pruning_coverage.py."]
    lines += ["Left: share of the parameters; + reads: groups of what one layer reads.", ""]
    failed = total = 0
    for folder in given.folders:
        paths = sorted(folder.glob("*.onnx"))
        lines += [f"## {folder.name}: {len(paths)} models", "", HEAD]
        for path in paths:
            row = measure(path, given.seeds)
            total += 1
            failed += "FAIL" in row.verdict
            lines.append(row.line())
            print(row.line(), flush=True)
        lines.append("")
    lines += [f"{total} models, {failed} with a proof that failed.", ""]
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text("\n".join(lines))
    print(lines[-2])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
