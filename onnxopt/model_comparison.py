"""Compare two models: the verdict on their outputs, and where inside they begin to differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxopt.changes import Numerics
from onnxopt.errors import OnnxoptError
from onnxopt.userdata import UserData, load_user_data
from onnxopt.verify import OutputError, Verdict, verify

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
    return Comparison(verdict, first_difference(a, b, numerics, data))


def first_difference(
    a: onnx.ModelProto, b: onnx.ModelProto, numerics: Numerics, user_data: UserData | None = None
) -> OutputError | None:
    """The first tensor of the main graph of `a` that `b` has too, and that differs."""
    made_by_b = _made(b)
    shared = [name for name in _made(a) if name in made_by_b]
    try:
        verdict = verify(
            _showing(a, shared), _showing(b, shared), numerics=numerics, user_data=user_data
        )
    except OnnxoptError:  # an inner value that cannot be an output, say an optional
        return None
    return next((output for output in verdict.outputs if not output.ok), None)


def _made(proto: onnx.ModelProto) -> dict[str, None]:
    return {name: None for node in proto.graph.node for name in node.output if name}


def _showing(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The model with these values, and no others, as outputs."""
    declared = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    for name in names:
        copy.graph.output.append(declared.get(name, onnx.ValueInfoProto(name=name)))
    return copy
