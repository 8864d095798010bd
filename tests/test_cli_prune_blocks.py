"""`onnxopt prune` where residual blocks may go: what is printed, written, planned and replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import onnx
import pytest
import timed_models
from judge import REPOSITORY

import onnxopt
from onnxopt.cli.main import run
from onnxopt.cli.pruning_options import BlocksChoice
from onnxopt.pruning.options import Blocks

MODELS = REPOSITORY / "models"
DIGITS = str(MODELS / "digits_resnet.onnx")
CALIBRATION = str(MODELS / "digits_resnet_calibration.npz")
TEST = str(MODELS / "digits_resnet_test.npz")
SAMPLED = ["--calibration", CALIBRATION, "--samples", "60"]
QUICK = [*SAMPLED, "--compensation", "none"]
SCHEMA = json.loads((Path(onnxopt.__file__).parent / "report/pruning_schema.json").read_text())
DROP = ["--blocks", "drop", "--max-per-group", "0.2"]
"""Channels alone go no further than 0.66 of the FLOPs."""


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_choices_are_those_of_the_library() -> None:
    assert tuple(choice.value for choice in BlocksChoice) == get_args(Blocks)


def test_a_choice_that_there_is_not_is_refused_in_plain_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["prune", DIGITS, "nowhere.onnx", "--flops", "0.5", "--blocks", "all"]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first == (
        "error: invalid value for '--blocks': 'all' is not one of 'auto', 'keep', 'drop'"
    )


@pytest.mark.parametrize("how", [DROP, ["--strategy", "slr"]], ids=["drop", "slr"])
def test_reports_tell_which_blocks_went_and_a_plan_replays_to_the_same_bytes(
    how: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again, plan = (str(tmp_path / name) for name in ("a.onnx", "b.onnx", "plan.json"))
    reports = [str(tmp_path / name) for name in ("r.md", "r.json")]
    written = ["--save-plan", plan, "--report", reports[0], "--report", reports[1]]
    assert run(["prune", DIGITS, out, *SAMPLED, "--flops", "0.4", *how, *written]) == 0
    shown, report = capsys.readouterr().out, json.loads(Path(reports[1]).read_text())
    jsonschema.validate(report, SCHEMA)
    (depth,) = (done["depth"] for done in report["rounds"] if done["depth"])
    gone = [block for block in depth["blocks"] if block["becomes"]]
    assert len(depth["blocks"]) == 4 and gone and depth["refits"]
    markdown = Path(reports[0]).read_text()
    for text in (flat(shown), flat(markdown)):
        assert f"residual blocks: {len(gone)} of 4 go: " in text
        assert "proof: without them" in text
    assert "## Residual blocks" in markdown
    for block in depth["blocks"]:
        row = next(line for line in markdown.splitlines() if line.startswith(f"| {block['name']}"))
        assert row.split(" | ")[-1] == f"{block['becomes'] or 'stays'} |"
    assert run(["prune", DIGITS, again, "--calibration", CALIBRATION, "--plan", plan, "-q"]) == 0
    assert Path(out).read_bytes() == Path(again).read_bytes()


def test_a_plan_whose_blocks_were_fitted_to_samples_is_not_replayed_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plan, again = (tmp_path / name for name in ("out.onnx", "plan.json", "again.onnx"))
    wanted = ["--flops", "0.4", "--strategy", "slr", "--save-plan", str(plan), "-q"]
    assert run(["prune", DIGITS, str(out), *QUICK, *wanted]) == 0
    replay = ["prune", DIGITS, str(again), "--plan", str(plan), "-q"]
    assert run(replay) == 0  # blocks were only removed
    assert again.read_bytes() == out.read_bytes()
    again.unlink()
    data = json.loads(plan.read_text())
    went = next(choice for choice in data["rounds"][1]["blocks"] if choice["becomes"])
    went["becomes"] = "shifted"
    plan.write_text(json.dumps(data))
    capsys.readouterr()
    assert run(replay) == 2 and not again.exists()
    assert "the plan fits weights to calibration samples" in capsys.readouterr().err


def test_a_dry_run_shows_what_each_block_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["prune", DIGITS, "--dry-run", "--flops", "0.4", *QUICK, *DROP]
    assert run([*wanted, "--json"]) == 0
    blocks = json.loads(capsys.readouterr().out)["blocks"]
    assert run(wanted) == 0
    shown = capsys.readouterr().out
    assert any(block["becomes"] for block in blocks) and len(blocks) == 4
    for block in blocks:
        assert block["removed"] > 0 and 0 < block["share"] < 1
        row = next(line for line in shown.splitlines() if line.split()[:1] == [block["name"]])
        assert row.split()[-1] == (block["becomes"] or "stays")
    assert "removed, shifted, replaced: expected loss" in flat(shown)


def test_a_dry_run_of_two_stages_shows_the_first_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = ["prune", DIGITS, "--dry-run", *QUICK, "--strategy", "slr", "--json", "--params"]
    assert run([*wanted, "0.25"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert any("first stage of slr" in note for note in found["notes"])
    shares = [group["would_keep"] / group["units"] for group in found["groups"]]
    assert 0.5 < sum(shares) / len(shares) < 0.9  # about sqrt(0.5) of each for half of the weights


def test_with_a_budget_of_time_it_is_told_what_became_of_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = str(timed_models.device_file(timed_models.of_device(onnx.load(DIGITS)), tmp_path))
    found: list[dict[str, Any]] = []
    for share in ("0.98", "0.3"):
        wanted = ["--latency", share, "--profile", device, *QUICK, "--json"]
        assert run(["prune", DIGITS, str(tmp_path / f"{share}.onnx"), *wanted]) == 0
        found.append(json.loads(capsys.readouterr().out))
        jsonschema.validate(found[-1], SCHEMA)
    stays, goes = (report["rounds"][0]["depth"] for report in found)
    assert len(stays["blocks"]) == len(goes["blocks"]) == 4
    assert any(block["becomes"] for block in goes["blocks"])
    assert not any(block["becomes"] for block in stays["blocks"]) and stays["refits"] == []


def test_the_largest_cut_is_searched_with_blocks_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--eval", TEST, "--max-drop", "2", "--flops", "0.1", *DROP]
    assert run(["prune", DIGITS, str(tmp_path / "a.onnx"), *QUICK, *wanted, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    jsonschema.validate(data, SCHEMA)
    assert data["accuracy"]["after"] >= data["accuracy"]["before"] - 0.02
    assert data["rounds"][0]["depth"] is not None
