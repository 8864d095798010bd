"""Random models are optimized right, once and for all."""

from __future__ import annotations

import generated
import judge
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxopt.errors import OnnxoptError
from onnxopt.optimizer import Options, optimize
from onnxopt.runtime import Session

EXAMPLES = 150
RELATIVE = 2e-4


def check(seed: int) -> bool:
    """Judge one random model; False if ONNX Runtime does not run it to begin with."""
    proto = generated.random_model(seed)
    size = 2
    feeds = judge.drawn(proto, seed, size)
    try:
        expected = Session(proto).run(feeds)
    except OnnxoptError:
        return False
    result = optimize(proto, Options(verify=False))
    assert not any("failed" in note for note in result.report.notes), result.report.notes
    assert not any("the rule failed" in c.what for c in result.report.declined)
    found = Session(result.model).run(feeds)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        scale = np.max(np.abs(value[np.isfinite(value)]), initial=1e-6)
        np.testing.assert_allclose(found[name], value, RELATIVE, RELATIVE * scale, err_msg=name)
    again = optimize(result.model, Options(verify=False))
    assert not again.report.changes, again.report.changes
    assert len(result.model.graph.node) <= len(proto.graph.node)
    names = [node.name for node in result.model.graph.node if node.name]
    assert len(set(names)) == len(names)
    return True


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(st.integers(0, 2**32 - 1))
def test_random_models_are_optimized_right_and_a_second_run_changes_nothing(seed: int) -> None:
    check(seed)


def test_most_random_models_run_so_that_the_test_above_means_something() -> None:
    ran = 0
    for seed in range(40):
        proto = generated.random_model(seed)
        try:
            Session(proto).run(judge.drawn(proto, seed, 2))
            ran += 1
        except OnnxoptError:
            pass
    assert ran >= 30
