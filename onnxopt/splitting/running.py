"""Run many requests through a client: a trace as they go, and what they took in the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TextIO

import numpy as np

from onnxopt.errors import UsageError
from onnxopt.signature import Array
from onnxopt.splitting.answers import Timings
from onnxopt.splitting.client import SplitClient

SCHEMA = "onnxopt-split-run/1"
PARTS = ("total", "device", "wire", "edge")


@dataclass(frozen=True)
class Percentiles:
    """Of one part of the latency, over all requests. The means of the parts add up to the total's;
    their percentiles do not.
    """

    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class RunSummary:
    """What came of all requests.

    Attributes:
        edge: its URL; None: all ran here.
        cuts: how many requests were run with each, by name.
        switches: how often the cut changed from one request to the next.
        failures: why the edge did not answer and the device finished, with how often.
        latency: by part, see `client.Timings`.
        sent_bytes, received_bytes: of all requests.
        seconds: from the first to the last.
    """

    schema: str
    model: str
    edge: str | None
    requests: int
    cuts: Mapping[str, int]
    switches: int
    failures: Mapping[str, int]
    latency: Mapping[str, Percentiles]
    sent_bytes: int
    received_bytes: int
    seconds: float


@dataclass(frozen=True)
class Ran:
    """The summary, what each request took, and the outputs of each request of the first round."""

    summary: RunSummary
    timings: tuple[Timings, ...]
    outputs: tuple[Mapping[str, Array], ...]


def run_all(
    client: SplitClient,
    feeds: Iterable[Mapping[str, Array]],
    count: int,
    *,
    edge: str | None,
    repeat: int = 1,
    keep: bool = True,
    trace: TextIO | None = None,
    progress: Callable[[str, float], None] = lambda stage, done: None,
) -> Ran:
    """One request after the other, `repeat` times all of them.

    Args:
        count: how many feeds there are.
        keep: the outputs of the first round.
        trace: gets a line of JSON for each request, times in milliseconds.

    Raises:
        what `SplitClient.request` raises.
    """
    timings: list[Timings] = []
    outputs: list[Mapping[str, Array]] = []
    began = time.perf_counter()
    for round in range(repeat):
        for feed in feeds:
            at = time.perf_counter() - began
            answer = client.request(feed)
            timings.append(answer.timings)
            if keep and not round:
                outputs.append(answer.outputs)
            if trace is not None:
                entry = trace_entry(len(timings), at, answer.timings, client)
                trace.write(json.dumps(entry) + "\n")
            progress(_stage(client, answer.timings), len(timings) / (count * repeat))
    if not timings:
        raise UsageError("there are no requests to run")
    seconds = time.perf_counter() - began
    return Ran(summary(client, edge, timings, seconds), tuple(timings), tuple(outputs))


def trace_entry(
    number: int, at_s: float, timings: Timings, client: SplitClient
) -> dict[str, object]:
    """A line of the trace."""
    receive = timings.receive_s
    return {
        "request": number,
        "at_ms": round(1000 * at_s, 3),
        "cut": client.manifest.cuts[timings.cut].name,
        "total_ms": round(1000 * timings.total_s, 3),
        "device_ms": round(1000 * timings.device_s, 3),
        "wire_ms": round(1000 * timings.wire_s, 3),
        "edge_ms": round(1000 * timings.edge_s, 3),
        "receive_ms": None if receive is None else round(1000 * receive, 3),
        "sent_bytes": timings.sent_bytes,
        "received_bytes": timings.received_bytes,
        "failure": timings.failure or None,
    }


def summary(
    client: SplitClient, edge: str | None, timings: Sequence[Timings], seconds: float
) -> RunSummary:
    manifest = client.manifest
    used = Counter(manifest.cuts[item.cut].name for item in timings)
    return RunSummary(
        SCHEMA,
        manifest.name,
        edge,
        len(timings),
        {cut.name: used[cut.name] for cut in manifest.cuts if used[cut.name]},
        sum(a.cut != b.cut for a, b in pairwise(timings)),
        dict(Counter(item.failure for item in timings if item.failure).most_common()),
        {part: _percentiles([getattr(item, f"{part}_s") for item in timings]) for part in PARTS},
        sum(item.sent_bytes for item in timings),
        sum(item.received_bytes for item in timings),
        seconds,
    )


def joined(outputs: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of all requests by name: one after the other along the first axis or, where their
    shapes do not allow it, along a new one.

    Raises:
        UsageError: their shapes allow neither.
    """
    found: dict[str, Array] = {}
    for name in outputs[0] if outputs else ():
        arrays = [np.asarray(values[name]) for values in outputs]
        if arrays[0].ndim and len({array.shape[1:] for array in arrays}) == 1:
            found[name] = np.concatenate(arrays)
        elif len({array.shape for array in arrays}) == 1:
            found[name] = np.stack(arrays)
        else:
            shapes = " and ".join(str(list(s)) for s in sorted({a.shape for a in arrays})[:2])
            raise UsageError(
                f"the output '{name}' cannot be one array: it has the shapes {shapes}",
                "run the requests one by one",
            )
    return found


def _percentiles(seconds: Sequence[float]) -> Percentiles:
    ms = 1000 * np.asarray(seconds)
    points = np.percentile(ms, (50, 90, 95, 99, 100))
    return Percentiles(*(round(float(value), 4) for value in (ms.mean(), *points)))


def _stage(client: SplitClient, timings: Timings) -> str:
    name = client.manifest.cuts[timings.cut].name
    where = "edge failed" if timings.failure else name
    return f"{where}: {1000 * timings.total_s:.1f} ms"
