"""Compression and cut together, against the model as it is with all of it on the device.

    python benchmarks/split_seed.py [--data ../shared] [--only PART] [--output FILE.md]

`onnxopt split profile` and `onnxopt split plan --prune` are all that is run, on this machine; the
device is told to be so many times as slow as the edge. There are no labelled images for the larger
models here: their inputs are CIFAR-10 images, enlarged, and their labels are what the model itself
says of them, so that a drop of 2.5 points is 97.5 % agreement, on images that took no part.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from onnxopt.runtime import Session
from onnxopt.splitting.plan_file import Plan, read_plan

Array = np.ndarray[Any, np.dtype[Any]]

SLOWDOWN, RTT_MS, MOST_DROP = 10, 5, 2.5
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
HEAD = """\
| model | Mbit/s | as it is, all on the device | cut alone | pruned, all on the device | together \
| reduction | what it is | kept |
|---|---|---|---|---|---|---|---|---|"""


def normalised(images: Array) -> Array:
    """As ImageNet classifiers of torchvision take them."""
    return np.ascontiguousarray(((images / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))


def centred(images: Array) -> Array:
    """As TensorFlow's MobileNets take them: -1 to 1, channels last."""
    return np.asarray(images / np.float32(127.5) - 1, np.float32)


@dataclass(frozen=True)
class Case:
    """A model, what it is fed with, and how it is asked to be pruned.

    Attributes:
        input, size: its input, and how many pixels that is wide and high.
        prepared: makes the input of images [N, size, size, 3] of bytes.
        axis: along which axis of its first output the classes are.
        used, judging: how many images it is pruned with, and how many only judge.
        budgets: as `--prune` has them.
        labels: the labels of CIFAR-10 are those of the model; its input has open sizes.
    """

    file: str
    input: str
    size: int
    prepared: Callable[[Array], Array]
    axis: int
    used: int
    judging: int
    budgets: str
    labels: bool = False

    @property
    def name(self) -> str:
        return Path(self.file).stem


CASES = (
    Case("cifar10/resnet56.onnx", "input", 32, normalised, 1, 1152, 1017, "0.7,0.5", labels=True),
    Case(
        *("real/mobilenetv2_qat_identity.onnx", "image", 244, normalised, 1, 288, 200),
        "0.9,0.8,0.7,0.6",
    ),
    Case("real/deeplabv3_mnv2_257_nhwc.onnx", "sub_7", 257, centred, 3, 72, 32, "0.97,0.95,0.9"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--only", default="")
    parser.add_argument("--mbits", type=float, nargs="+", default=[5.85, 100, 1000])
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    lines = [HEAD]
    print(HEAD, flush=True)
    for case in (case for case in CASES if asked.only in case.name):
        with tempfile.TemporaryDirectory(prefix="split-seed-") as place:
            for line in rows(case, asked.data, asked.mbits, Path(place)):
                print(line, flush=True)
                lines.append(line)
    if asked.output is not None:
        asked.output.write_text("\n".join(lines) + "\n")


def rows(case: Case, data: Path, mbits: list[float], place: Path) -> Iterator[str]:
    """A row for each link."""
    model = data / "models" / case.file
    samples, labelled = written(case, model, data / "data", place)
    profile = place / "profile.json"
    shape = ("--set-shape", f"input=1,3,{case.size},{case.size}") if case.labels else ()
    command("profile", model, "-o", profile, *shape)
    for rate in mbits:
        plan = place / "plan.json"
        command(
            *("plan", model, "--device", profile, "--device-slowdown", SLOWDOWN),
            *("--bandwidth", f"{rate}Mbit", "--rtt", f"{RTT_MS}ms"),
            *("--raw-input", f"{case.input}={3 * case.size**2}"),
            *("--calibration", samples, "--eval", labelled, "--prune", case.budgets),
            *("--max-drop", MOST_DROP, "--cache", place / "cache"),
            *("--pruned-model", place / "pruned.onnx", "-o", plan),
        )
        yield row(case.name, rate, read_plan(plan))


def written(case: Case, model: Path, data: Path, place: Path) -> tuple[Path, Path]:
    """Files of samples: to prune by, and with labels to judge by."""
    with np.load(data / "cifar10_calibration.npz") as file:
        used = _enlarged(file["x"][: case.used], case)
    with np.load(data / "cifar10_test.npz") as file:
        judging = _enlarged(file["x"][: case.judging], case)
        labels = file["y"][: case.judging]
    if not case.labels:
        session = Session(onnx.load(model), optimized=True)
        first = session.outputs[0].name
        each = (session.run({case.input: judging[n : n + 1]})[first] for n in range(len(judging)))
        labels = np.concatenate([scores.argmax(case.axis) for scores in each])
    samples, labelled = place / "samples.npz", place / "labelled.npz"
    np.savez(samples, allow_pickle=False, **{case.input: used})
    np.savez(labelled, allow_pickle=False, **{case.input: judging, "labels": labels})
    return samples, labelled


def _enlarged(images: Array, case: Case) -> Array:
    size = (case.size, case.size)
    large = [
        np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        for image in images
    ]
    return case.prepared(np.stack(large))


def command(*words: object) -> None:
    full = [sys.executable, "-m", "onnxopt", "split", *map(str, words), "--quiet"]
    subprocess.run(full, check=True)


def row(name: str, mbits: float, plan: Plan) -> str:
    """What the plan says, against the original with everything on the device."""
    original, *pruned = plan.variants
    allowed = [v for v in pruned if not v.why and v.device_s is not None]
    base, chosen = original.device_s, plan.cuts[plan.chosen]
    assert base is not None and original.latency_s is not None
    device = min((v.device_s for v in allowed if v.device_s is not None), default=None)
    best = min((v for v in plan.variants if not v.why), key=lambda v: v.latency_s or 1e9)
    where = "all on the device"
    if chosen.point.is_remote:
        where = f"{chosen.operators} operators on the device, {chosen.codec}"
        where = where if chosen.operators else "all at the edge"
    kept = "" if best.accuracy is None or original.accuracy is None else _kept(original, best)
    cells = (
        *(name, f"{mbits:g}", _ms(base), _ms(original.latency_s)),
        _ms(device) if device else f"none: at {pruned[0].name} {pruned[0].why}",
        *(_ms(chosen.latency_s), f"{chosen.latency_s / base - 1:+.1%}", f"{best.name}; {where}"),
        kept,
    )
    return f"| {' | '.join(cells)} |"


def _kept(original: Any, best: Any) -> str:
    return f"{100 * (best.accuracy - original.accuracy):+.2f} points"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


if __name__ == "__main__":
    main()
