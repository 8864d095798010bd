"""`onnxopt prune --sweep latency=..`: points by measured time, or by a device's profile."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import timed_models
from test_cli_prune import DIGITS, SAMPLED, failed
from test_sweep import REPORTS, SCHEMA, data_of, names
from timed_models import Fake

from onnxopt.cli.main import run
from onnxopt.errors import UsageError
from onnxopt.profiling.document import Profile
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.results import TIME_TOLERATED
from onnxopt.pruning.sweep import parse_sweep
from onnxopt.report.sweep_json import read_sweep, sweep_json
from onnxopt.report.sweep_lines import sweep_head, sweep_rows
from onnxopt.report.sweep_markdown import sweep_markdown
from onnxopt.report.sweep_picture import sweep_picture

QUICK = ["--compensation", "none", "--strategy", "uniform", "--multiple-of", "1"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed for a person only is no matter here."""
    monkeypatch.setattr("onnxopt.timing.MOST_PAIRS", 5)


Arrange = Callable[[Fake], Fake]


@pytest.fixture
def timed_by(monkeypatch: pytest.MonkeyPatch) -> Arrange:
    """Gives every pruner that follows a stopwatch that measures nothing."""
    usual = Pruner.__init__

    def arrange(fake: Fake) -> Fake:
        def made(self: Pruner, *given: Any, **named: Any) -> None:
            usual(self, *given, **{**named, "stopwatch": fake.stopwatch})

        monkeypatch.setattr(Pruner, "__init__", made)
        return fake

    return arrange


def asked(folder: Path, points: str, *more: str) -> list[str]:
    return ["prune", DIGITS, str(folder / "curve"), "--sweep", f"latency={points}", *QUICK, *more]


def device(folder: Path, change: Callable[[Profile], Profile] = lambda p: p) -> list[str]:
    """The options that name the profile of another machine."""
    profile = change(timed_models.of_device(onnx.load(DIGITS)))
    return ["--profile", str(timed_models.device_file(profile, folder))]


def test_shares_of_the_time_are_read_as_people_write_them() -> None:
    found = parse_sweep("latency=0.9,-20%, 70%,1")
    assert [b.amount for b in found] == pytest.approx([0.9, 0.8, 0.7, 1.0])
    assert {(b.mode, b.relative) for b in found} == {("latency", True)}


@pytest.mark.parametrize("entry", ["12ms", "1.5 ms", "800us", "2s", "12", "8MB", "fast"])
def test_a_time_is_no_point_of_a_sweep(entry: str) -> None:
    with pytest.raises(UsageError, match="is no share of the time") as caught:
        parse_sweep(f"latency=0.9,{entry}")
    assert "such as 0.5 or 50%" in caught.value.fix and "ms" not in caught.value.fix


def test_each_point_is_confirmed_by_measuring_and_the_layers_are_profiled_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timed_by: Arrange
) -> None:
    fake = timed_by(Fake())
    assert run(asked(tmp_path, "0.9,-20%,70%,0.01", *SAMPLED)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "sweep of time: 4 points: 3 met, 1 refused" in shown and "predicted" not in shown
    assert "time: of one run in ONNX Runtime, in turns with the original; the fastest" in shown
    assert "refused: 1%: 1% of the time cannot be reached" in shown
    assert fake.profiles == 1 and len(fake.timed) >= 6
    curve = tmp_path / "curve"
    models = [f"latency-{share}.onnx" for share in ("0.7", "0.8", "0.9")]
    assert names(curve) == [*models, *REPORTS]
    data = data_of(curve)
    jsonschema.validate(data, SCHEMA)
    assert data["mode"] == "latency" and "the profile" not in data["basis"]
    for point in data["points"][:3]:
        timing, found = point["worth"]["timing"], point["latency"]
        assert timing == found["measured"] and len(found["tries"]) >= 1
        assert timing["ratio"] == pytest.approx(point["amount"], rel=TIME_TOLERATED)
    assert [point["latency"] is None for point in data["points"]] == [False] * 3 + [True]
    assert sweep_json(read_sweep(curve / "sweep.json")) + "\n" == (curve / "sweep.json").read_text()


def test_a_point_is_the_model_that_its_budget_alone_makes(
    tmp_path: Path, timed_by: Arrange
) -> None:
    timed_by(Fake())
    assert run([*asked(tmp_path, "0.9,0.75"), "-q"]) == 0
    timed_by(Fake())
    alone = str(tmp_path / "alone.onnx")
    assert run(["prune", DIGITS, alone, "--latency", "0.75", *QUICK, "-q"]) == 0
    assert Path(alone).read_bytes() == (tmp_path / "curve" / "latency-0.75.onnx").read_bytes()


def test_a_point_that_measures_too_slow_is_missed_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timed_by: Arrange
) -> None:
    timed_by(Fake(drift=(1.0, 1.1)))  # the finished model takes more than its try
    assert run(asked(tmp_path, "0.8")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 point: 1 missed" in shown and "more time than asked for" in shown


def test_a_sweep_of_time_goes_on_after_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timed_by: Arrange
) -> None:
    timed_by(Fake())
    assert run([*asked(tmp_path, "0.9,0.75,0.01"), "-q"]) == 0
    before = data_of(tmp_path / "curve")["points"]
    again = timed_by(Fake())
    assert run(asked(tmp_path, "0.9,0.75,0.01")) == 0
    assert "all points asked for were there already" in capsys.readouterr().out
    assert not again.profiles and not again.timed
    assert run(asked(tmp_path, "0.9,0.8,0.75")) == 0
    assert "2 of the 3 points asked for were there already" in capsys.readouterr().out
    points = data_of(tmp_path / "curve")["points"]
    assert [point["amount"] for point in points] == [0.9, 0.8, 0.75, 0.01]
    assert [points[0], *points[2:]] == before


