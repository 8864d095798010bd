"""The progress bar: only where somebody sees it, and only when it takes long."""

from __future__ import annotations

import io
import sys
import time

import pytest

import onnxopt.cli.progress
from onnxopt.cli.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, patience_s: float, *, quiet: bool = False
) -> str:
    """What half a second of work shows."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(onnxopt.cli.progress, "PATIENCE_S", patience_s)
    with Bar(quiet=quiet) as bar:
        bar("verifying", 0.0)
        time.sleep(0.5)
        bar("bisecting", 0.5)
    return stream.getvalue()


def test_long_work_shows_its_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "verifying" in shown(monkeypatch, Terminal(), 0.01)


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal(), 60.0) == ""


def test_nothing_is_shown_in_a_file_or_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), 0.01) == ""
    assert shown(monkeypatch, Terminal(), 0.01, quiet=True) == ""
