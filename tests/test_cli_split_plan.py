"""`onnxopt split profile` and `onnxopt split plan`, as a user types them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest

from onnxopt.cli.main import run
from onnxopt.profiling.files import write_json
from onnxopt.splitting.plan_file import read_plan
from onnxopt.splitting.profile_file import read_split_profile

MODELS = Path(__file__).parent.parent / "models"
DIGITS = str(MODELS / "digits_resnet.onnx")
LINK = ("--bandwidth", "100kbit", "--rtt", "1ms")
SLOW = ("--edge-speedup", "10", "--device-slowdown", "200")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("profile") / "device.json"
    command = ["split", "profile", DIGITS, "-o", str(file), "--cuts", "2", "--quiet"]
    assert run([*command, "--seconds", "0.01"]) == 0
    return str(file)


def _out(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["profile", "plan"])
def test_the_help_teaches_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["split", command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text and f"onnxopt split {command}" in text and "Exit codes" in text


def test_a_profile_has_the_whole_both_sides_nodes_and_codecs(profile: str) -> None:
    found = read_split_profile(Path(profile))
    assert found.whole_us.median > 0 and len(found.cuts) == 2
    for cut in found.cuts:
        assert cut.prefix_us is not None and cut.suffix_us is not None
    assert [entry.codec for entry in found.codecs] == ["fp16", "uint8"]
    assert found.placed > 0.5 and sum(found.nodes_us) > 0 and sum(found.unfused_us) > 0
    assert all(len(group) > 1 for group in found.kernels)


def test_the_plan_is_a_table_that_names_its_assumptions_and_says_when_nothing_is_split(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", "plan", DIGITS, "--device", profile, *LINK, *SLOW]) == 0
    text = _out(capsys)
    for word in ("least latency at 100 kbit/s", "best", "all on the device", "all at the edge"):
        assert word in text
    assert "taken to need 0.1 times as long" in text
    command = ["split", "plan", DIGITS, "--device", profile, "--bandwidth", "1kbit"]
    assert run(command) == 0
    assert "does not split the model: all of it runs on the device" in _out(capsys)


def test_a_plan_can_be_compared_exported_and_measured(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    command = ["split", "plan", DIGITS, "--device", profile, *LINK, *SLOW, "-o", str(plan)]
    more = ["--adaptive", "2", "--bandwidths", "10kbit..1Gbit", "--edge-loads", "1..4"]
    assert run([*command, *more, "--compare", "all", "--pareto"]) == 0
    text = _out(capsys)
    for word in ("Cuts to adapt with", "gads", "neurosurgeon", "No other plan is better"):
        assert word in text
    made = read_plan(plan)
    out = tmp_path / "out"
    export = ["split", "export", DIGITS, "--plan", str(plan), "-o", str(out), "--no-verify"]
    assert run([*export, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert [cut["codec"] for cut in manifest["cuts"]] == [
        cut.codec if cut.point.is_remote else "none" for cut in made.cuts
    ]
    assert manifest["chosen"] == made.chosen
    again = ["split", "profile", DIGITS, "--plan", str(plan), "--seconds", "0.01", "--json"]
    assert run([*again, "--cuts", "2"]) == 0
    names = [tuple(cut["tensors"]) for cut in json.loads(capsys.readouterr().out)["cuts"]]
    planned = [cut.tensors for cut in (*made.cuts, *made.best)]
    assert set(names) <= set(planned) or len(made.cuts) <= 3


def test_the_error_of_a_codec_is_measured_on_calibration_data(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = str(MODELS / "digits_resnet_calibration.npz")
    command = ["split", "plan", DIGITS, "--device", profile, "--bandwidth", "1Mbit", *SLOW]
    assert run([*command, "--codec", "uint8", "--calibration", samples, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    errors = [cut["error"] for cut in plan["cuts"]]
    assert all(error is not None and error < 0.2 for error in errors)
    assert plan["cuts"][plan["chosen"]]["codec"] == "uint8" and errors[plan["chosen"]] > 0


def test_without_samples_no_codec_is_chosen_that_may_change_much(
    profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["split", "plan", DIGITS, "--device", profile, "--bandwidth", "1Mbit", *SLOW]
    assert run([*command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    codecs = {cut["codec"] for cut in (*plan["cuts"], *plan["best"])}
    assert codecs <= {"none", "fp16"}
    assert "without --calibration nothing is known" in " ".join(plan["notes"])


@pytest.mark.parametrize("most", [None, "0.02%", "0%"])
def test_auto_keeps_the_bound_on_the_error_of_codecs(
    profile: str, most: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = str(MODELS / "digits_resnet_calibration.npz")
    command = ["split", "plan", DIGITS, "--device", profile, "--bandwidth", "1Mbit", *SLOW]
    command += ["--calibration", samples, "--json"]
    assert run([*command, *(("--max-error", most) if most else ())]) == 0
    plan = json.loads(capsys.readouterr().out)
    bound = 0.01 if most is None else float(most[:-1]) / 100
    assert all(cut["error"] <= bound for cut in (*plan["cuts"], *plan["best"]))


def test_a_pruned_version_is_chosen_where_it_is_better_and_loses_no_more_than_it_may(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(MODELS / "digits_resnet_calibration.npz") as archive:
        few = {name: archive[name][:160] for name in archive.files}
    samples = str(tmp_path / "samples.npz")
    np.savez(samples, **few)
    pruned, plan, out = (tmp_path / name for name in ("pruned.onnx", "plan.json", "out"))
    command = ["split", "plan", DIGITS, "--device", profile, "--bandwidth", "1kbit"]
    command += ["--prune", "0.4", "--calibration", samples, "--pruned-model", str(pruned)]
    assert run([*command, "--min-agreement", "85%", "-o", str(plan)]) == 0
    assert "40% of the FLOPs" in _out(capsys)
    made = read_plan(plan)
    original, variant = made.variants
    assert not variant.why and variant.same_class is not None and variant.same_class >= 0.85
    assert original.latency_s is not None and variant.latency_s is not None
    if variant.latency_s < original.latency_s:  # on a busy machine that may be otherwise
        assert made.source == str(pruned) and pruned.is_file()
        export = ["split", "export", str(pruned), "--plan", str(plan), "-o", str(out)]
        assert run([*export, "--no-verify", "--quiet"]) == 0


def test_the_metric_that_is_asked_for_judges_pruned_versions_and_a_cache_keeps_their_pieces(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(MODELS / "digits_resnet_calibration.npz") as archive:
        np.savez(tmp_path / "samples.npz", **{n: archive[n][:64] for n in archive.files})
    with np.load(MODELS / "digits_resnet_test.npz") as archive:
        # the first guess is wrong, others need not be
        labels = (archive["labels"] + 1) % 10
        np.savez(tmp_path / "test.npz", image=archive["image"][:40], labels=labels[:40])
    command = ["split", "plan", DIGITS, "--device", profile, "--bandwidth", "1Mbit"]
    command += ["--prune", "0.6", "--calibration", str(tmp_path / "samples.npz")]
    command += ["--eval", str(tmp_path / "test.npz"), "--max-drop", "1"]
    command += ["--cache", str(tmp_path / "cache"), "--pruned-model", str(tmp_path / "pruned.onnx")]
    found = {}
    for metric in ("top1", "top5"):
        assert run([*command, "--metric", metric, "--json"]) == 0
        found[metric] = json.loads(capsys.readouterr().out)["variants"][0]["accuracy"]
    assert found["top1"] < 0.1 < found["top5"]
    assert any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--max-device-memory", "1B"), 1, "memory on the device cannot be below"),
        (("--max-latency", "1us"), 1, "above the budget of"),
        (("--objective", "energy"), 2, "--device-power"),
        (("--radio-power", "1"), 2, "--device-power"),
        (("--compare", "magic"), 2, "no method 'magic'"),
        (("--rtt", "5"), 2, "50ms"),
        (("--bandwidth", "0Mbit"), 2, "above 0"),
        (("--adaptive", "1", "--bandwidths", "1Gbit..1Mbit"), 2, "ends before it begins"),
        (("--adaptive", "1", "--edge-loads", "none"), 2, "is no load"),
        (("--edge-speedup", "0"), 2, "above 0"),
        (("--raw-input", "y=1"), 2, "no input 'y'"),
        (("--edge-loads", "1..4"), 2, "--adaptive 3"),
        (("--max-error", "1%"), 2, "add --calibration"),
        (("--max-drop", "1"), 2, "--prune"),
        (("--metric", "top5"), 2, "say how to prune"),
        (("--prune", "0.5"), 2, "--pruned-model"),
        (("--prune", "0.5", "--pruned-model", "p.onnx", "--metric", "mse"), 2, "--metric needs"),
        (("--prune", "0.5", "--pruned-model", "p.onnx"), 2, "how much may be lost"),
        (("--prune", "0.5", "--pruned-model", "p.onnx", "--max-drop", "1"), 2, "--eval"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    profile: str,
    options: tuple[str, ...],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["split", "plan", DIGITS, "--device", profile, "--bandwidth", "1Mbit"]
    assert run([*command, *options]) == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_profiles_of_other_models_and_other_sizes_are_refused(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_split_profile(Path(profile))
    other = tmp_path / "other.json"
    write_json(replace(found, model="0" * 64), other)
    command = ["split", "plan", DIGITS, "--device", profile, "--edge", str(other), *LINK]
    assert run(command) == 2
    assert "profile of another model" in capsys.readouterr().err
    settings = replace(found.settings, shapes={"x": (9, 9)})
    write_json(replace(found, settings=settings), other)
    assert run(command) == 2
    assert "different sizes" in capsys.readouterr().err
    write_json(replace(found, nodes_us=(-1.0, *found.nodes_us[1:])), other)
    assert run(command) == 2
    assert "negative or endless" in capsys.readouterr().err
    plan = ["split", "profile", DIGITS, "--plan", profile]
    assert run(plan) == 2
    assert "is not a plan" in capsys.readouterr().err


def test_a_model_that_does_not_load_is_told_of_and_not_a_half_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load(DIGITS)
    last = next(node for node in reversed(proto.graph.node) if node.op_type == "Relu")
    last.attribute.append(onnx.helper.make_attribute("axes", [1]))
    broken, out = tmp_path / "broken.onnx", tmp_path / "device.json"
    broken.write_bytes(proto.SerializeToString())
    assert run(["split", "profile", str(broken), "-o", str(out), "--quiet"]) == 3
    said = capsys.readouterr().err
    assert "the model is not valid ONNX" in said and "suffix" not in said
    assert not out.exists()
