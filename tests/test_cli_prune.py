"""`onnxopt prune` as a user meets it: what is printed and written, and every kind of bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import timed_models
from judge import REPOSITORY, model

import onnxopt
from onnxopt.calibration import load_calibration
from onnxopt.cli.main import run
from onnxopt.cli.pruning_options import (
    AugmentChoice,
    CompensationChoice,
    CriterionChoice,
    StrategyChoice,
)
from onnxopt.pruning.compensate import Compensation
from onnxopt.pruning.criteria import Criterion
from onnxopt.pruning.options import Strategy
from onnxopt.pruning.plan import Augment
from onnxopt.signature import model_inputs

MODELS = REPOSITORY / "models"
DIGITS = str(MODELS / "digits_resnet.onnx")
CALIBRATION = str(MODELS / "digits_resnet_calibration.npz")
TEST = str(MODELS / "digits_resnet_test.npz")
SAMPLED = ["--calibration", CALIBRATION, "--samples", "60"]
SCHEMA = Path(onnxopt.__file__).parent / "report" / "pruning_schema.json"
SMALL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,3] y)
{ h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }"""


def small(path: Path, *, is_input: bool = False, dtype: Any = np.float32) -> str:
    """A model of two products, in a file."""
    proto = model(SMALL)
    rng = np.random.default_rng(0)
    for name, shape in (("a", (4, 16)), ("b", (16, 3))):
        array = rng.standard_normal(shape).astype(dtype)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        if is_input:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    if dtype == np.float16:
        for info in (*proto.graph.input, *proto.graph.output):
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(proto, path)
    return str(path)


def write(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def images() -> Any:
    return np.load(CALIBRATION)["image"]


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """What a command says that fails."""
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") <= 2, err
    return str(err)


def test_the_choices_are_those_of_the_library() -> None:
    for choices, literal in (
        (CriterionChoice, Criterion),
        (StrategyChoice, Strategy),
        (CompensationChoice, Compensation),
        (AugmentChoice, Augment),
    ):
        assert tuple(c.value for c in choices) == get_args(literal)


def test_prune_writes_model_plan_and_reports_and_a_plan_replays_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxopt.pruning.approach.ONE_ROUND", 0.45)  # a plan of two rounds
    out, again, plan = (str(tmp_path / name) for name in ("a.onnx", "b.onnx", "plan.json"))
    reports = [str(tmp_path / name) for name in ("r.md", "r.json")]
    options = ["--flops", "0.4", "--eval", TEST, "--save-plan", plan, "--prove"]
    options += ["--report", reports[0], "--report", reports[1]]
    assert run(["prune", DIGITS, out, *SAMPLED, *options]) == 0
    shown = capsys.readouterr().out
    for part in ("FLOPs", "met; top1 99.78% -> ", "agreement on 450 labelled samples", "1 thread"):
        assert part in " ".join(shown.split())
    report = json.loads(Path(reports[1]).read_text())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["after"]["macs"] == pytest.approx(0.4 * report["before"]["macs"], rel=0.01)
    assert len(report["rounds"]) == 2 and report["calibration"]["used"] == 60
    assert "## Groups of channels" in Path(reports[0]).read_text()
    assert run(["prune", DIGITS, again, "--calibration", CALIBRATION, "--plan", plan, "-q"]) == 0
    assert Path(out).read_bytes() == Path(again).read_bytes()
    assert capsys.readouterr().out == ""


def test_samples_can_be_mirrored_and_a_plan_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again, plain = (str(tmp_path / f"{name}.onnx") for name in ("a", "b", "c"))
    plan, report = str(tmp_path / "p.json"), str(tmp_path / "r.json")
    asked = [*SAMPLED, "--flops", "0.7", "-q"]
    flip = ["--augment", "flip", "--save-plan", plan, "--report", report]
    assert run(["prune", DIGITS, out, *asked, *flip]) == 0
    assert run(["prune", DIGITS, again, "--calibration", CALIBRATION, "--plan", plan, "-q"]) == 0
    assert run(["prune", DIGITS, plain, *asked]) == 0
    made, replayed, other = (Path(path).read_bytes() for path in (out, again, plain))
    assert made == replayed != other
    calibration = json.loads(Path(report).read_text())["calibration"]
    assert calibration["used"] == 120 and "with mirror images" in calibration["origin"]
    both = ["--plan", plan, "--augment", "flip", "--calibration", CALIBRATION]
    assert "--augment is decided by the plan" in failed(["prune", DIGITS, out, *both], capsys)
    without = ["prune", DIGITS, out, "--flops", "0.7", "--augment", "flip"]
    assert "there are none" in failed(without, capsys)


def test_json_is_all_that_is_printed_and_follows_its_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.onnx")
    assert run(["prune", small(tmp_path / "m.onnx"), out, "--params", "50%", "--json"]) == 0
    shown, errors = capsys.readouterr()
    data = json.loads(shown)
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(data, schema)
    assert set(data) == set(schema["properties"]) == set(schema["required"])
    assert data["output"] == out and data["agreement"] is None and errors == ""
    assert any("no calibration data" in note for note in data["notes"])


def test_with_the_profile_of_a_device_all_reports_tell_the_time_that_is_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = str(timed_models.device_file(timed_models.of_device(onnx.load(DIGITS)), tmp_path))
    files = [str(tmp_path / name) for name in ("out.onnx", "r.json", "r.md", "plan.json")]
    out, as_json, as_markdown, plan = files
    wanted = ["--latency", "-25%", "--profile", device, "--compensation", "none"]
    reports = ["--report", as_json, "--report", as_markdown, "--save-plan", plan]
    assert run(["prune", DIGITS, out, *wanted, *reports]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    data = json.loads(Path(as_json).read_text())
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))
    found = data["latency"]
    assert (found["asked"], found["measured"], found["machine"]) == (0.75, None, "a device")
    assert data["budget"]["reached"] == pytest.approx(found["predicted"] * found["original_ms"])
    line = f"asked for 0.750 of the original's, predicted {found['predicted']:.3f}, not measured"
    for text in (shown, Path(as_markdown).read_text()):
        assert "asked for 75% of the time, predicted to be met" in text
        assert line in text and "not confirmed" in text
    again = str(tmp_path / "again.onnx")
    assert run(["prune", DIGITS, again, "--plan", plan]) == 0
    assert Path(again).read_bytes() == Path(out).read_bytes()
    assert "asked for 75% of the time" in capsys.readouterr().out


