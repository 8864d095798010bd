"""How well a profile predicts: profile models, cut them, and measure what was predicted.

    python benchmarks/latency.py MODEL[@INPUT=1,3,224,224]... [--seconds 10] [--flops 0.7,0.5]
        [--time 0.7,0.5] [--repeats 3] [--output table.md]

For each model: the profile (with widths); the time of the model itself predicted from its layers
measured alone, as if it were another model; of versions cut to a share of the FLOPs; and of those
that a budget of time leads to, blocks and widths chosen together by a profile of their own. Only
the time matters here: weights alone, or drawn samples, decide what goes. The model and its
versions are measured in the same turns, and runs during which other work had the processor are left
out; of the others the faster half counts. All of that several times: the middle one by its error is
shown, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

import onnxopt
from onnxopt.calibration import Calibration
from onnxopt.cli.options import by_name
from onnxopt.cli.options import shape as read_shape
from onnxopt.fixed_shapes import fix_shapes
from onnxopt.kernels import named
from onnxopt.latency import predict
from onnxopt.profiling.bench import WARM_UP_S, Asked
from onnxopt.profiling.feeds import drawn, input_shapes
from onnxopt.profiling.machine import machine
from onnxopt.profiling.measure import measure
from onnxopt.profiling.sessions import Measured
from onnxopt.profiling.spread import Run, calmest, undisturbed
from onnxopt.profiling.turns import Turn
from onnxopt.pruning.results import Pruned
from onnxopt.signature import model_inputs
from onnxopt.small_models import write_kit

SAMPLES = 16
"""Drawn, where a budget of time lets blocks go."""

HEADER = (
    "| model | version | measured ms | predicted ms | error (of all tries) | calm runs "
    "| taken by others | where the times come from |\n"
    "|---|---|---|---|---|---|---|---|"
)


def calm_ms(runs: list[Run]) -> tuple[float, int]:
    """Of the runs that nobody disturbed: the mean of the faster half, and how many there are."""
    calm = [run.wall for run in calmest(runs)]
    return 1000 * undisturbed(calm), len(calm)


def versions(
    proto: onnx.ModelProto, shares: list[float], times: list[float]
) -> dict[str, onnx.ModelProto]:
    """The model, and what is left of it at these shares of its FLOPs and of its time."""
    made = {"itself": proto}
    for share in shares:
        options = onnxopt.PruneOptions(multiple_of=8)
        if pruned := _pruned(proto, onnxopt.Budget("flops", share), None, options):
            made[f"{share:.0%} FLOPs"] = pruned.model
    given = _samples(proto) if times else None
    for share in times:
        options = onnxopt.PruneOptions(multiple_of=8, relaxed=True, compensation="none")
        if pruned := _pruned(proto, onnxopt.Budget("latency", share), given, options):
            depths = [done.depth for done in pruned.rounds if done.depth is not None]
            gone = sum(len(depth.gone) for depth in depths)
            made[f"{share:.0%} time, {gone} blocks gone"] = pruned.model
    return made


def _pruned(
    proto: onnx.ModelProto,
    budget: onnxopt.Budget,
    given: Calibration | None,
    options: onnxopt.PruneOptions,
) -> Pruned | None:
    try:
        return onnxopt.prune(proto, budget, given, options)
    except onnxopt.OnnxoptError as error:
        print(f"not cut to {budget}: {error}", file=sys.stderr)
        return None


def _samples(proto: onnx.ModelProto) -> Calibration:
    """Drawn ones: they only decide what goes."""
    ports, rng = model_inputs(proto), np.random.default_rng(0)
    arrays = {}
    for port in ports:
        sizes = [dim if isinstance(dim, int) else 1 for dim in port.dims or ()]
        arrays[port.name] = rng.standard_normal((SAMPLES, *sizes[1:])).astype(port.dtype)
    return Calibration.from_arrays(arrays, ports)


@dataclass(frozen=True)
class Guess:
    """One version: measured and predicted, and how noisy it was."""

    measured_ms: float
    predicted_ms: float
    calm: int
    taken: float
    sources: str

    @property
    def error(self) -> float:
        return self.predicted_ms / self.measured_ms - 1


def once(
    proto: onnx.ModelProto, made: dict[str, onnx.ModelProto], seconds: float, folder: Path
) -> dict[str, Guess]:
    """Profile, predict, and measure in turns."""
    if not (folder / "kit").is_dir():
        write_kit(proto, folder / "kit", source="", shapes={})
    turns = []
    for number, version in enumerate(made.values()):
        file = folder / f"{number}.onnx"
        onnx.save(named(version), file)
        session = Measured(file, threads=1)
        run = partial(session.run, drawn(session.inputs, input_shapes(session.inputs, {}, None)))
        turns.append(Turn(run, repeats=0, shortest_s=WARM_UP_S))
        turns.append(Turn(run, repeats=0))
    profile = measure(folder / "kit", Asked(seconds=seconds), beside=turns)
    measured = dict(zip(made, (calm_ms(turn.runs) for turn in turns[1::2]), strict=True))
    cases = {"itself, layers alone": (proto, measured["itself"], False)}
    cases |= {name: (version, measured[name], True) for name, version in made.items()}
    found = {}
    for name, (version, (ms, calm), in_model) in cases.items():
        guess = predict(version, profile, in_model=in_model)
        sources = ", ".join(f"{k.value} {v:.0%}" for k, v in guess.shares.items() if v > 0.005)
        found[name] = Guess(ms, guess.ms, calm, profile.noise.taken_share or 0.0, sources)
        print(f"  {name}: {ms:.3f} {guess.ms:.3f} {found[name].error:+.1%}", file=sys.stderr)
    return found


def rows(
    file: Path,
    shapes: dict[str, tuple[int, ...]],
    shares: list[float],
    times: list[float],
    seconds: float,
    repeats: int,
) -> list[str]:
    proto = fix_shapes(onnxopt.load(file), shapes)
    print(file.stem, file=sys.stderr)
    made = versions(proto, shares, times)
    with tempfile.TemporaryDirectory() as temporary:
        tries = [once(proto, made, seconds, Path(temporary)) for _ in range(repeats)]
    lines = []
    for name in tries[0]:
        guesses = sorted((found[name] for found in tries), key=lambda guess: guess.error)
        middle = guesses[len(guesses) // 2]
        errors = f"{middle.error:+.1%} ({guesses[0].error:+.1%} to {guesses[-1].error:+.1%})"
        taken = max(guess.taken for guess in guesses)
        lines.append(
            f"| {file.stem} | {name} | {middle.measured_ms:.3f} | {middle.predicted_ms:.3f} "
            f"| {errors} | {middle.calm} | {taken:.0%} | {middle.sources} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--flops", default="0.7,0.5")
    parser.add_argument("--time", default="0.7,0.5")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    shares, times = (
        [float(text) for text in given.split(",") if text] for given in (asked.flops, asked.time)
    )
    where = machine()
    lines = [
        "# Predicted and measured time\n",
        f"`python {' '.join(sys.argv)}`\n",
        f"{where.processor}, {where.cores} cores, onnxruntime {where.onnxruntime}, 1 thread.\n",
        HEADER,
    ]
    for text in asked.models:
        file, _, shape = text.partition("@")
        shapes = by_name("the shape", [shape] if shape else [], read_shape)
        lines += rows(Path(file), shapes, shares, times, asked.seconds, asked.repeats)
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
