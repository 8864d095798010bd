"""What the options of `split plan` become: budgets, watts, ranges, codecs, pruning."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxopt.splitting.candidates import Powers
    from onnxopt.splitting.choosing import Budgets
    from onnxopt.splitting.context import Box, Context
    from onnxopt.splitting.manifest import Codec
    from onnxopt.splitting.pruned_worth import Pruning


class ObjectiveChoice(str, Enum):
    """What is to be best."""

    latency = "latency"
    energy = "energy"
    throughput = "throughput"


class CodecsChoice(str, Enum):
    """Which codecs a plan may use."""

    auto = "auto"
    none = "none"
    fp16 = "fp16"
    uint8 = "uint8"


@dataclass(frozen=True)
class Codecs:
    """Which codecs a plan may use, and what they may change in the outputs.

    Attributes:
        max_error: None: anything.
        notes: what a person should know of that, in sentences.
    """

    allowed: tuple[Codec, ...]
    max_error: float | None = None
    notes: tuple[str, ...] = ()


def codecs_of(choice: CodecsChoice, max_error: str | None, *, calibrated: bool) -> Codecs:
    """The codecs that a plan may use.

    Without samples nothing is known of what they change. Then auto takes float16, which rounds each
    number to three digits, but not bytes, which do it to the largest numbers of each tensor only.

    Args:
        calibrated: there are samples to measure errors on.
    """
    from onnxopt.errors import UsageError
    from onnxopt.quantities import parse_percent
    from onnxopt.splitting.codec_errors import DEFAULT_MOST

    most = None if max_error is None else parse_percent(max_error)
    if most is not None and not calibrated:
        raise UsageError(
            "--max-error bounds what codecs change in the outputs, which is measured on samples",
            "add --calibration FILE.npz",
        )
    every: tuple[Codec, ...] = ("none", "fp16", "uint8")
    if choice is not CodecsChoice.auto:
        return Codecs(tuple(c for c in every if c == choice.value), most)
    if calibrated:
        return Codecs(every, DEFAULT_MOST if most is None else most)
    return Codecs(
        ("none", "fp16"),
        notes=(
            "without --calibration nothing is known of what codecs change in the outputs: fp16 was "
            "considered, which keeps three digits of numbers up to 65504, and uint8 was not",
        ),
    )


def pruning_asked(
    prune: str | None,
    calibration: Path | None,
    evaluate: Path | None,
    max_drop: float | None,
    min_agreement: str | None,
    pruned_model: Path | None,
) -> Pruning | None:
    """How to prune; None where that is not asked for."""
    from onnxopt.errors import UsageError
    from onnxopt.files import check_target
    from onnxopt.pruning.sweep import parse_sweep
    from onnxopt.quantities import parse_percent
    from onnxopt.splitting.pruned_worth import pruning_of

    if prune is None:
        given = (evaluate, max_drop, min_agreement, pruned_model)
        if any(value is not None for value in given):
            raise UsageError(
                "--eval, --max-drop, --min-agreement and --pruned-model say how to prune",
                "add --prune 0.8,0.6",
            )
        return None
    if pruned_model is None:
        raise UsageError(
            "nothing says where to write the pruned model", "add --pruned-model FILE.onnx"
        )
    check_target(pruned_model)
    agreement = None if min_agreement is None else parse_percent(min_agreement)
    return pruning_of(parse_sweep(prune), calibration, evaluate, max_drop, agreement)


def budgets_of(
    weights: str | None, memory: str | None, energy: str | None, latency: str | None
) -> Budgets:
    """What the device may hold and use, and what a request may take."""
    from onnxopt.quantities import parse_count, parse_joules, parse_seconds
    from onnxopt.splitting.choosing import Budgets

    return Budgets(
        None if weights is None else parse_count(weights),
        None if memory is None else parse_count(memory),
        None if energy is None else parse_joules(energy),
        None if latency is None else parse_seconds(latency),
    )


def powers_of(compute: float | None, radio: float, idle: float) -> Powers | None:
    """What the device draws; None where nothing is said of it."""
    from onnxopt.errors import UsageError
    from onnxopt.splitting.candidates import Powers

    if compute is None and (radio or idle):
        raise UsageError("what the device draws while it computes is missing", "add --device-power")
    if min(compute or 0.0, radio, idle) < 0:
        raise UsageError("watts are not below 0")
    return None if compute is None else Powers(compute, radio, idle)


def box_of(
    adaptive: int | None,
    context: Context,
    bandwidths: str | None,
    rtts: str | None,
    device_loads: str | None,
    edge_loads: str | None,
) -> Box | None:
    """The conditions to adapt to; None where that is not asked for."""
    from onnxopt.errors import UsageError
    from onnxopt.quantities import parse_between, parse_bits, parse_seconds
    from onnxopt.splitting.context import Box, Context

    if adaptive is None:
        if any(text is not None for text in (bandwidths, rtts, device_loads, edge_loads)):
            raise UsageError("ranges are for a plan that adapts", "add --adaptive 3")
        return None
    rates = parse_between(bandwidths or "1.1Mbit..1Gbit", parse_bits)
    trips = (context.rtt_s,) * 2 if rtts is None else parse_between(rtts, parse_seconds)
    device, edge = (parse_between(text or "1", _load) for text in (device_loads, edge_loads))
    least = Context(rates[0], trips[0], device[0], edge[0])
    return Box(least, Context(rates[1], trips[1], device[1], edge[1]))


def _load(text: str) -> float:
    from onnxopt.errors import UsageError

    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise UsageError(f"'{text}' is no load", "write 1..4: as it was measured, to four times")
    return found
