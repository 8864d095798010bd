"""Measure a model, or a kit of one, on this machine: the Profile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from onnxopt.parts import parts
from onnxopt.profiling.bench import LONG_CHAIN, SHORT_CHAIN, Asked, Bench, Record
from onnxopt.profiling.block_times import block_times
from onnxopt.profiling.document import (
    SCHEMA,
    KernelTime,
    Memory,
    Overhead,
    Profile,
    Settings,
)
from onnxopt.profiling.events import Traced
from onnxopt.profiling.feeds import write_feeds
from onnxopt.profiling.kit import Kit, KitLayer, read_kit
from onnxopt.profiling.layers import Correct, layer_times, samples, unmeasured
from onnxopt.profiling.machine import machine
from onnxopt.profiling.memory import peak_memory
from onnxopt.profiling.naming import nodes_of
from onnxopt.profiling.sessions import CPU
from onnxopt.profiling.spread import judge, spread, undisturbed
from onnxopt.profiling.turns import Clock, Turn

Progress: TypeAlias = Callable[[str, float], None]
"""Is told what is being done, and how much of it is done, 0 to 1."""

LARGEST_PART_BYTES = 2**31
"""Small models are open at the same time as long as their tensors are not larger together."""

MOST_MORE_CLOCK_US = 1.2
"""Reading the clock adds at most so much more to a kernel of the model than to the smallest."""

LEAST_FACTOR = 0.8
MOST_FACTOR = 1.25
"""Where kernels add up to even less of a run, it was not they that took the time, but others."""

SHORTEST_KERNEL_US = 0.3
"""The clock counts whole microseconds: nothing is said to take less than this."""


def measure(
    place: Path,
    asked: Asked | None = None,
    *,
    source: str = "",
    progress: Progress = lambda stage, done: None,
    clock: Clock | None = None,
    beside: Sequence[Turn] = (),
) -> Profile:
    """Measure a model file, or the folder of a kit.

    Args:
        source: what the profile calls the model; its path or what the kit says unless given.
        beside: what else shall take its turns in every round; their times are the caller's.

    Raises:
        UsageError: no such file, or shapes, inputs or a provider that do not fit.
        MeasureError: ONNX Runtime does not load or run the model.
    """
    asked, clock = asked or Asked(), clock or Clock()
    kit, folder = read_kit(place)
    with tempfile.TemporaryDirectory(prefix="onnxopt-profile-") as temporary:
        progress("loading", 0.0)
        bench = Bench(folder / kit.model, asked, kit.shapes, Path(temporary))
        progress("measuring memory", 0.0)
        memory = _memory(bench)  # first, as it is another process that ends where one crashes
        loads, firsts = bench.start(clock)
        begin = clock.wall()
        seen = _turns(bench, kit.layers, folder, clock, progress, beside)
        seconds = clock.wall() - begin
    judged = judge(bench.record.pairs, threads=asked.threads)
    overhead = _overhead(bench.record, 1e6 * undisturbed(judged.seconds))
    rounds = bench.record.rounds
    return _with_kernels(
        Profile(
            schema=SCHEMA,
            source=source or kit.source,
            machine=machine(),
            settings=Settings(asked.threads, asked.provider, bench.shapes, rounds, seconds),
            load_ms=spread([1000 * s for s in loads]),
            first_ms=spread([1000 * s for s in firsts]),
            steady_ms=spread([1000 * s for s in judged.seconds]),
            noise=judged.noise,
            memory=memory,
            overhead=overhead,
            notes=_notes(asked, overhead),
        ),
        bench.record,
        kit,
        seen,
    )


def _with_kernels(
    profile: Profile, record: Record, kit: Kit, seen: Sequence[Sequence[Traced]]
) -> Profile:
    """The profile with its kernels, layers and blocks.

    Args:
        seen: what the profiler saw in the small model of each layer.
    """
    correct = _correction(profile.overhead.clock_us)
    kernels, mapped = _kernels(record, kit, profile.overhead, correct)
    layers = tuple(
        layer_times(layer, found, kernels, correct)
        for layer, found in zip(kit.layers, seen, strict=True)
    )
    return replace(
        profile,
        kernels=kernels,
        mapped_share=mapped,
        layers=layers,
        blocks=block_times(kit.blocks, kernels, layers),
        samples=samples(seen, correct),
        notes=(*profile.notes, *unmeasured(layers)),
    )


def _memory(bench: Bench) -> Memory:
    feeds = bench.folder / "feeds.npz"
    write_feeds(feeds, bench.feeds)
    asked = bench.asked
    return peak_memory(bench.model, feeds, threads=asked.threads, provider=asked.provider)


def _turns(
    bench: Bench,
    layers: Sequence[KitLayer],
    folder: Path,
    clock: Clock,
    progress: Progress,
    beside: Sequence[Turn],
) -> list[list[Traced]]:
    """Part by part, so that memory is bounded; the model runs in every part."""
    groups = list(parts(layers, _size_bytes, LARGEST_PART_BYTES)) or [[]]
    seen: list[list[Traced]] = []
    for number, group in enumerate(groups):
        files = [folder / layer.file for layer in group]
        share = (1 + len(group)) / (len(groups) + len(layers))

        def tell(done: float, number: int = number) -> None:
            progress("running in turns", (number + done) / len(groups))

        seen += bench.turns(files, bench.asked.seconds * share, clock, tell, beside)
    return seen


def _size_bytes(layer: KitLayer) -> int:
    return sum(width.bytes for width in layer.widths)


def _overhead(record: Record, steady_us: float) -> Overhead:
    """What is no kernel's work.

    Of chains of the smallest kernels the slope is one of them, and the rest is the run. What the
    profiler adds to each of those is the least that it adds to any: it writes down the shapes of
    all inputs within the time that it tells. So as much more is taken off as makes the kernels of
    the model add up to its steady state; where that is too much, a factor does the rest.
    """
    short, long = 1e6 * undisturbed(record.short), 1e6 * undisturbed(record.long)
    each = max(SHORTEST_KERNEL_US, (long - short) / (LONG_CHAIN - SHORT_CHAIN))
    run_us = max(0.0, short - SHORT_CHAIN * each)
    watched = undisturbed([time for entry in record.smallest for time in entry.times_us])
    wanted = max(0.0, steady_us - run_us)
    low = max(0.0, watched - each)
    high = low + MOST_MORE_CLOCK_US
    for _ in range(20):  # the sum falls as more is taken off
        clock_us = (low + high) / 2
        if _sum(record, clock_us) > wanted:
            low = clock_us
        else:
            high = clock_us
    total = _sum(record, high)
    return Overhead(run_us, high, min(wanted / total, MOST_FACTOR) if total else 1.0)


def _sum(record: Record, clock_us: float) -> float:
    correct = _correction(clock_us)
    return sum(_us(entry, correct, record) for entry in record.model)


def _correction(clock_us: float) -> Correct:
    return lambda time_us: max(SHORTEST_KERNEL_US, time_us - clock_us)


def _us(entry: Traced, correct: Correct, record: Record) -> float:
    """A kernel in one run, where several may have one name and one shape."""
    runs = min(len(other.times_us) for other in record.model)
    times = len(entry.times_us)
    return undisturbed([correct(time) for time in entry.times_us]) * max(
        1, round(times / max(runs, 1))
    )


def _kernels(
    record: Record, kit: Kit, overhead: Overhead, correct: Correct
) -> tuple[tuple[KernelTime, ...], float | None]:
    """The kernels in the order in which they run, and the share of those with nodes."""
    times = [overhead.in_model * _us(entry, correct, record) for entry in record.model]
    names = [entry.kernel for entry in record.model]
    nodes = [()] * len(names) if kit.nodes is None else nodes_of(names, kit.nodes)
    total = sum(times) + overhead.run_us
    made = tuple(
        KernelTime(k.name, k.op, k.inputs, k.outputs, us, us / total if total else 0.0, found)
        for k, us, found in zip(names, times, nodes, strict=True)
    )
    in_kernels = sum(times)
    if kit.nodes is None or not in_kernels:
        return made, None
    return made, sum(kernel.us for kernel in made if kernel.nodes) / in_kernels


def _notes(asked: Asked, overhead: Overhead) -> tuple[str, ...]:
    notes = []
    if asked.provider != CPU:
        notes.append(
            f"kernels are timed by the host's clock: where {asked.provider} works on by itself, "
            "their times say when the work was handed over"
        )
    if overhead.in_model >= MOST_FACTOR:
        notes.append(
            "the kernels add up to much less than the steady state: others disturbed all its runs"
        )
    elif overhead.in_model < LEAST_FACTOR:
        notes.append(
            f"the kernels' times were multiplied by {overhead.in_model:.2f} to add up to the "
            "steady state: watching them made them slower"
        )
    return tuple(notes)
