"""Shape inference does not compute long vectors, and still knows how long they are."""

from __future__ import annotations

import resource

import judge
import onnx
import pytest

from onnxopt.errors import UnverifiableError
from onnxopt.graph import Variable
from onnxopt.model import Model
from onnxopt.optimizer import optimize
from onnxopt.shapes import infer

HEAD = '<ir_version: 8, opset_import: ["" : 17]> '


def a_sum(limit: str, more: str = "") -> onnx.ModelProto:
    return judge.model(
        HEAD
        + f"""g (float[1] x) => (float y)
        <int64 a = {{0}}, int64 b = {{{limit}}}, int64 c = {{1}}> {{
        {more or "d = Identity(b)"}
        r = Range(a, b, c)  f = Cast<to = 1>(r)  t = ReduceSum<keepdims = 0>(f)  y = Add(x, t) }}"""
    )


def shape_of(model: Model, name: str) -> object:
    values = (v for node in model.graph.nodes for v in node.outputs)
    return next(v.shape for v in values if v.name == name and isinstance(v, Variable))


@pytest.mark.parametrize("limit", ["9", "2000000000"])
def test_the_length_of_a_constant_range_is_known(limit: str) -> None:
    model = Model.from_proto(a_sum(limit))
    infer(model)
    assert shape_of(model, "r") == (int(limit),)


def test_a_vector_of_many_gigabytes_is_refused_without_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnverifiableError, match="GB"):
        optimize(a_sum("2000000000"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_range_in_a_body_is_seen_with_the_constants_around_it() -> None:
    proto = judge.model(
        HEAD
        + """g (bool p, float[1] x) => (float[N] y)
        <int64 a = {0}, int64 b = {2000000000}, int64 c = {1}> {
        y = If(p) <then_branch = t () => (float[N] u) { u = Identity(x) },
                   else_branch = e () => (float[N] v) { r = Range(a, b, c)  v = Cast<to = 1>(r) }>
        }"""
    )
    model = Model.from_proto(proto)
    infer(model)
    body = model.graph.nodes[0].bodies[1]
    assert body.nodes[0].outputs[0].shape == (2000000000,)
