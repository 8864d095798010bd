"""`onnxopt profile` and `python -m onnxopt.profiling`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from profiles import residual, written

from onnxopt.cli.main import run
from onnxopt.profiling.__main__ import main
from onnxopt.profiling.document import read_profile

QUICK = ("--seconds", "0.01")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(residual(), tmp_path / "model.onnx")


def test_the_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text and "  onnxopt profile" in text and "Exit codes" in text


def test_the_table_tells_times_kernels_layers_and_whether_to_trust_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.json"
    assert run(["profile", str(model), "--widths", "-o", str(out), *QUICK]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("load", "first run", "steady state", "peak memory", "start-up", "fit error"):
        assert word in text
    assert "is mapped to nodes of the file" in text and "the model against itself" in text
    assert read_profile(out).layers


def test_json_is_all_that_is_printed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", str(model), "--json", "--batch", "3", *QUICK]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "onnxopt-profile/2" and data["layers"] == []
    assert data["settings"]["shapes"] == {"x": [3, 16, 8, 8]}
    assert any("first" in kernel["nodes"] for kernel in data["kernels"])


def test_a_kit_is_measured_on_the_device_and_on_the_desk(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit, device = tmp_path / "kit", tmp_path / "device.json"
    shape = ("--set-shape", "x=2,16,8,8")
    assert run(["profile", str(model), "--widths", "--kit", str(kit), *shape]) == 0
    assert f"python -m onnxopt.profiling {kit}" in capsys.readouterr().out
    assert main([str(kit), "-o", str(device), *QUICK]) == 0
    assert "steady state" in capsys.readouterr().out
    found = read_profile(device)
    assert found.source == str(model) and found.layers and found.mapped_share is not None
    assert found.settings.shapes == {"x": (2, 16, 8, 8)}
    assert run(["profile", str(kit), "--quiet", *QUICK]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--set-shape", "y=1"], 2, "no input 'y'"),
        (["--set-shape", "x=1,3,8,8"], 2, "'x' has a fixed dimension of 16"),
        (["--provider", "Nonsense"], 2, "no provider 'Nonsense'"),
        (["--inputs", "none.npz"], 2, "there is no file 'none.npz'"),
        (["--seconds", "0"], 2, "above 0"),
        (["-o", "nowhere/p.json"], 2, "there is no folder"),
        (["--threads", "0"], 2, "threads"),
    ],
)
def test_mistakes_end_in_one_line_and_their_exit_code(
    options: list[str],
    code: int,
    said: str,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["profile", str(model), *options]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and said in err and "Traceback" not in err


def test_models_that_cannot_be_read_or_run_have_their_exit_codes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"rubbish")
    assert run(["profile", str(tmp_path / "bad.onnx")]) == 3
    foreign = residual()
    foreign.graph.node[1].op_type = "Unheard"
    assert run(["profile", str(written(foreign, tmp_path / "foreign.onnx")), *QUICK]) == 4
    assert run(["profile", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["none.onnx"], 2, "there is no file 'none.onnx'"),
        (["MODEL", "--set-shape", "x"], 2, "makes no sense"),
        (["MODEL", "--set-shape", "x=1,-1"], 2, "makes no sense"),
        (["MODEL", "-o", "nowhere/p.json"], 2, "there is no folder"),
        (["MODEL", "--batch", "0"], 2, "at least 1"),
        (["BAD"], 4, "cannot load"),
    ],
)
def test_the_device_says_mistakes_in_one_line_too(
    options: list[str],
    code: int,
    said: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"rubbish")
    files = {"MODEL": str(model), "BAD": str(tmp_path / "bad.onnx")}
    assert main([files.get(option, option) for option in options]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and said in err


def test_an_old_profile_stays_if_measuring_fails(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("old")
    assert run(["profile", str(model), "-o", str(tmp_path / "p.json"), "--provider", "N"]) == 2
    assert (tmp_path / "p.json").read_text() == "old"
