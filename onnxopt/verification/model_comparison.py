"""Compare two models: the verdict on their outputs, and where inside they begin to differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxopt.changes import Numerics
from onnxopt.verification.difference import first_difference
from onnxopt.verification.userdata import load_user_data
from onnxopt.verification.verdict import OutputError, Verdict
from onnxopt.verification.verify import verify

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Comparison:
    """Whether two models compute the same.

    Attributes:
        verdict: on their outputs.
        first_difference: the first tensor, in the order in which the first model runs, that both
            models have and that differs; None if none does.
    """

    verdict: Verdict
    first_difference: OutputError | None = None


def compare(
    a: onnx.ModelProto,
    b: onnx.ModelProto,
    *,
    exact: bool = False,
    verify_data: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run `b` on what is drawn for `a`, and compare.

    Args:
        exact: ask for the same bits, not only up to rounding.
        verify_data: samples to compare on besides the drawn ones.

    Raises:
        BadModelError: `a` is not valid.
        UnverifiableError: ONNX Runtime cannot run `a` here.
        UsageError: samples that do not fit.
    """
    tell = progress or (lambda stage, done: None)
    data = None if verify_data is None else load_user_data(verify_data)
    numerics: Numerics = "exact" if exact else "rounding"
    verdict = verify(a, b, numerics=numerics, user_data=data, progress=lambda line: tell(line, 0.0))
    if verdict.passed:
        return Comparison(verdict)
    tell("looking for the first difference", 0.0)
    failed = next((output.feed for output in verdict.outputs if not output.ok), "")
    return Comparison(verdict, first_difference(a, b, numerics, data, on=failed))
