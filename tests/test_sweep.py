"""`onnxopt prune --sweep`: a model for each budget, what was there already, renderings."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from test_cli_prune import DIGITS, SAMPLED, TEST, failed, small, write

import onnxopt
from onnxopt.cli.main import run
from onnxopt.errors import CheckError, UsageError
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.results import Pruned
from onnxopt.pruning.sweep import parse_sweep
from onnxopt.report.sweep_json import read_sweep, sweep_json
from onnxopt.report.sweep_lines import sweep_head, sweep_rows
from onnxopt.report.sweep_markdown import sweep_markdown
from onnxopt.report.sweep_picture import sweep_picture

SCHEMA = json.loads((Path(onnxopt.__file__).parent / "report" / "sweep_schema.json").read_text())
REPORTS = ["sweep.json", "sweep.md", "sweep.svg"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are no matter here."""
    monkeypatch.setattr("onnxopt.timing.MOST_PAIRS", 5)


def samples(folder: Path, seed: int = 1) -> str:
    """For the small model, with labels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    return write(folder / f"samples{seed}.npz", x=x, labels=rng.integers(0, 3, 60))


def asked(folder: Path, *points: str, seed: int = 1) -> list[str]:
    """A quick sweep of the small model."""
    data = samples(folder, seed)
    given = ["--sweep", "params=" + ",".join(points), "--calibration", data, "--multiple-of", "1"]
    return ["prune", small(folder / "m.onnx"), str(folder / "curve"), *given]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.onnx")}


def data_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return data


@pytest.fixture
def budgets_seen(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The budgets that a model is really pruned to."""
    seen: list[float] = []
    at = Pruner.at

    def noted(self: Pruner, budget: Budget) -> Pruned:
        seen.append(budget.amount)
        return at(self, budget)

    monkeypatch.setattr(Pruner, "at", noted)
    return seen