def test_a_dry_run_with_a_budget_of_time_shows_shares_of_the_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = str(timed_models.device_file(timed_models.of_device(onnx.load(DIGITS)), tmp_path))
    wanted = ["--latency", "0.75", "--profile", device]
    assert run(["prune", DIGITS, "--dry-run", *wanted, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert all(group["would_keep"] for group in data["groups"])
    assert any("a dry run predicts it" in note for note in data["notes"])


def test_the_output_may_be_the_input(tmp_path: Path) -> None:
    path = small(tmp_path / "m.onnx")
    assert run(["prune", path, path, "--params", "-50%", "-q"]) == 0
    assert sum(np.prod(t.dims) for t in onnx.load(path).graph.initializer) == 56
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_optimize_with_a_budget_prunes_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.onnx")
    source = small(tmp_path / "m.onnx")
    assert run(["optimize", source, out, "--params", "0.5", "--skip", "deduplicate"]) == 0
    assert "asked for 50% of the parameters, met" in capsys.readouterr().out
    assert sum(np.prod(t.dims) for t in onnx.load(out).graph.initializer) == 56


def test_what_optimize_may_not_rewrite_stays_in_the_pruned_model_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = onnx.load(small(tmp_path / "m.onnx"))
    proto.graph.node.append(onnx.helper.make_node("Identity", ["y"], ["z"], "kept"))
    proto.graph.output[0].name = "z"
    source, out = str(tmp_path / "n.onnx"), str(tmp_path / "out.onnx")
    onnx.save(proto, source)
    options = ["optimize", source, out, "--params", "0.5", "--skip", "remove-identity"]
    assert run([*options, "-q"]) == 0
    assert [node.name for node in onnx.load(out).graph.node][-1] == "kept"
    assert run([*options[:-2], "-q"]) == 0
    assert "Identity" not in [node.op_type for node in onnx.load(out).graph.node]
    plan = ["--save-plan", str(tmp_path / "p.json")]
    assert "a plan does not hold --skip" in failed([*options, *plan], capsys)


def test_a_dry_run_shows_groups_and_what_is_declined_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["prune", DIGITS, "--dry-run", *SAMPLED, "--flops", "0.5"]) == 0
    shown = capsys.readouterr().out
    for part in ("/stem/stem.0", "exact", "would keep", "'logits' is an output of the model"):
        assert part in shown
    assert run(["prune", DIGITS, "--dry-run", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "onnxopt-pruning-preview/1" and len(data["groups"]) == 9
    assert data["groups"][0]["would_keep"] is None and data["declined"][0]["channels"] == 10
    assert list(tmp_path.iterdir()) == []


def test_a_drop_that_is_allowed_is_searched_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--calibration", CALIBRATION, "--samples", "60", "--compensation", "scale"]
    options += ["--eval", TEST, "--max-drop", "3", "--multiple-of", "4", "--json"]
    assert run(["prune", DIGITS, str(tmp_path / "out.onnx"), *options]) == 0
    data = json.loads(capsys.readouterr().out)
    accuracy = data["accuracy"]
    assert accuracy["before"] - accuracy["after"] <= 0.03
    assert data["after"]["macs"] < 0.95 * data["before"]["macs"]
    assert data["budget"]["text"].startswith("the largest cut that loses at most 3 points of top1")


METRICS = """
import numpy as np
def worthless(outputs, labels): return float("nan")
def infinite(outputs, labels): return float("inf")
def narrow(outputs, labels):
    right = (outputs["logits"].argmax(1) == labels).mean()
    return right if right > 0.99 else float("nan")
"""


def labelled(**changed: Any) -> dict[str, Any]:
    return {**np.load(TEST), **changed}


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (lambda y: y.astype(np.float32), [], "top1 cannot judge"),
        (lambda y: y + 5, [], "there are labels from 5 to 14"),
        (lambda y: y, ["--metric", "mse"], "mse cannot compare"),
        (lambda y: y, ["--metric", ""], "there is no metric ''"),
        (lambda y: y, ["--metric", "metrics_of_test:worthless"], "the metric gives nan"),
        (lambda y: y, ["--metric", "metrics_of_test:infinite"], "the metric gives inf"),
    ],
    ids=["floats", "range", "mse", "unnamed", "nan", "inf"],
)
def test_labels_that_cannot_be_judged_are_refused_before_anything_is_cut(
    labels: Callable[[Any], Any],
    options: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "metrics_of_test.py").write_text(METRICS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("onnxopt.pruning.job.Pruner.at", lambda self, budget: pytest.fail("cut"))
    data = write(tmp_path / "e.npz", **labelled(labels=labels(np.load(TEST)["labels"])))
    out = tmp_path / "out.onnx"
    arguments = ["prune", DIGITS, str(out), "--flops", "0.5", "--eval", data, *options]
    assert said in failed(arguments, capsys)
    assert not out.exists()


def test_a_metric_that_is_no_number_for_deep_cuts_does_not_end_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics_of_test.py").write_text(METRICS)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--eval", TEST, "--metric", "metrics_of_test:narrow", "--max-drop", "0.01", "--json"]
    assert run(["prune", DIGITS, str(tmp_path / "out.onnx"), *options]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert 0.99 < accuracy["after"] <= accuracy["before"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.reshape(300, 64), "is 64, but the input 'image' is float32[batch,1,8,8]"),
        (lambda x: x.transpose(0, 2, 3, 1), "the channels come last"),
        (lambda x: (x * 9).astype(np.uint8), "normalise as in training"),
        (lambda x: np.where(np.arange(64).reshape(8, 8) == 5, np.nan, x), "NaN or infinity"),
        (lambda x: x[:9], "holds 9 samples, but at least 16 are needed"),
        (lambda x: np.repeat(x[:1], 50, 0), "are all the same"),
        (lambda x: x * np.float32(1e30), "normalised as in training"),
    ],
    ids=["flat", "layout", "dtype", "nan", "few", "constant", "huge"],
)
def test_calibration_data_that_does_not_fit_is_refused_and_nothing_is_written(
    change: Callable[[Any], Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data.npz", image=change(images()).astype(change(images()).dtype))
    out = tmp_path / "out.onnx"
    plan, report = str(tmp_path / "p.json"), str(tmp_path / "r.md")
    arguments = ["prune", DIGITS, str(out), "--flops", "0.5", "--calibration", data]
    assert said in failed([*arguments, "--save-plan", plan, "--report", report], capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["data.npz"]


@pytest.mark.parametrize("piece", ["analysis.rank", "rounds.compensate"])
def test_a_bug_in_the_statistics_is_not_told_as_a_fault_of_the_samples(
    piece: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(f"onnxopt.pruning.{piece}", broken)
    arguments = ["prune", DIGITS, str(tmp_path / "out.onnx"), "--flops", "0.5", *SAMPLED]
    assert run(arguments) == 1
    assert "a bug in onnxopt: ValueError" in capsys.readouterr().err


def test_a_scalar_input_takes_part_in_all_that_samples_are_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = small(tmp_path / "m.onnx")
    proto = onnx.load(source)
    proto.graph.input.insert(0, onnx.helper.make_tensor_value_info("gain", 1, ()))
    proto.graph.node.insert(1, onnx.helper.make_node("Mul", ["h", "gain"], ["scaled"]))
    proto.graph.node[2].input[0] = "scaled"
    onnx.save(proto, source)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 300)
    data = write(tmp_path / "d.npz", x=x, gain=np.float32(2), labels=labels)
    out = str(tmp_path / "out.onnx")
    arguments = ["prune", source, out, "--params", "0.5", "--multiple-of", "1", "--json"]
    arguments += ["--calibration", data, "--eval", data]
    assert run(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(group["measured"] for each in report["rounds"] for group in each["groups"])
    assert any(refit["kept"] for each in report["rounds"] for refit in each["refits"])


def test_a_model_without_anything_to_cut_is_refused_with_the_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = small(tmp_path / "m.onnx", is_input=True)
    said = failed(["prune", frozen, str(tmp_path / "out.onnx"), "--params", "0.5"], capsys)
    assert "can be removed: MatMul making 'h': callers may override the init" in said
    assert "fix: --freeze-inputs says that callers leave these weights" in said


def test_samples_in_the_range_of_raw_pixels_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = np.abs(images()) / np.abs(images()).max() * np.float32(255)
    data = write(tmp_path / "data.npz", image=raw)
    arguments = ["--flops", "0.8", "--calibration", data, "--compensation", "none"]
    assert run(["prune", DIGITS, str(tmp_path / "out.onnx"), *arguments]) == 0
    assert "as raw pixels do" in " ".join(capsys.readouterr().out.split())


def test_what_is_written_overwrites_nothing_that_is_read_or_written_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = small(tmp_path / "m.onnx"), str(tmp_path / "o.onnx")
    data = write(tmp_path / "data.npz", x=np.eye(40, 4, dtype=np.float32), labels=np.zeros(40, int))
    json_file = str(tmp_path / "r.json")
    for arguments in (
        [data, "--params", "0.5", "--calibration", data],
        [data, "--params", "0.5", "--eval", data],
        [out, "--params", "0.5", "--calibration", data, "--save-plan", data],
        [out, "--params", "0.5", "--report", json_file, "--save-plan", json_file],
        [out, "--params", "0.5", "--report", json_file, "--report", json_file],
        [out, "--params", "0.5", "--save-plan", out],
        [str(tmp_path / "o.onnxtxt"), "--calibration", "none.npz", "--params", "0.5"],
    ):
        said = failed(["prune", source, *arguments], capsys)
        assert "would overwrite" in said or "is only read" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.npz", "m.onnx"]


def test_a_plan_is_for_one_model_and_one_set_of_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, plan = small(tmp_path / "m.onnx"), str(tmp_path / "o.onnx"), tmp_path / "p.json"
    rng = np.random.default_rng(1)
    first, second = (
        write(tmp_path / name, x=rng.standard_normal((40, 4)).astype(np.float32))
        for name in ("a.npz", "b.npz")
    )
    options = ["--params", "0.5", "--calibration", first, "--save-plan", str(plan), "-q"]
    assert run(["prune", source, out, *options]) == 0
    capsys.readouterr()
    replay = ["prune", source, out, "--plan", str(plan)]
    assert "there are none" in failed(replay, capsys)
    assert "not those that the plan" in failed([*replay, "--calibration", second], capsys)
    other = ["prune", DIGITS, out, "--plan", str(plan), "--calibration", first]
    assert "made for another model" in failed(other, capsys)
    assert run([*replay, "--calibration", first, "-q"]) == 0
    for beside in (["--freeze-inputs"], ["--set-shape", "x=2,4"], ["--seed", "0"]):
        assert "is decided by the plan" in failed([*replay, *beside], capsys)
    data = json.loads(plan.read_text())
    data["rounds"][0]["groups"][0]["name"] = "elsewhere"
    plan.write_text(json.dumps(data))
    assert "not those of this model" in failed([*replay, "--calibration", first], capsys, 1)


def test_weights_that_are_inputs_are_declined_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = small(tmp_path / "m.onnx", is_input=True), str(tmp_path / "out.onnx")
    assert "--freeze-inputs" in failed(["prune", source, out, "--params", "0.5"], capsys)
    assert not Path(out).exists()
    assert run(["prune", source, out, "--params", "0.5", "--freeze-inputs", "-q"]) == 0
    assert Path(out).exists()


def test_float16_models_are_pruned(tmp_path: Path) -> None:
    source, out = small(tmp_path / "m.onnx", dtype=np.float16), str(tmp_path / "out.onnx")
    rng = np.random.default_rng(1)
    data = write(tmp_path / "a.npz", x=rng.standard_normal((40, 4)).astype(np.float16))
    assert run(["prune", source, out, "--params", "0.5", "--calibration", data, "-q"]) == 0
    assert {t.data_type for t in onnx.load(out).graph.initializer} == {onnx.TensorProto.FLOAT16}


def test_quantized_weights_are_cut_or_declined_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x) => (float[N,3] y) <uint8 z = {0}, float s = {0.1}> {
      q = QuantizeLinear(x, s, z)
      h = MatMulInteger(q, a)
      f = Cast<to = 1>(h)
      y = MatMul(f, b)
    }""")
    rng = np.random.default_rng(0)
    for name, array in (
        ("a", rng.integers(-9, 9, (4, 16)).astype(np.int8)),
        ("b", rng.standard_normal((16, 3)).astype(np.float32)),
    ):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "m.onnx")
    out = tmp_path / "out.onnx"
    code = run(["prune", str(tmp_path / "m.onnx"), str(out), "--params", "0.5", "--json"])
    shown, errors = capsys.readouterr()
    if code == 0:
        assert json.loads(shown)["after"]["parameters"] < 80
    else:
        assert code == 2 and "MatMul" in errors and not out.exists()


def test_the_samples_of_a_plan_are_those_that_the_report_names(tmp_path: Path) -> None:
    source, plan = small(tmp_path / "m.onnx"), tmp_path / "p.json"
    rng = np.random.default_rng(1)
    data = write(tmp_path / "a.npz", x=rng.standard_normal((90, 4)).astype(np.float32))
    options = ["--params", "0.5", "--calibration", data, "--save-plan", str(plan), "-q"]
    assert run(["prune", source, str(tmp_path / "o.onnx"), *options]) == 0
    found = json.loads(plan.read_text())["calibration"]
    ports = onnxopt.inspect(onnx.load(source)).cost.inputs
    assert list(ports) == ["x"]
    used, held_out = load_calibration(data, model_inputs(onnx.load(source))).split(1 / 9)
    assert (used.count, held_out.count) == (80, 10) and found["sha256"] == used.digest


@pytest.mark.parametrize("batch", [32, 24])
def test_a_model_that_takes_only_one_size_of_batches_is_pruned_and_judged_in_whole_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: int
) -> None:
    """32 is what runs at once where the model takes any number; here it is no such number."""
    source, out = str(tmp_path / "m.onnx"), str(tmp_path / "out.onnx")
    onnx.save(fixed_digits(batch), source)
    options = ["--flops", "0.6", "--calibration", CALIBRATION, "--json"]
    for labelled in ([], ["--eval", TEST]):
        assert run(["prune", source, out, *options, *labelled]) == 0
        report = json.loads(capsys.readouterr().out)
        judged = 450 // batch * batch if labelled else batch
        assert report["agreement"]["samples"] == judged
        assert report["calibration"] == {
            **report["calibration"], "used": 300 - batch, "held_out": batch
        }  # fmt: skip
        assert report["timing"]["batch"] == batch
        assert not any("fill only one batch" in note for note in report["notes"])
    assert report["accuracy"]["samples"] == judged
    assert model_inputs(onnx.load(out))[0].dims == (batch, 1, 8, 8)


def fixed_digits(batch: int) -> onnx.ModelProto:
    """The digits model as one that takes so many at once."""
    proto = onnx.load(DIGITS)
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = batch
    return proto


def test_too_few_samples_for_a_fixed_batch_are_refused_and_those_for_one_batch_get_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(tmp_path / "m.onnx"), str(tmp_path / "out.onnx")
    onnx.save(fixed_digits(32), source)
    few = write(tmp_path / "few.npz", image=images()[:63])
    enough = write(tmp_path / "enough.npz", image=images()[:64])
    start = ["prune", source, out, "--flops", "0.6", "--calibration"]
    assert "holds 63 samples, but at least 64 are needed" in failed([*start, few], capsys)
    wrong = failed([*start, enough, "--samples", "20"], capsys)
    assert "20 samples are too few: the model takes 32 at once" in wrong
    labelled = write(tmp_path / "l.npz", image=images()[:9], labels=np.arange(9))
    wrong = failed([*start, enough, "--eval", labelled], capsys)
    assert "holds 9 samples, but the model takes 32 at once" in wrong
    assert not Path(out).exists()
    assert run([*start, enough, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert any("only one batch of the 32 that the model" in note for note in report["notes"])
    assert run([*start, enough, "--json", "--compensation", "none"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert not any("only one batch" in note for note in report["notes"])
