"""Quantized models run elsewhere first: which ones, and what is told if that fails."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import judge
import numpy as np
import pytest

from onnxopt.graph_protos import operators
from onnxopt.profiling import memory
from onnxopt.profiling.sessions import MeasureError
from onnxopt.splitting import surviving
from onnxopt.splitting.surviving import check_survives

INSIDE = """
    <ir_version: 8, opset_import: ["" : 13, "local" : 1]>
    g (float[1,8] x, bool c) => (float[1,8] y) {
        a = If (c) <
            then_branch = t () => (float[1,8] u) {
                q, s, z = DynamicQuantizeLinear(x)
                u = DequantizeLinear(q, s, z)
            },
            else_branch = e () => (float[1,8] v) { v = Neg(x) }
        >
        y = local.f(a)
    }
    <domain: "local", opset_import: ["" : 13]>
    f (x) => (y) { y = Abs(x) }
"""
QUANTIZED = """
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[2] file) => (uint8[2] y) {
        s = Constant<value = float {0.1}>()
        y = QuantizeLinear(file, s)
    }
"""
FEEDS = {"file": np.ones(2, np.float32)}


def ended(code: int) -> Any:
    return lambda *given, **named: subprocess.CompletedProcess([], code, "", "")


def test_operators_in_bodies_and_local_functions_are_found() -> None:
    found = set(operators(judge.model(INSIDE)))
    assert found == {"If", "DynamicQuantizeLinear", "DequantizeLinear", "Neg", "f", "Abs"}


def test_a_quantized_model_is_run_elsewhere_even_if_only_a_body_is_quantized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "run", ended(memory.CRASHES[0]))
    feeds = [{"x": np.ones((1, 8), np.float32), "c": np.array(True)}]
    with pytest.raises(MeasureError, match="crashes"):
        check_survives(judge.model(INSIDE), feeds, threads=1)


def test_inputs_of_any_name_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []

    def seen(*given: Any, **named: Any) -> Any:
        ended = memory.run_elsewhere(*given, **named)
        codes.append(ended.returncode)
        return ended

    monkeypatch.setattr(surviving, "run_elsewhere", seen)
    check_survives(judge.model(QUANTIZED), [FEEDS], threads=1)
    assert codes == [0]


def test_strings_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surviving, "run_elsewhere", lambda *given, **named: pytest.fail("it ran"))
    feeds = [{**FEEDS, "text": np.array(["a"], object)}]
    check_survives(judge.model(QUANTIZED), feeds, threads=1)


def test_a_process_that_was_killed_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", ended(-signal.SIGKILL))
    with pytest.raises(MeasureError, match="was killed"):
        check_survives(judge.model(QUANTIZED), [FEEDS], threads=1)


def test_a_process_that_is_not_done_in_time_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*given: Any, **named: Any) -> Any:
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(MeasureError, match="cannot be found out"):
        check_survives(judge.model(QUANTIZED), [FEEDS], threads=1)
