"""Channel groups: which there are, what is left of weights, and that cuts prove exact."""

from __future__ import annotations

import onnx.shape_inference
import pytest
from cuts import assert_cuts_hold, channels_of, cut_to_one, random_cut, reasons, units
from pruning_cases import CASES, Case

from onnxopt.pruning.channels import Channels

by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
INFERRED = [
    case
    for case in CASES
    if "com.microsoft" not in case.body and case.name not in ("groupnorm", "upsample")
]
"""ONNX does not know the shapes of the others."""


@by_name
def test_the_channels_that_live_and_die_together_form_the_expected_groups(case: Case) -> None:
    channels = channels_of(case.model())
    assert units(channels) == case.units, reasons(channels)
    changed = tuple(i for i, group in enumerate(channels.groups) if not group.exact)
    assert changed == case.changed
    for part in case.reasons:
        assert part in reasons(channels)


@by_name
def test_cuts_of_random_channels_prove_exact_where_they_claim_to_be(case: Case) -> None:
    assert_cuts_hold(case.model())


@by_name
def test_cuts_of_random_channels_prove_where_layers_choose_what_they_read(case: Case) -> None:
    proto = case.model()
    channels = channels_of(proto, selects=0)
    assert_cuts_hold(proto, channels)
    _assert_nothing_else_is_cut(channels, channels_of(proto))


def _assert_nothing_else_is_cut(channels: Channels, others: Channels) -> None:
    """What layers choose from is cut as it is where they read all of it."""
    made = [group for group in channels.groups if not group.is_read]
    assert [len(group.units) for group in made] == units(others)
    for group, other in zip(made, others.groups, strict=True):
        expected, found = others.cut(other.units[:1]), channels.cut(group.units[:1])
        assert found.SerializeToString() == expected.SerializeToString()


@by_name
def test_weights_lose_the_indices_of_the_channels_that_go(case: Case) -> None:
    left = cut_to_one(channels_of(case.model()))
    assert {name: left[name] for name in case.left} == case.left


@pytest.mark.parametrize("case", INFERRED, ids=lambda case: case.name)
def test_what_a_cut_model_declares_agrees_with_what_it_computes(case: Case) -> None:
    declared = onnx.shape_inference.infer_shapes(case.model())
    channels = channels_of(declared)
    dead = random_cut(channels, 0, channels.groups)
    inferred = onnx.shape_inference.infer_shapes(channels.cut(dead), strict_mode=True)
    assert list(inferred.graph.output) == list(declared.graph.output)
