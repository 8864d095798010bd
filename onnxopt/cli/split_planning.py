"""What the options of `split plan` become: budgets, watts, ranges, codecs, pruning."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from onnxopt.cli.options import by_name
from onnxopt.cli.split_plan_options import CodecsChoice, PlanArguments, PrunedPlanArguments

if TYPE_CHECKING:
    from onnxopt.splitting.candidates import Powers
    from onnxopt.splitting.choosing import Budgets
    from onnxopt.splitting.context import Box, Context
    from onnxopt.splitting.manifest import Codec
    from onnxopt.splitting.planning import Wish
    from onnxopt.splitting.pruned_worth import Pruning


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


def wish_of(given: PlanArguments) -> Wish:
    """What kind of plan is wanted, under which conditions."""
    from onnxopt.quantities import parse_bits, parse_count, parse_seconds
    from onnxopt.splitting.baselines import METHODS
    from onnxopt.splitting.choosing import Task
    from onnxopt.splitting.context import Context
    from onnxopt.splitting.planning import Wish

    context = Context(parse_bits(given.bandwidth), parse_seconds(given.rtt))
    named = tuple(filter(None, (given.compare or "").split(",")))
    codecs = codecs_of(given.codec, given.max_error, calibrated=given.calibration is not None)
    return Wish(
        Task(context, given.objective.value, _budgets(given), _powers(given)),
        codecs.allowed,
        _box(given, context),
        given.adaptive or 1,
        by_name("--raw-input", given.raw_input, parse_count),
        tuple(METHODS) if given.compare == "all" else named,
        given.pareto,
        codecs.max_error,
        codecs.notes,
    )


def pruning_asked(given: PrunedPlanArguments, calibration: Path | None) -> Pruning | None:
    """How to prune; None where that is not asked for."""
    from onnxopt.errors import UsageError
    from onnxopt.files import check_target
    from onnxopt.pruning.sweep import parse_sweep
    from onnxopt.quantities import parse_percent
    from onnxopt.splitting.pruned_worth import pruning_of

    if given.prune is None:
        if any(getattr(given, field.name) is not None for field in fields(given)):
            raise UsageError(
                "--eval, --metric, --max-drop, --min-agreement, --pruned-model and --cache say how "
                "to prune",
                "add --prune 0.8,0.6",
            )
        return None
    if given.pruned_model is None:
        raise UsageError(
            "nothing says where to write the pruned model", "add --pruned-model FILE.onnx"
        )
    if given.metric is not None and given.evaluate is None:
        raise UsageError("--metric needs labelled samples", "add --eval FILE.npz")
    check_target(given.pruned_model)
    agreement = None if given.min_agreement is None else parse_percent(given.min_agreement)
    return pruning_of(
        parse_sweep(given.prune),
        calibration,
        given.evaluate,
        given.max_drop,
        agreement,
        metric=given.metric or "top1",
        cache=given.cache,
    )


def _budgets(given: PlanArguments) -> Budgets:
    """What the device may hold and use, and what a request may take."""
    from onnxopt.quantities import parse_count, parse_joules, parse_seconds
    from onnxopt.splitting.choosing import Budgets

    weights, memory = given.max_device_weights, given.max_device_memory
    energy, latency = given.max_energy, given.max_latency
    return Budgets(
        None if weights is None else parse_count(weights),
        None if memory is None else parse_count(memory),
        None if energy is None else parse_joules(energy),
        None if latency is None else parse_seconds(latency),
    )


def _powers(given: PlanArguments) -> Powers | None:
    """What the device draws; None where nothing is said of it."""
    from onnxopt.errors import UsageError
    from onnxopt.splitting.candidates import Powers

    compute, radio, idle = given.device_power, given.radio_power, given.idle_power
    if compute is None and (radio or idle):
        raise UsageError("what the device draws while it computes is missing", "add --device-power")
    if min(compute or 0.0, radio, idle) < 0:
        raise UsageError("watts are not below 0")
    return None if compute is None else Powers(compute, radio, idle)


def _box(given: PlanArguments, context: Context) -> Box | None:
    """The conditions to adapt to; None where that is not asked for."""
    from onnxopt.errors import UsageError
    from onnxopt.quantities import parse_between, parse_bits, parse_seconds
    from onnxopt.splitting.context import Box, Context

    if given.adaptive is None:
        ranges = (given.bandwidths, given.rtts, given.device_loads, given.edge_loads)
        if any(text is not None for text in ranges):
            raise UsageError("ranges are for a plan that adapts", "add --adaptive 3")
        return None
    rates = parse_between(given.bandwidths or "1.1Mbit..1Gbit", parse_bits)
    trips = (context.rtt_s,) * 2
    if given.rtts is not None:
        trips = parse_between(given.rtts, parse_seconds)
    loads = (given.device_loads, given.edge_loads)
    device, edge = (parse_between(text or "1", _load) for text in loads)
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
