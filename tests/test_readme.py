"""What README shows works as it is shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import judge
import onnx
import pytest

import onnxopt
from onnxopt.rewriting.check import check_rules

README = (judge.REPOSITORY / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?:`|^ +)onnxopt ([a-z]+) ", README, re.MULTILINE)))
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_rule_in_the_readme_passes_its_checks(tmp_path: Path) -> None:
    (rule,) = [block for block in PYTHON if "rule = Rule(" in block]
    (tmp_path / "from_readme.py").write_text(rule)
    results = check_rules(tmp_path)
    assert len(results) > 10
    assert [r for r in results if not r.passed] == []


def test_the_python_in_the_readme_runs(tmp_path: Path) -> None:
    (code,) = [block for block in PYTHON if "onnxopt.optimize(" in block]
    model = judge.model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,H,W] input) => (float[N,3,H,W] y) { a = Identity(input)  y = Relu(a) }"""
    )
    onnx.save(model, tmp_path / "model.onnx")
    assert printed(code, tmp_path).startswith("equal bit for bit")
    assert judge.operators(onnx.load(tmp_path / "small.onnx")) == ["Relu"]


def test_the_python_that_prunes_in_the_readme_runs(tmp_path: Path) -> None:
    (code,) = [block for block in PYTHON if "onnxopt.prune(" in block]
    models = judge.REPOSITORY / "models"
    shutil.copy(models / "digits_resnet.onnx", tmp_path / "model.onnx")
    shutil.copy(models / "digits_resnet_calibration.npz", tmp_path / "samples.npz")
    before, after = map(int, printed(code, tmp_path).split())
    assert after == pytest.approx(before / 2, rel=0.01)
    assert onnxopt.cost_of(onnx.load(tmp_path / "half.onnx")).macs == after


def printed(code: str, folder: Path) -> str:
    """What a program prints that runs in a folder."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(onnxopt.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_the_readme_names_exists(command: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "onnxopt", command, "--help"], capture_output=True, check=False
    )
    assert run.returncode == 0


def test_every_option_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", README))
    shown = ""
    for command in (
        "optimize",
        "prune",
        "check",
        "inspect",
        "profile",
        "compare",
        "rules",
        "explain",
        *(f"split {each}" for each in ("plan", "export", "serve", "run")),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "onnxopt", *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        shown += run.stdout
    assert {option for option in named if option not in shown} == set()