def test_with_the_profile_of_a_device_a_sweep_tells_what_is_predicted_and_what_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timed_by: Arrange
) -> None:
    fake = timed_by(Fake())
    assert run(asked(tmp_path, "0.9,0.75", *device(tmp_path))) == 0
    assert not fake.profiles and not fake.timed
    shown = " ".join(capsys.readouterr().out.split())
    assert "predicted time here" in shown and "time here: of one run in ONNX Runtime" in shown
    assert "sweep of time on a device, as predicted: 2 points: " in shown
    assert "predicted: the time of one run on a device, by its profile" in shown
    assert shown.count("not confirmed") == 1
    data = data_of(tmp_path / "curve")
    jsonschema.validate(data, SCHEMA)
    assert len(data["basis"]["the profile"]) == 64
    for point in data["points"]:
        found = point["latency"]
        assert found["measured"] is None and point["worth"]["timing"]["ratio"] > 0
        is_met = found["predicted"] == pytest.approx(point["amount"], rel=TIME_TOLERATED)
        assert point["status"] == ("met" if is_met else "missed")
    markdown = (tmp_path / "curve" / "sweep.md").read_text()
    assert "predicted" in markdown and "time here" in markdown


def test_a_sweep_goes_on_only_with_the_same_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timed_by: Arrange
) -> None:
    timed_by(Fake())
    first = asked(tmp_path, "0.9", *device(tmp_path))
    assert run([*first, "-q"]) == 0
    assert run(first) == 0 and "already" in capsys.readouterr().out
    (tmp_path / "b").mkdir()

    def slower(profile: Profile) -> Profile:
        return replace(profile, source="another")

    other = asked(tmp_path, "0.9", *device(tmp_path / "b", slower))
    assert "another sweep: the profile differs" in failed(other, capsys)
    assert "another sweep: the profile differs" in failed(asked(tmp_path, "0.9"), capsys)


def test_what_is_wrong_with_a_profile_ends_a_sweep_before_its_first_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = device(tmp_path, lambda profile: replace(profile, layers=()))
    said = failed(asked(tmp_path, "0.9,0.8", *bare), capsys)
    assert "no layers at several widths" in said and "no point of the sweep" not in said
    assert not (tmp_path / "curve").exists()


def test_a_sweep_of_time_is_shown_against_the_share_of_the_time(
    tmp_path: Path, timed_by: Arrange
) -> None:
    timed_by(Fake())
    assert run([*asked(tmp_path, "0.9,0.75,0.01", *SAMPLED), "-q"]) == 0
    here = read_sweep(tmp_path / "curve" / "sweep.json")
    svg = sweep_picture(here)
    for text in (b"remaining time (% of 1 ms)", b"remaining FLOPs (% of 3.3 M)", b"in step with"):
        assert text in svg
    assert svg == sweep_picture(here) == (tmp_path / "curve" / "sweep.svg").read_bytes()
    points = tuple(
        replace(p, latency=p.latency and replace(p.latency, measured=None, machine="a $x_ device"))
        for p in here.points
    )
    there = replace(here, points=points)
    ms = next(p.latency.original_ms for p in there.points if p.latency)
    assert f"(% of {ms:.3g} ms on a $x_ device, predicted)".encode() in sweep_picture(there)
    for sweep in (here, there):
        assert all(len(row) == len(sweep_head(sweep)) for row in sweep_rows(sweep))
        assert "## Each point" in sweep_markdown(sweep)
        jsonschema.validate(json.loads(sweep_json(sweep)), SCHEMA)


def test_the_share_that_remains_is_that_of_the_machine_that_counts(
    tmp_path: Path, timed_by: Arrange
) -> None:
    timed_by(Fake())
    assert run([*asked(tmp_path, "0.9"), "-q"]) == 0
    sweep = read_sweep(tmp_path / "curve" / "sweep.json")
    (point,) = sweep.points
    assert point.latency is not None and point.latency.measured is not None
    assert point.remaining(sweep) == point.latency.measured.ratio
    predicted = replace(point, latency=replace(point.latency, measured=None))
    assert predicted.remaining(sweep) == point.latency.predicted
    assert point.share(sweep) == 0.9 == Budget("latency", 0.9).amount
    assert np.isfinite(point.remaining(sweep))
