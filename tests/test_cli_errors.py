"""Whatever goes wrong: one clear line, a remedy, the right exit code, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from judge import REPOSITORY

import onnxopt.model
from onnxopt.cli.main import run
from onnxopt.errors import BadModelError, CheckError, OnnxoptError, UnverifiableError, UsageError

MODEL = str(REPOSITORY / "models" / "tiny" / "residual.onnxtxt")


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """The exit code of a command whose model fails to load with `error`."""

    def load(path: object) -> None:
        raise error

    monkeypatch.setattr(onnxopt.model, "load", load)
    return run(["inspect", "m.onnx", *options])


@pytest.mark.parametrize(
    ("kind", "code"),
    [(CheckError, 1), (UsageError, 2), (BadModelError, 3), (UnverifiableError, 4)],
)
def test_each_kind_of_error_has_its_exit_code(
    kind: type[OnnxoptError],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert failing(kind("it\nbroke", "mend it"), monkeypatch) == code
    assert capsys.readouterr() == ("", "error: it broke\n  fix: mend it\n")


def test_an_unexpected_exception_is_reported_in_one_line_as_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(KeyError("oops"), monkeypatch) == 1
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert err.startswith("error: a bug in onnxopt: KeyError: 'oops'\n  fix: please report it")


def test_verbose_shows_the_traceback_of_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(KeyError("oops"), monkeypatch, "-v") == 1
    assert "Traceback" in capsys.readouterr().err


def test_too_little_memory_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(MemoryError(), monkeypatch) == 1
    assert "error: there is not enough memory" in capsys.readouterr().err


def test_an_interrupt_exits_with_130_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr() == ("", "error: interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["inspect"],
        ["inspect", "a", "b"],
        ["inspect", "--nonsense", MODEL],
        ["optimize", MODEL],
        ["optimize", MODEL, "out.onnx", "--external-data", "sometimes"],
        ["optimize", MODEL, "out.onnx", "--allow-growth", "lots"],
        ["optimize", MODEL, "out.onnx", "--set-shape", "x"],
        ["optimize", MODEL, "out.onnx", "--set-shape", "x=1,a"],
        ["optimize", MODEL, "out.onnx", "--report", "report.html"],
        ["optimize", MODEL, "no/such/folder/out.onnx"],
        ["check", MODEL],
        ["check", MODEL, "--max-size", "big"],
        ["check", MODEL, "--max-size", "105%"],
        ["rules", "nonsense"],
        ["rules", "check"],
        ["rules", "check", "no/such/folder"],
        ["rules", "remove-identity", "folder"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_with_2_and_says_what_to_do(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") <= 2
    assert list(tmp_path.iterdir()) == []


def test_no_command_at_all_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "onnxopt optimize model.onnx small.onnx" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["inspect", "explain", "check --max-nodes 5", "optimize"])
def test_a_missing_model_exits_with_3(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing, output = str(tmp_path / "missing.onnx"), str(tmp_path / "out.onnx")
    name, *options = command.split()
    assert run([name, missing, *([output] if name == "optimize" else []), *options]) == 3
    assert "there is no file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    command = f"{sys.executable} -m onnxopt inspect {MODEL} --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
