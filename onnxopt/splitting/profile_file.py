"""What `split profile` writes: `onnxopt-split-profile/1`, one machine's times of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnxopt.errors import UsageError
from onnxopt.profiling.document import Machine, Noise, Settings, Spread
from onnxopt.profiling.files import read_json
from onnxopt.splitting.manifest import Codec

SCHEMA: Literal["onnxopt-split-profile/1"] = "onnxopt-split-profile/1"


@dataclass(frozen=True)
class MeasuredCut:
    """Both sides of a cut, as models of their own, in turns with the whole model.

    Attributes:
        tensors, outputs: which cut it is, see `plan_file.PlannedCut`.
        prefix_us: what lies before it; None where nothing does.
        suffix_us: what lies behind it; None where nothing does.
    """

    tensors: tuple[str, ...]
    outputs: tuple[str, ...]
    prefix_us: Spread | None
    suffix_us: Spread | None


@dataclass(frozen=True)
class CodecTimes:
    """Encoding and decoding one tensor: so much for each, and for each million bytes of it."""

    codec: Codec
    encode_us: float
    encode_us_per_mb: float
    decode_us: float
    decode_us_per_mb: float


@dataclass(frozen=True)
class SplitProfile:
    """Times of one model on one machine.

    Attributes:
        model: SHA-256 of the model.
        whole_us: a run of the whole model.
        run_us: what a run costs beside its kernels.
        nodes_us: of each node of the main graph, in the order of the file: what fused kernels take,
            shared out among their nodes by what these take alone. With `run_us` they add up to the
            mean of the faster half of the runs.
        unfused_us: the same as ONNX Runtime runs the file with its own rewriting off.
        kernels: nodes that one fused kernel does the work of, where they are several: their places
            in the file, ascending.
        placed: of the time of all fused kernels, the share of those whose nodes are known. The rest
            is spread over all nodes.
    """

    schema: Literal["onnxopt-split-profile/1"]
    source: str
    model: str
    machine: Machine
    settings: Settings
    noise: Noise
    whole_us: Spread
    run_us: float
    nodes_us: tuple[float, ...]
    unfused_us: tuple[float, ...]
    kernels: tuple[tuple[int, ...], ...]
    placed: float
    cuts: tuple[MeasuredCut, ...]
    codecs: tuple[CodecTimes, ...]
    notes: tuple[str, ...]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the inputs that were fed, by name."""
        return self.settings.shapes


def read_split_profile(file: Path) -> SplitProfile:
    """A profile that was written as JSON.

    Raises:
        UsageError: there is no such file, or it is something else.
    """
    profile: SplitProfile = read_json(
        SplitProfile,
        file,
        SCHEMA,
        "a profile of a model to be split",
        "write it with `onnxopt split profile MODEL -o profile.json`, once on each machine",
    )
    spreads = [profile.whole_us]
    spreads += [s for cut in profile.cuts for s in (cut.prefix_us, cut.suffix_us) if s is not None]
    times = [profile.run_us, *profile.nodes_us, *(spread.median for spread in spreads)]
    for codec in profile.codecs:
        times += [codec.encode_us, codec.encode_us_per_mb]
        times += [codec.decode_us, codec.decode_us_per_mb]
    if any(not 0 <= us < float("inf") for us in (*times, *profile.unfused_us)):
        raise UsageError(f"'{file}' is no profile: a time in it is negative or endless")
    return profile