@pytest.fixture
def before_third(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes the third pruning raise."""

    def arrange(error: BaseException) -> None:
        at, calls = Pruner.at, iter(range(9))

        def broken(self: Pruner, budget: Budget) -> Pruned:
            if next(calls) == 2:
                raise error
            return at(self, budget)

        monkeypatch.setattr(Pruner, "at", broken)

    return arrange


def test_each_model_of_a_sweep_is_that_of_its_budget_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curve, alone = tmp_path / "curve", str(tmp_path / "alone.onnx")
    options = [*SAMPLED, "--eval", TEST]
    png = tmp_path / "curve.png"
    arguments = ["prune", DIGITS, str(curve), "--sweep", "0.5,80%", *options]
    assert run([*arguments, "--report", str(png)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("asked FLOPs", "original 3.3 M", "50% 1.65 M 50%", "99.78%", "2 points: 2 met"):
        assert part in shown, shown
    assert "on 450 labelled samples" in shown
    assert f"writtento'{curve}':2models" in shown.replace(" ", "")  # a long path is broken
    assert names(curve) == ["flops-0.5.onnx", "flops-0.8.onnx", *REPORTS]
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert run(["prune", DIGITS, alone, "--flops", "0.5", *options, "-q"]) == 0
    assert Path(alone).read_bytes() == (curve / "flops-0.5.onnx").read_bytes()
    data = data_of(curve)
    jsonschema.validate(data, SCHEMA)
    assert [point["amount"] for point in data["points"]] == [0.8, 0.5]
    half = data["points"][1]
    assert half["cost"]["flops"] == pytest.approx(data["before"]["flops"] / 2, rel=0.01)
    assert half["worth"]["accuracy"] > 0.9 and half["worth"]["timing"]["ratio"] > 0


def test_json_is_all_that_is_printed_and_is_what_the_folder_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*asked(tmp_path, "0.7", "-50%"), "--json"]) == 0
    shown, errors = capsys.readouterr()
    data = json.loads(shown)
    jsonschema.validate(data, SCHEMA)
    assert set(data) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    assert data == data_of(tmp_path / "curve") and errors == ""
    file = tmp_path / "curve" / "sweep.json"
    assert sweep_json(read_sweep(file)) + "\n" == file.read_text()


def test_a_point_that_cannot_be_met_is_a_row_that_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(asked(tmp_path, "100%", "1M", "0.5", "0.01")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 points: 1 met, 3 refused" in shown and "1% refused" in shown
    assert "refused: 1%: 1% of the parameters cannot be reached" in shown
    assert "refused: 100%: the model is within the budget already" in shown
    assert "refused: 1 M: the model is within the budget already" in shown
    statuses = {point["name"]: point["status"] for point in data_of(tmp_path / "curve")["points"]}
    expected = dict.fromkeys(("params-1000000", "params-1", "params-0.5", "params-0.01"), "refused")
    assert statuses == {**expected, "params-0.5": "met"}
    assert list(statuses) == list(expected)
    assert names(tmp_path / "curve") == ["params-0.5.onnx", *REPORTS]


def test_where_no_point_can_be_met_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = failed(asked(tmp_path, "1", "0.01"), capsys)
    assert "no point of the sweep can be met: 100% of the parameters: the model is within" in said
    assert not (tmp_path / "curve").exists()


def test_what_is_wrong_for_all_points_ends_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = small(tmp_path / "frozen.onnx", is_input=True)
    said = failed(["prune", source, str(tmp_path / "curve"), "--sweep", "params=0.5"], capsys)
    assert "no channels of this model can be removed" in said
    assert not (tmp_path / "curve").exists()


def test_points_that_are_there_are_kept_and_others_are_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], budgets_seen: list[float]
) -> None:
    curve = tmp_path / "curve"
    assert run(asked(tmp_path, "0.8", "0.6", "0.01")) == 0
    first = contents(curve)
    assert budgets_seen == [0.8, 0.6, 0.01] and "already" not in capsys.readouterr().out
    assert run(asked(tmp_path, "0.6", "0.7", "0.01")) == 0
    assert budgets_seen == [0.8, 0.6, 0.01, 0.7]
    assert "note: 2 of the 3 points asked for were there already" in capsys.readouterr().out
    points = data_of(curve)["points"]
    assert [point["amount"] for point in points] == [0.8, 0.7, 0.6, 0.01]
    assert contents(curve).items() > first.items()
    assert run(asked(tmp_path, "0.6")) == 0
    assert "all points asked for were there already" in capsys.readouterr().out
    assert data_of(curve)["points"] == points and len(budgets_seen) == 4


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"other")])
def test_a_model_that_is_not_as_it_was_written_is_made_again(
    damage: Callable[[Path], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    budgets_seen: list[float],
) -> None:
    curve = tmp_path / "curve"
    assert run([*asked(tmp_path, "0.8", "0.6"), "-q"]) == 0
    before = contents(curve)
    damage(curve / "params-0.6.onnx")
    assert run(asked(tmp_path, "0.8", "0.6")) == 0
    assert budgets_seen == [0.8, 0.6, 0.6] and contents(curve) == before
    shown = " ".join(capsys.readouterr().out.split())
    assert "params-0.6.onnx' is not as the sweep had written it: made again" in shown


def test_a_folder_with_another_sweep_is_refused_with_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asked(tmp_path, "0.8", "0.6")
    assert run([*first, "-q"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "curve").iterdir()}
    labelled = ["--eval", samples(tmp_path)]
    for arguments, what in (
        (asked(tmp_path, "0.7", seed=2), "the calibration samples, the samples held out differ"),
        ([*first, "--seed", "3", "--samples", "40"], "the options of pruning differ"),
        ([*first, *labelled], "the labelled samples, the metric differ"),
        ([part.replace("params=", "flops=") for part in first], "another sweep: the cost differs"),
        (["prune", DIGITS, *first[2:4], "0.8", *SAMPLED], "another sweep: the model, "),
    ):
        said = failed(arguments, capsys)
        assert what in said and "name another folder" in said
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "another")
        assert "another sweep: the processor differs" in failed(first, capsys)
    monkeypatch.setattr("onnxopt.report.sweep_folder.versions", lambda: {"onnxopt": "99"})
    assert "the versions of onnxopt" in failed(first, capsys)
    assert {path: path.read_bytes() for path in (tmp_path / "curve").iterdir()} == before


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "onnxopt-sweep/2"}', "[" * 10**5, "null"])
def test_a_folder_whose_sweep_json_is_none_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "curve").mkdir()
    (tmp_path / "curve" / "sweep.json").write_text(text)
    assert "is not what a sweep has written" in failed(asked(tmp_path, "0.8"), capsys)
    assert names(tmp_path / "curve") == ["sweep.json"]


def test_an_interrupted_sweep_goes_on_after_what_is_finished(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    before_third: Callable[[BaseException], None],
) -> None:
    arguments, curve = asked(tmp_path, "0.8", "0.6", "0.5", "0.4"), tmp_path / "curve"
    assert run([*arguments, "-q"]) == 0
    whole, again = contents(curve), str(tmp_path / "again")
    arguments[2] = again
    with monkeypatch.context():
        before_third(KeyboardInterrupt())
        said = failed(arguments, capsys, 130)
    assert said == (
        f"error: interrupted: 2 points are finished, in '{again}'\n"
        "  fix: the same command goes on after these\n"
    )
    assert names(Path(again)) == ["params-0.6.onnx", "params-0.8.onnx", "sweep.json"]
    monkeypatch.undo()
    assert run(arguments) == 0
    assert contents(Path(again)) == whole
    assert "2 of the 4 points asked for were there already" in capsys.readouterr().out


def test_a_signal_interrupts_a_sweep_and_the_next_run_goes_on(tmp_path: Path) -> None:
    curve, pipe = tmp_path / "curve", subprocess.PIPE
    arguments = [sys.executable, "-m", "onnxopt", "prune", DIGITS, str(curve), *SAMPLED]
    arguments += ["--sweep", "0.9,0.8,0.7", "--cache", str(tmp_path / "cache")]
    process = subprocess.Popen(
        arguments, stdout=pipe, stderr=pipe, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (curve / "sweep.json").exists() or not data_of(curve)["points"]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == ""
    assert "finished, in" in err and "the same command goes on where it was" in err
    finished = data_of(curve)["points"]
    assert len(finished) < 3
    resumed = subprocess.run(arguments, capture_output=True, text=True, check=True)
    shown = " ".join(resumed.stdout.split())
    assert "there already" in shown and "pieces of work came from the cache" in shown
    points = data_of(curve)["points"]
    assert len(points) == 3 and points[: len(finished)] == finished


def test_an_interrupt_before_the_first_point_says_what_would_have_helped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pruner, "at", interrupted)
    said = failed(asked(tmp_path, "0.8"), capsys, 130)
    assert "no model was written" in said and "--cache DIR" in said
    assert not (tmp_path / "curve").exists()


def test_a_point_that_fails_a_check_ends_no_other_and_is_tried_again(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    before_third: Callable[[BaseException], None],
) -> None:
    arguments = asked(tmp_path, "0.75", "0.625", "0.5", "0.25")
    with monkeypatch.context():
        before_third(CheckError("the cut is not exact", "nothing was written"))
        assert run(arguments) == 1
    out, err = capsys.readouterr()
    assert "3 met, 1 failed" in out and "failed: 50%: the cut is not" in out
    assert err.startswith("error: 1 of 4 points failed a check: 50% of the parameters: the cut is")
    jsonschema.validate(data_of(tmp_path / "curve"), SCHEMA)
    monkeypatch.undo()
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert "4 met" in out and "3 of the 4 points asked for were there already" in out


def test_without_a_folder_only_the_reports_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = asked(tmp_path, "0.6")
    del arguments[2]
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "60%" in shown and "written" not in shown
    assert names(tmp_path) == ["m.onnx", "samples1.npz"]
    files = [tmp_path / f"r{ending}" for ending in (".json", ".md", ".svg", ".png")]
    for file in files:
        arguments += ["--report", str(file)]
    assert run([*arguments, "-q"]) == 0 and capsys.readouterr().out == ""
    assert all(file.stat().st_size > 1000 for file in files)
    assert json.loads(files[0].read_text())["points"][0]["model"] is None


def test_without_samples_there_is_only_cost_and_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, curve = small(tmp_path / "m.onnx"), tmp_path / "curve"
    given = ["--sweep", "params=0.8,0.6", "--multiple-of", "1"]
    assert run(["prune", source, str(curve), *given]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "agreement with the original: not measured, there are no samples" in shown
    assert shown.count("no calibration data") == 1
    assert sweep_head(read_sweep(curve / "sweep.json"))[-2:] == ("memory", "time")
    assert b"relative error" not in (curve / "sweep.svg").read_bytes()


def test_models_with_external_data_are_kept_too(tmp_path: Path, budgets_seen: list[float]) -> None:
    curve = tmp_path / "curve"
    arguments = ["prune", DIGITS, str(curve), "--sweep", "0.9,0.8", "--external-data", "always"]
    assert run([*arguments, "-q"]) == 0
    data = [path for path in curve.iterdir() if path.name not in {*contents(curve), *REPORTS}]
    assert len(data) == 2
    assert run([*arguments, "-q"]) == 0 and budgets_seen == [0.9, 0.8]
    next(path for path in data if path.name.startswith("flops-0.8")).unlink()
    assert run([*arguments, "-q"]) == 0 and budgets_seen == [0.9, 0.8, 0.8]


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_a_picture_of_fewer_points_is_not_left_behind(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert run([*asked(tmp_path, "0.8"), "-q"]) == 0
    request.getfixturevalue("no_matplotlib")
    assert run([*asked(tmp_path, "0.6"), "-q"]) == 0
    expected = ["params-0.6.onnx", "params-0.8.onnx", "sweep.json", "sweep.md"]
    assert names(tmp_path / "curve") == expected


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_one_line_says_how_to_get_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(asked(tmp_path, "0.8")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "pip install 'onnxopt[plots]' draws the picture, sweep.svg" in shown
    assert names(tmp_path / "curve") == ["params-0.8.onnx", "sweep.json", "sweep.md"]
    assert "sweep.svg" not in (tmp_path / "curve" / "sweep.md").read_text()


@pytest.mark.usefixtures("no_matplotlib")
def test_a_picture_that_is_asked_for_and_cannot_be_drawn_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxopt.pruning.sweep.Data.load", lambda *_: pytest.fail("work"))
    said = failed([*asked(tmp_path, "0.8"), "--report", str(tmp_path / "c.png")], capsys)
    assert "Matplotlib, which is not installed" in said and "'onnxopt[plots]'" in said


def test_a_sweep_overwrites_nothing_that_is_read_or_of_another_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = asked(tmp_path, "0.8")
    curve = Path(arguments[2])

    def refused(*more: str, source: str = arguments[1], folder: Path = curve) -> str:
        return failed(["prune", source, str(folder), *arguments[3:], *more], capsys)

    assert "'m.onnx' is a file" in refused(folder=Path(arguments[1])).replace(f"{tmp_path}/", "")
    assert "is named like a model" in refused(folder=tmp_path / "out.onnx")
    assert "there is no folder" in refused(folder=tmp_path / "a" / "b")
    curve.mkdir()
    source = small(curve / "params-0.8.onnx")
    assert "is there and of no sweep" in refused()
    (curve / "params-0.8.onnx").rename(curve / "other.onnx")
    source = small(curve / "other.onnx")
    assert "would overwrite the file of the sweep" in refused("--report", str(curve / "sweep.md"))
    assert run(["prune", source, *arguments[2:], "-q"]) == 0
    assert "would overwrite a model" in refused(source=str(curve / "params-0.8.onnx"))


def test_budgets_of_a_sweep_are_read_as_those_of_prune() -> None:
    assert parse_sweep("0.9, 50%,-70%") == tuple(Budget("flops", s) for s in (0.9, 0.5, 1 - 0.7))
    assert parse_sweep("params=500k,1") == (
        Budget("params", 5e5, relative=False),
        Budget("params", 1.0),
    )
    assert parse_sweep("memory=8MB") == (Budget("memory", 8e6, relative=False),)
    with pytest.raises(UsageError, match="leaves everything"):
        parse_sweep("2.0")


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sweep.json of a small model, with a point that was refused."""
    folder = tmp_path_factory.mktemp("sweep")
    assert run([*asked(folder, "0.8", "0.6", "0.01"), "-q", "--eval", samples(folder)]) == 0
    return folder / "curve" / "sweep.json"


def test_the_same_sweep_gives_the_same_picture(sweep_file: Path) -> None:
    sweep = read_sweep(sweep_file)
    for suffix in (".svg", ".png"):
        assert sweep_picture(sweep, suffix) == sweep_picture(sweep, suffix)
    svg = sweep_picture(sweep)
    assert svg == (sweep_file.parent / "sweep.svg").read_bytes()
    assert len(svg) < 50_000 and b"dc:date" not in svg
    for text in (b"top1 (%)", b"remaining parameters (% of 112 parameters)", b"original", b" ms)"):
        assert text in svg


def test_a_sweep_is_shown_however_little_was_measured(sweep_file: Path) -> None:
    sweep = read_sweep(sweep_file)

    def without(**missing: Any) -> Any:
        points = [
            point if point.worth is None else replace(point, worth=replace(point.worth, **missing))
            for point in sweep.points
        ]
        return replace(sweep, points=tuple(points), metric=None, accuracy=None)

    for changed, label in (
        (without(accuracy=None), b"class of the original (%)"),
        (without(accuracy=None), b"relative error of the outputs"),
        (without(accuracy=None, same_class=None), b"relative error of the outputs"),
        (replace(sweep, metric="my:metric"), b"my:metric"),
        (replace(sweep, source="a_$b$_{"), b"a_$b$_{"),
        (replace(sweep, accuracy=None), b"top1"),
    ):
        assert label in sweep_picture(changed)
        assert read_sweep_again(changed, sweep_file) == changed
        assert all(len(row) == len(sweep_head(changed)) for row in sweep_rows(changed))
        assert "## Each point" in sweep_markdown(changed)


def read_sweep_again(sweep: Any, beside: Path) -> Any:
    file = beside.with_name("again.json")
    file.write_text(sweep_json(sweep))
    return read_sweep(file)


def test_the_models_of_a_sweep_are_models(sweep_file: Path) -> None:
    for file in sweep_file.parent.glob("*.onnx"):
        onnx.checker.check_model(onnx.load(file))
