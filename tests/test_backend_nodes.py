"""The node tests of the ONNX backend test suite, as an outside judge of the rewriter.

Verification is off here: what is judged is the rewriting itself, on inputs that its authors never
saw. Each variant must have no failure at all.
"""

from __future__ import annotations

import backend_cases
import judge
import onnx
import pytest

from onnxopt.changes import Numerics, weakest
from onnxopt.errors import OnnxoptError
from onnxopt.graph import RANDOM_OPERATORS
from onnxopt.optimizer import SMALLEST_GROWTH_BYTES, Options, optimize
from onnxopt.runtime import Session

FEWEST_THAT_RUN = 1000
HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def is_random(proto: onnx.ModelProto) -> bool:
    names = set(judge.operators(proto)) | {n.op_type for f in proto.functions for n in f.node}
    return bool(names & (RANDOM_OPERATORS | {"Dropout"}))


def numerics_of(proto: onnx.ModelProto, found: Numerics) -> Numerics:
    """ONNX Runtime keeps float32 between float16 operators, so bits depend on their neighbours."""
    infos = (*proto.graph.input, *proto.graph.output)
    half = any(info.type.tensor_type.elem_type in HALF for info in infos)
    return "rounding" if half else found


def failure(case: backend_cases.Case) -> str | None:
    """What is wrong with the optimized model; None if it is right."""
    result = optimize(case.model, Options(verify=False))
    if result.model.ByteSize() > case.model.ByteSize() + SMALLEST_GROWTH_BYTES:
        return "larger than promised"
    if any("failed" in note for note in result.report.notes):
        return str(result.report.notes)
    again = optimize(result.model, Options(verify=False))
    if again.report.changes:
        return f"a second run changes it: {again.report.changes[0]}"
    try:
        found = Session(result.model).run(case.feeds)
    except OnnxoptError as error:
        return f"does not run: {error}"
    if is_random(case.model):
        return None
    numerics = numerics_of(case.model, weakest(c.numerics for c in result.report.changes))
    rtol, atol = (2e-3, 2e-3) if numerics == "rounding" else (0.0, 0.0)
    try:
        for name, value in Session(case.model).run(case.feeds).items():
            judge.assert_close(value, found[name], rtol, atol, name)
    except AssertionError as error:
        return str(error)
    return None


@pytest.mark.parametrize("variant", backend_cases.VARIANTS)
def test_no_backend_node_test_fails(variant: backend_cases.Variant) -> None:
    ran, failures = 0, {}
    for case in backend_cases.cases(variant):
        try:
            Session(case.model).run(case.feeds)
        except OnnxoptError:
            continue  # what ONNX Runtime cannot run says nothing about us
        ran += 1
        if (reason := failure(case)) is not None:
            failures[case.name] = reason
    assert not failures
    assert ran >= FEWEST_THAT_RUN, f"only {ran} ran"
