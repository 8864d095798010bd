"""Requests to prune that make no sense: each is refused with its reason, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli_prune import CALIBRATION, DIGITS, SAMPLED, TEST, failed

REQUESTS: list[tuple[list[str], str]] = [
    ([], "there is no budget"),
    (["--flops", "0.5", "--params", "0.5"], "more than one budget"),
    (["--flops", "1.0"], "leaves everything"),
    (["--flops", "-0.3"], "say -30%"),
    (["--flops", "1.5"], "leaves everything"),
    (["--flops", "-50"], "say -50%"),
    (["--memory", "much"], "--memory 'much' is no budget"),
    (["--flops", "200MB"], "is a number of bytes"),
    (["--params", "0M"], "leaves nothing"),
    (["--flops", "0.5", "--samples", "20"], "--samples says how many"),
    (["--latency", "12"], "--latency '12' is no budget"),
    (["--latency", "0.5", "--flops", "0.5"], "more than one budget"),
    (["--latency", "0.5", "--strategy", "complexity"], "and not by time"),
    (["--latency", "0.5", "--profile", "none.json"], "there is no file 'none.json'"),
    (["--latency", "0.5", "--profile", DIGITS], "is not a profile"),
    (["--flops", "0.5", "--profile", DIGITS], "no budget is one of time"),
    (["--plan", "none.json", "--profile", DIGITS], "decided by the plan"),
    (["--params", "60G"], "within the budget already"),
    (
        ["--params", "0.001", "--max-per-group", "0.9"],
        "cannot be reached: with all groups at their smallest widths",
    ),
    (["--flops", "0.1", "--multiple-of", "64"], "lower --multiple-of, or ask for at least"),
    (["--flops", "0.5", "--min-channels", "999"], "100% remain"),
    (["--flops", "0.5", "--ignore", "nowhere*"], "no node is called 'nowhere*'"),
    (["--flops", "0.5", "--max-drop", "1"], "needs labelled samples"),
    (["--flops", "0.5", "--metric", "top5"], "needs labelled samples"),
    (["--eval", TEST, "--max-drop", "-1"], "a drop of -1 makes no sense"),
    (["--eval", TEST, "--max-drop", "nan"], "a drop of nan makes no sense"),
    (["--flops", "0.5", "--eval", CALIBRATION], "holds no labels"),
    (["--flops", "0.5", "--calibration", "none.npz"], "no file or folder"),
    (["--flops", "0.5", *SAMPLED[:2], "--samples", "5"], "at least 16 are needed"),
    (["--flops", "0.5", "--preprocess", "mean=0"], "there are none"),
    (["--flops", "0.5", "--max-per-group", "3"], "no fraction"),
    (["--flops", "0.5", "--min-channels", "0"], "too few"),
    (["--flops", "0.5", "--multiple-of", "0"], "multiple of 0"),
    (["--flops", "0.5", "--seed", "-1"], "negative"),
    (["--flops", "0.5", "--criterion", "best"], "best"),
    (["--flops", "0.5", "--metric", "nothing", "--eval", TEST], "no metric 'nothing'"),
    (["--plan", "none.json"], "cannot read the plan"),
    (["--plan", DIGITS], "is not a plan"),
    (["--plan", "none.json", "--flops", "0.5"], "decided by the plan"),
    (["--flops", "0.5", "--save-plan", "no/such/plan.json"], "there is no folder"),
    (["--flops", "0.5", "--report", "r.html"], "of no known kind"),
    (["--dry-run", "--save-plan", "p.json"], "a dry run cuts nothing, so --save-plan"),
    (["--dry-run", "--plan", "p.json"], "a dry run cuts nothing, so --plan"),
    (["--dry-run", "--eval", TEST], "a dry run cuts nothing, so --eval"),
    (["--dry-run", "--max-drop", "1"], "a dry run cuts nothing, so --max-drop"),
    (["--dry-run", "--prove"], "a dry run cuts nothing, so --prove"),
]

SWEEPS: list[tuple[list[str], str]] = [
    (["--sweep", ""], "--sweep '' is no budget"),
    (["--sweep", "0.5,"], "--sweep '' is no budget"),
    (["--sweep", "0.5 0.4"], "--sweep '0.5 0.4' is no budget"),
    (["--sweep", "0.5,1.5"], "--sweep 1.5 leaves everything"),
    (["--sweep", "0.5,0"], "leaves nothing"),
    (["--sweep", "0.5,-0.3"], "say -30%"),
    (["--sweep", "0.5,50%"], "names one point twice: 50% of the FLOPs"),
    (["--sweep", "time=0.5"], "params=0.9,0.8, memory=0.9,0.8, latency=0.9,0.8"),
    (["--sweep", "0.5,params=0.4"], "'0.5,params=0.4' is of no known cost"),
    (["--sweep", "0.5", "--flops", "0.5"], "write --sweep flops=0.5"),
    (["--sweep", "0.5,0.4", "--params", "0.5"], "write --sweep params=0.5,0.4"),
    (["--sweep", "0.5", "--max-drop", "1", "--eval", TEST], "no place for --max-drop"),
    (["--sweep", "0.5", "--plan", "p.json"], "no place for --plan"),
    (["--sweep", "0.5", "--save-plan", "p.json"], "no place for --save-plan"),
    (["--sweep", "0.5", "--dry-run"], "a dry run cuts nothing, so --sweep"),
    (["--sweep", "0.5", "--metric", "top5"], "--metric needs labelled samples"),
    (["--sweep", "0.5", "--samples", "20"], "--samples says how many"),
    (["--sweep", "0.5", "--report", "r.pdf"], "name it .json, .md, .svg or .png"),
    (["--flops", "0.5", "--report", "r.svg"], "name it .json or .md"),
]

SWEEPS_OF_TIME: list[tuple[list[str], str]] = [
    (["--sweep", "latency=12ms"], "--sweep '12ms' is no share of the time"),
    (["--sweep", "latency=0.5,1.5"], "--sweep 1.5 leaves everything"),
    (["--sweep", "latency=0.5,50%"], "names one point twice: 50% of the time"),
    (["--sweep", "0.5,0.4", "--latency", "0.5"], "write --sweep latency=0.5,0.4"),
    (["--sweep", "latency=0.5", "--latency", "0.5"], "no place for --latency"),
    (["--sweep", "latency=0.5", "--flops", "0.5"], "no place for --flops"),
    (["--sweep", "0.5", "--profile", DIGITS], "--sweep 0.5 is not about time"),
    (["--sweep", "params=0.5", "--profile", DIGITS], "write --sweep latency=0.9,0.8"),
    (["--sweep", "latency=0.5", "--profile", "none.json"], "there is no file 'none.json'"),
    (["--sweep", "latency=0.5", "--profile", DIGITS], "is not a profile"),
    (["--sweep", "latency=0.5", "--strategy", "complexity"], "and not by time"),
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [*REQUESTS, *SWEEPS, *SWEEPS_OF_TIME],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_request_that_makes_no_sense_is_refused_and_nothing_is_written(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = "curve" if "--sweep" in arguments else "out.onnx"
    assert said in failed(["prune", DIGITS, out, *arguments], capsys)
    assert list(tmp_path.iterdir()) == []
