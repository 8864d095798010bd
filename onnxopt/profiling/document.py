"""What a profile says, as plain data: `onnxopt-profile/2`, which another machine can be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxopt.errors import UsageError
from onnxopt.profiling.files import read_json

SCHEMA = "onnxopt-profile/2"


@dataclass(frozen=True)
class Spread:
    """Times of one thing: median and quartiles, in the unit that the field's name says."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        channel_block: channels that the convolutions of this CPU take at once.
    """

    system: str
    processor: str
    cores: int
    channel_block: int
    onnxruntime: str
    numpy: str
    python: str


@dataclass(frozen=True)
class Settings:
    """How it was measured.

    Attributes:
        threads: inside one operator.
        provider: execution provider of ONNX Runtime, which falls back to the CPU's.
        shapes: of the inputs that were fed, by name.
        rounds, seconds: how often everything was run in turns, and how long that took.
    """

    threads: int
    provider: str
    shapes: Mapping[str, tuple[int, ...]]
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Noise:
    """Can the figures be trusted?

    Attributes:
        low, high: quartiles of the times of the model by those of the same model run right before.
        taken_share: of the time of these runs, what the processor gave to others; None with more
            than one thread, where that cannot be told.
        disturbed: runs that count nowhere, for others took a good part of their time.
        trusted: the figures are good for decisions.
        why: what speaks against that; empty if nothing does.
    """

    low: float
    high: float
    taken_share: float | None
    disturbed: int
    trusted: bool
    why: str


@dataclass(frozen=True)
class Memory:
    """Growth of the resident memory of a process that loads and runs the model, and nothing else.

    Attributes:
        peak_bytes: None if it could not be measured.
        how: what was subtracted from what, or why there is nothing.
    """

    peak_bytes: int | None
    how: str


@dataclass(frozen=True)
class Overhead:
    """What a run costs beside its kernels.

    Attributes:
        run_us: one run without any kernel: the call, its inputs and its outputs.
        clock_us: what reading the clock adds to the time of each kernel; taken off all of them.
        in_model: times of kernels as the profiler saw them in the model were multiplied by this,
            so that they and `run_us` add up to a run of the model: to the mean of the faster half,
            as their own times are. At most 1.25: beyond that, others disturbed the runs.
    """

    run_us: float
    clock_us: float
    in_model: float


@dataclass(frozen=True)
class KernelTime:
    """One kernel of the model after fusion, as ONNX Runtime ran it.

    Attributes:
        op: operator; `.nchwc` follows where it works on blocks of channels.
        inputs, outputs: types and shapes, like float[1,16,32,32].
        us: mean of the faster half of its times, what dispatching it costs included.
        share: of the steady state.
        nodes: the nodes of the file that it does the work of, as far as names tell.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    us: float
    share: float
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class WidthTime:
    """A layer at one width, alone.

    Attributes:
        inputs, outputs: channels (features, for a product).
        macs, bytes: multiply-accumulates; bytes that it reads and writes.
        us: mean of the faster half of its times; low and high are quartiles.
        kernel_inputs, kernel_outputs: what its main kernel was given, rounded up to blocks.
    """

    inputs: int
    outputs: int
    macs: int
    bytes: int
    us: float
    low: float
    high: float
    kernel_op: str
    kernel_inputs: tuple[str, ...]
    kernel_outputs: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """T(w) = t0 + a * MACs(w) + b * bytes(w), all three at least 0, by least relative squares.

    Attributes:
        t0_us: the start-up: what is left of the time at no width at all.
        us_per_mmac, us_per_mb: a and b, for a million of each.
        error: root mean square of (fit - measured) / measured.
        worst: the largest of these, in size.
    """

    t0_us: float
    us_per_mmac: float
    us_per_mb: float
    error: float
    worst: float


@dataclass(frozen=True)
class LayerTimes:
    """A distinct layer of the model at several widths, the whole one first.

    Attributes:
        text: kernel, stride and sizes, for a person.
        nodes: the nodes of this shape, one name each.
        count: how often it is in the model.
        in_model_us: one of them in the model, on average; None if it was not recognized there.
        fit: None where the widths are too few to tell.
        startup_share: t0 by the time at the whole width, at most 1.
    """

    op: str
    text: str
    nodes: tuple[str, ...]
    count: int
    in_model_us: float | None
    widths: tuple[WidthTime, ...]
    fit: Fit | None
    startup_share: float | None


@dataclass(frozen=True)
class BlockTimes:
    """A residual block of the model: entry + branch, which can be taken out as a whole.

    Attributes:
        name: of the node that adds.
        kind: what its branch is: convolution, mlp, attention, ...
        nodes: of the branch, inner blocks among them, and last the one that adds.
        in_model_us: its kernels in the model together, as far as their names tell; None if none.
        layers: how many of its nodes are in `layers`.
        fitted: how many of these have a fit; the rest of the fields is about them.
        alone_us: they together at their whole widths; None if there are none, as the rest.
        startup_us: what is left of that at no width at all, the sum of their t0: what cutting
            channels cannot save and taking out the block does.
        startup_share: the latter by the former.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    in_model_us: float | None
    layers: int
    fitted: int
    alone_us: float | None
    startup_us: float | None
    startup_share: float | None


@dataclass(frozen=True)
class Sample:
    """Another kernel that ran with the small models: at these sizes it takes so long."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    us: float


@dataclass(frozen=True)
class Profile:
    """What `onnxopt profile` found out about one model on one machine.

    Attributes:
        source: path of the model.
        load_ms: from the file to a session that is ready.
        first_ms: first run of a new session.
        steady_ms: further runs, in turns with everything else.
        mapped_share: of the time of all kernels, that of those whose nodes are known; None if the
            measuring machine was given no names of nodes.
        layers: empty unless widths were asked for.
        blocks: likewise, in the order of their sums; one inside of another is listed, too.
    """

    schema: str
    source: str
    machine: Machine
    settings: Settings
    load_ms: Spread
    first_ms: Spread
    steady_ms: Spread
    noise: Noise
    memory: Memory
    overhead: Overhead
    kernels: tuple[KernelTime, ...] = ()
    mapped_share: float | None = None
    layers: tuple[LayerTimes, ...] = ()
    blocks: tuple[BlockTimes, ...] = ()
    samples: tuple[Sample, ...] = ()
    notes: tuple[str, ...] = ()


def read_profile(file: Path) -> Profile:
    """A profile that was written as JSON.

    Raises:
        UsageError: there is no such file, or it is something else.
    """
    profile: Profile = read_json(
        Profile, file, SCHEMA, "a profile", "write it with `onnxopt profile MODEL -o profile.json`"
    )
    numbers = [kernel.us for kernel in profile.kernels]
    numbers += [width.us for layer in profile.layers for width in layer.widths]
    if any(not 0 <= us < float("inf") for us in (*numbers, profile.steady_ms.median)):
        raise UsageError(f"'{file}' is no profile: a time in it is negative or endless")
    return profile
