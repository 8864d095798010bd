"""The commands, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
from judge import REPOSITORY

from onnxopt import __version__
from onnxopt.cli.main import run

COMMANDS = ("optimize", "inspect", "profile", "compare", "explain", "rules", "check")

TEXT = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1, 2, 3, 4, 5, 6}> {
        a = Identity(x)
        b = MatMul(a, w)
        y = Relu(b)
    }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(TEXT).SerializeToString())
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.onnx"
    text = TEXT.replace("5, 6", "5, 7")
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


def as_json(capsys: pytest.CaptureFixture[str]) -> Any:
    """What was printed, which is JSON and nothing else."""
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_teaches_with_examples(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, flag]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text and f"  onnxopt {command}" in text


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"onnxopt {__version__}\n"


def test_optimize_writes_the_model_and_shows_what_it_did(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert run(["optimize", str(model), str(out)]) == 0
    text = capsys.readouterr().out
    assert [node.op_type for node in onnx.load(out).graph.node] == ["MatMul", "Relu"]
    assert "verdict: equal bit for bit" in text and "remove-identity 1" in text


def test_optimize_may_write_over_its_input(model: Path) -> None:
    assert run(["optimize", str(model), str(model), "--quiet"]) == 0
    assert len(onnx.load(model).graph.node) == 2


def test_optimize_writes_reports_in_json_and_markdown(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, first, second = (tmp_path / name for name in ("out.onnx", "r.json", "r.md"))
    options = ["--report", str(first), "--report", str(second), "--json"]
    assert run(["optimize", str(model), str(out), *options]) == 0
    assert as_json(capsys) == json.loads(first.read_text())
    data = json.loads(first.read_text())
    assert data["output"] == str(out) and data["verification"]["passed"]
    assert "# onnxopt:" in second.read_text()


def test_dry_run_writes_nothing_but_reports(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    report = tmp_path / "r.json"
    options = ["--dry-run", "--report", str(report)]
    assert run(["optimize", str(model), str(model), *options]) == 0
    assert model.read_bytes() == before
    assert json.loads(report.read_text())["output"] is None
    assert "remove-identity 1" in capsys.readouterr().out


def test_a_report_may_not_overwrite_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.json"
    model.write_bytes(onnx.parser.parse_model(TEXT).SerializeToString())
    out = str(tmp_path / "out.onnx")
    assert run(["optimize", str(model), out, "--report", str(model)]) == 2
    assert "would overwrite a model" in capsys.readouterr().err


def test_optimize_quietly_says_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["optimize", str(model), str(tmp_path / "o.onnx"), "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_optimize_verbosely_lists_each_rewrite(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["optimize", str(model), "--dry-run", "-v"]) == 0
    assert "remove-identity: Identity making 'a':" in capsys.readouterr().out


def test_options_reach_the_optimizer(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skip = ["--skip", "remove-identity", "--set-shape", "x=4,3", "--no-verify", "--json"]
    assert run(["optimize", str(model), "--dry-run", *skip]) == 0
    data = as_json(capsys)
    assert data["rewrites"] == {}
    assert data["verification"]["status"] == "skipped"
    assert data["after"]["inputs"] == {"x": "float32[4,3]"}


def test_external_data_goes_where_it_is_told(model: Path, tmp_path: Path) -> None:
    source = REPOSITORY / "models" / "digits_resnet.onnx"
    out = tmp_path / "out" / "out.onnx"
    out.parent.mkdir()
    options = ["--no-verify", "--quiet"]
    assert run(["optimize", str(source), str(out), *options, "--external-data", "always"]) == 0
    assert len(list(out.parent.iterdir())) == 2
    assert run(["optimize", str(out), str(out), *options]) == 0
    assert out.stat().st_size < 100_000  # auto keeps it as it was
    assert run(["optimize", str(out), str(out), *options, "--external-data", "never"]) == 0
    assert out.stat().st_size > 500_000


def test_inspect_shows_the_whole_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(model)]) == 0
    text = capsys.readouterr().out
    for word in ("in x", "float32[N,3]", "opset", "MatMul", "largest nodes", "costs are for N = 1"):
        assert word in text
    assert run(["inspect", str(model), "--json"]) == 0
    data = as_json(capsys)
    assert data["schema"] == "onnxopt-inspection/1"
    assert data["cost"]["macs"] == 6 and data["opsets"] == {"ai.onnx": 17}
    assert data["largest"][0]["operator"] == "MatMul"


def test_compare_finds_equal_models_equal(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert run(["optimize", str(model), str(out), "-q"]) == 0
    assert run(["compare", str(model), str(out), "--exact"]) == 0
    assert "equal bit for bit" in capsys.readouterr().out


def test_compare_finds_different_models_different(
    model: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", str(model), str(other)]) == 1
    text = capsys.readouterr().out
    assert "DIFFERS" in text and "the first tensor that differs: 'b'" in text
    assert run(["compare", str(model), str(other), "--json"]) == 1
    data = as_json(capsys)
    assert data["schema"] == "onnxopt-comparison/1" and not data["verdict"]["passed"]


def test_explain_gives_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    source = REPOSITORY / "models" / "tiny" / "nhwc.onnxtxt"
    assert run(["explain", str(source)]) == 0
    assert "not made:" in capsys.readouterr().out
    assert run(["explain", str(source), "--json"]) == 0
    data = as_json(capsys)
    assert data["declined"] and all(entry["reason"] for entry in data["declined"])


def test_rules_lists_rules_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules"]) == 0
    text = capsys.readouterr().out
    assert "remove-identity" in text and "fold-constants" in text
    assert run(["rules", "--json"]) == 0
    kinds = {entry["kind"] for entry in as_json(capsys)["entries"]}
    assert kinds == {"rule", "pass"}


def test_rules_shows_one_rule_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules", "remove-identity"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("remove-identity (rule, exact)") and "def rewrite(" in text
    assert run(["rules", "fold-constants"]) == 0
    assert "(pass, " in capsys.readouterr().out


def test_a_mistyped_rule_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules", "remove-identty"]) == 2
    assert "did you mean remove-identity" in capsys.readouterr().err


def test_check_passes_within_the_budget_and_fails_beyond_it(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(model), "--max-nodes", "3", "--max-macs", "1k"]) == 0
    assert run(["check", str(model), "--max-nodes", "2", "--max-size", "1MB"]) == 1
    text = capsys.readouterr().out
    assert "BROKEN nodes 3, allowed 2 (--max-nodes 2): over by 1, 50%" in text
    assert "ok     size" in text


def test_check_against_a_base(model: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert run(["optimize", str(model), str(out), "-q"]) == 0
    assert run(["check", str(out), "--against", str(model)]) == 0
    assert run(["check", str(model), "--against", str(out), "-q"]) == 1
    loose = ["--max-nodes", "200%", "--max-size", "200%", "--max-peak-memory", "200%"]
    assert run(["check", str(model), "--against", str(out), *loose]) == 0


def test_check_is_optimized(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(model), "--is-optimized"]) == 1
    assert "remove-identity at Identity making 'a'" in capsys.readouterr().out
    out = tmp_path / "out.onnx"
    assert run(["optimize", str(model), str(out), "-q"]) == 0
    assert run(["check", str(out), "--is-optimized", "--json"]) == 0
    capsys.readouterr()
    assert run(["check", str(model), "--is-optimized", "--json"]) == 1
    data = as_json(capsys)
    assert not data["passed"] and len(data["left_to_do"]) == 1
