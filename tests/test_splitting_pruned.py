"""Pruning and cutting together: the part on the device alone, and with what codecs lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from onnxopt.cli.main import run
from onnxopt.errors import CheckError, UsageError
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.files import write_json
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.sweep import run_sweep
from onnxopt.runtime import Session
from onnxopt.signature import Array
from onnxopt.splitting.codec_errors import coded_cut
from onnxopt.splitting.context import Point
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.device_part import device_part
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.measuring import measure_split
from onnxopt.splitting.operators import read_subject
from onnxopt.splitting.plan_file import PlannedCut, read_plan
from onnxopt.splitting.pruned_search import Models
from onnxopt.splitting.pruned_worth import Judging
from onnxopt.splitting.spots import spots
from onnxopt.splitting.wishes import device_of

NARROWING = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,1,16,16] x) => (float[N,4] y) {
        [first] a = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, w1)
        b = Relu(a)
        [second] c = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(b, w2)
        d = Relu(c)
        e = GlobalAveragePool(d)
        f = Flatten(e)
        g1 = Gemm(f, w3)
        h = Relu(g1)
        [last] y = Gemm(h, w4)
    }
"""
"""What crosses gets smaller, and most weights are at the end."""

SHAPES = {"w1": (16, 1, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 1000), "w4": (1000, 4)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    proto = onnx.parser.parse_model(NARROWING)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        array = rng.standard_normal(shape, dtype=np.float32) / np.float32(4)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    file = tmp_path_factory.mktemp("model") / "narrowing.onnx"
    onnx.save(proto, file)
    return file


@pytest.fixture(scope="module")
def samples(model: Path) -> Path:
    x = np.random.default_rng(1).standard_normal((72, 1, 16, 16), dtype=np.float32)
    file = model.parent / "samples.npz"
    np.savez(file, x=x)
    return file


def _job(samples: Path) -> Job:
    return Job(options=PruneOptions(multiple_of=2), calibration=samples)


def _cut(*tensors: str) -> PlannedCut:
    point = Point(0.0, 0.0, 0.0, 0.0, True)
    return PlannedCut(tensors, (), "none", 1, point, 0, 0, 0.0, None, 0.0, True, ())


def _weights(proto: onnx.ModelProto) -> Mapping[str, Array]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_only_channels_of_the_device_part_go_and_what_crosses_gets_narrower(
    model: Path, samples: Path
) -> None:
    job = _job(samples)
    part = device_part(onnx.load(model), {}, _cut("f"), job)
    assert set(part.kept) == {"g1", "h", "last"} and 0.6 < part.share < 0.8
    fifth = Budget("flops", 0.2)
    assert part.budget(fifth).amount == pytest.approx(1 - 0.8 * part.share)
    assert part.budget(Budget("params", 1e3, relative=False)).amount == 1e3
    store = Models()
    sweep = run_sweep(part.proto, part.job(job), [part.budget(fifth)], source="m", store=store)
    (point,) = sweep.points
    assert point.status in ("met", "missed") and point.cost is not None
    assert point.cost.flops < 0.55 * sweep.before.flops
    made = _weights(store.models[point.name])
    sizes = sorted(array.shape for name, array in made.items() if array.ndim == 2)
    assert (1000, 4) in sizes and any(shape[1] == 1000 and shape[0] < 16 for shape in sizes)


def test_parts_of_what_cannot_be_told_apart_are_refused(model: Path, samples: Path) -> None:
    proto, job = onnx.load(model), _job(samples)
    with pytest.raises(UsageError, match="is of the whole model"):
        device_part(proto, {}, _cut("f"), replace(job, mode="memory"))
    with pytest.raises(UsageError, match="which the model has not"):
        device_part(proto, {}, _cut("nothing"), job)
    part = device_part(proto, {}, _cut("b"), replace(job, mode="params"))
    assert part.share == pytest.approx(144 / (144 + 2304 + 16000 + 4000))


def test_nodes_without_names_and_with_equal_ones_are_told_apart(samples: Path) -> None:
    proto = onnx.parser.parse_model(NARROWING.replace("[second]", "[first]"))
    for name, shape in SHAPES.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        )
    part = device_part(proto, {}, _cut("b"), _job(samples))
    names = [node.name for node in part.proto.graph.node]
    assert len(set(names)) == len(names) and names[2] == "first_0"
    assert part.kept == tuple(names[2:])


def test_what_a_codec_loses_is_part_of_what_is_judged(model: Path, samples: Path) -> None:
    proto = onnx.load(model)
    subject = read_subject(proto)
    judging = Judging(proto, _job(samples))
    device = device_of(subject.dag, _cut("f"))
    fine = coded_cut(subject, device, "fp16")
    assert fine is not None
    kept = judging.kept(fine)
    assert kept.accuracy is None and kept.same_class is not None and kept.same_class > 0.9
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    (last,) = (t for t in other.graph.initializer if t.name == "w4")
    last.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(last), "w4"))
    wrong = coded_cut(read_subject(other), device, "fp16")
    assert wrong is not None
    same = judging.kept(wrong).same_class
    assert same is not None and same < 0.5
    (last,) = (t for t in other.graph.initializer if t.name == "w1")
    last.CopyFrom(onnx.numpy_helper.from_array(np.full(SHAPES["w1"], 1e6, np.float32), "w1"))
    endless = coded_cut(read_subject(other), device, "fp16")
    assert endless is not None
    with pytest.raises(CheckError):
        judging.kept(endless)


def test_the_part_before_the_chosen_cut_is_pruned_and_planned_too(
    model: Path,
    samples: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # what crosses gets narrower on any machine: microseconds of its kernels decide nothing
    monkeypatch.setattr("onnxopt.splitting.pruned_worth.channel_block", lambda: 2)
    subject = read_subject(onnx.load(model))
    cuts = enumerate_cuts(subject.dag)
    asked = Asked(seconds=0.01)
    found = measure_split(subject, cuts, spots(cuts, 3), asked, source=str(model))
    profile, plan, pruned = (tmp_path / name for name in ("p.json", "plan.json", "pruned.onnx"))
    write_json(replace(found, model=read_source(model, onnx.load(model)).digest), profile)
    command = ["split", "plan", str(model), "--device", str(profile), "--bandwidth", "10kbit"]
    command += ["--max-device-weights", "10kB", "--calibration", str(samples), "--prune", "0.2"]
    command += ["--min-agreement", "20%", "--pruned-model", str(pruned), "-o", str(plan)]
    assert run(command) == 0
    made = read_plan(plan)
    names = [entry.name for entry in made.variants]
    assert names[:2] == ["the original", "20% of the FLOPs"]
    assert any(name.startswith("20% of the FLOPs before ") for name in names[2:])
    first = made.variants[0].latency_s
    chosen = made.cuts[made.chosen]
    assert first is not None and chosen.latency_s < 0.98 * first
    assert chosen.operators and chosen.point.is_remote
    session = Session(onnx.load(pruned))
    assert session.run({"x": np.zeros((2, 1, 16, 16), np.float32)})["y"].shape == (2, 4)
    capsys.readouterr()
    export = ["split", "export", str(pruned), "--plan", str(plan), "-o", str(tmp_path / "out")]
    assert run([*export, "-q"]) == 0
