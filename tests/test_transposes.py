"""Transposes are moved to where they cancel: random graphs, and each pattern of exporters by name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from judge import apply, assert_same, drawn, model, operators
from transposed_graphs import models

from onnxopt.changes import Ledger
from onnxopt.errors import OnnxoptError
from onnxopt.model import Model
from onnxopt.passes.transposes import CancelTransposes
from onnxopt.runtime import Session
from onnxopt.shapes import infer

SLOW = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def cancelled(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, Ledger]:
    return apply(proto, CancelTransposes())


def transposes(proto: onnx.ModelProto) -> int:
    return operators(proto).count("Transpose")


@SLOW
@given(models())
def test_random_graphs_give_the_same_and_never_get_more_transposes(drawn_model):
    proto, feeds = drawn_model
    try:
        Session(proto).run(feeds)
    except OnnxoptError:
        return
    after, ledger = cancelled(proto)
    assert_same(proto, after, ledger.numerics, feeds)
    assert transposes(after) <= transposes(proto)
    assert len(operators(after)) <= len(operators(proto))
    again, second = cancelled(after)
    assert not second.changes
    assert again.SerializeToString(deterministic=True) == after.SerializeToString(
        deterministic=True
    )
