"""How well a profile predicts: profile models, cut them, and measure what was predicted.

    python benchmarks/latency.py MODEL... [--seconds 10] [--flops 0.7,0.5] [--output table.md]

For each model: the profile (with widths); the time of the model itself predicted from its layers
measured alone, as if it were another model; and of versions cut to a share of the FLOPs (weights
alone decide which channels go: only the time matters here). Then the model and its versions are
measured in turns, in runs during which no other work had the processor.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import onnx

import onnxopt
from onnxopt.kernels import named
from onnxopt.latency import predict
from onnxopt.profiling.bench import WARM_UP_S, Asked
from onnxopt.profiling.feeds import drawn
from onnxopt.profiling.measure import measure
from onnxopt.profiling.sessions import Measured
from onnxopt.profiling.spread import LARGEST_TAKEN_SHARE, Run
from onnxopt.profiling.turns import Clock, Turn, take_turns
from onnxopt.small_models import write_kit

HEADER = (
    "| model | version | measured ms | predicted ms | error | as ratio | runs | noise |\n"
    "|---|---|---|---|---|---|---|---|"
)


def calm_ms(runs: list[Run]) -> tuple[float, int]:
    """The median of the runs that nobody disturbed, and how many these are."""
    calm = [run.wall for run in runs if run.taken_share <= LARGEST_TAKEN_SHARE]
    return 1000 * median(calm or [run.wall for run in runs]), len(calm)


def versions(proto: onnx.ModelProto, shares: list[float]) -> dict[str, onnx.ModelProto]:
    made = {"itself": proto}
    for share in shares:
        try:
            options = onnxopt.PruneOptions(multiple_of=8)
            made[f"{share:.0%} FLOPs"] = onnxopt.prune(
                proto, onnxopt.Budget("flops", share), options=options
            ).model
        except onnxopt.OnnxoptError as error:
            print(f"not cut to {share:.0%}: {error}", file=sys.stderr)
    return made


def rows(file: Path, shares: list[float], seconds: float) -> list[str]:
    proto = onnxopt.load(file)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = versions(proto, shares)
        write_kit(proto, folder / "kit", source=str(file), shapes={})
        profile = measure(folder / "kit", Asked(seconds=seconds))
        shapes, turns = profile.settings.shapes, []
        for number, version in enumerate(made.values()):
            onnx.save(named(version), folder / f"{number}.onnx")
            session = Measured(folder / f"{number}.onnx", threads=1)
            feeds = drawn(session.inputs, shapes)
            run = partial(session.run, feeds)
            turns.append(Turn(run, repeats=0, shortest_s=WARM_UP_S))
            turns.append(Turn(run, repeats=0))
        take_turns(turns, seconds, Clock(), lambda done: None)
        measured = [calm_ms(turn.runs) for turn in turns[1::2]]
        lines = []
        guesses = [("alone", proto, measured[0], False)]
        guesses += [
            (name, version, found, True)
            for (name, version), found in zip(made.items(), measured, strict=True)
        ]
        whole = predict(proto, profile).ms
        for name, version, (ms, runs), in_model in guesses:
            guess = predict(version, profile, in_model=in_model)
            ratio = (guess.ms / whole) / (ms / measured[0][0])
            sources = ", ".join(f"{k.value} {v:.0%}" for k, v in guess.shares.items() if v > 0.005)
            noise = profile.noise
            told = f"{noise.low:.2f} to {noise.high:.2f}, {noise.taken_share or 0:.0%} taken"
            lines.append(
                f"| {file.stem} | {name} | {ms:.3f} | {guess.ms:.3f} | {guess.ms / ms - 1:+.1%} "
                f"| {ratio - 1:+.1%} | {runs} | {told} |"
            )
            print(lines[-1], sources, file=sys.stderr)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--flops", default="0.7,0.5")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    shares = [float(text) for text in asked.flops.split(",") if text]
    lines = [HEADER]
    for file in asked.models:
        lines += rows(file, shares, asked.seconds)
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n")
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
