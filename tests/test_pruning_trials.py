"""Trials of a cut, refitted in turns: which groups have such trials, and what they come to."""

from __future__ import annotations

import judge
import numpy as np
import onnx
import pytest
from cuts import weighted

from onnxopt.graph import Array
from onnxopt.pruning import trials
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.sensitivity import factors, output_change
from onnxopt.pruning.statistics import SENSITIVITY_CUTS, Ranking, rank
from onnxopt.pruning.stepper import Stepper, weights_of
from onnxopt.pruning.trials import Couple, Turned, couples

DENSE = (
    "float[N,6] x, float[6,12] w1, float[12] wb1, float[12,5] w2, float[5] wb2",
    "a = Gemm(x, w1, wb1) b = Relu(a) y = Gemm(b, w2, wb2)",
)
BLOCK = (
    "float[N,3,6,6] x, float[4,3,3,3] w0, float[4] wb0, float[8,4,3,3] w1, float[8] wb1,"
    " float[4,8,3,3] w2, float[4] wb2",
    "s = Conv <pads = [1,1,1,1]> (x, w0, wb0) a = Conv <pads = [1,1,1,1]> (s, w1, wb1) b = Relu(a)"
    " c = Conv <pads = [1,1,1,1]> (b, w2, wb2) d = Add(c, s) y = Relu(d)",
)


def setup(
    proto: onnx.ModelProto, count: int = 4, size: int = 16
) -> tuple[Channels, list[Ranking], list[dict[str, Array]]]:
    batches = [judge.drawn(proto, seed, size) for seed in range(count)]
    channels = Channels(proto, batches[0])
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    return channels, rank(proto, channels, channels.groups, layers, batches), batches


def couple_of(proto: onnx.ModelProto, first: str) -> tuple[int, Couple, list[Ranking]]:
    channels, rankings, _ = setup(proto)
    found = couples(channels, rankings)
    number = next(n for n, couple in found.items() if couple.first.weight == first)
    return number, found[number], rankings


@pytest.mark.parametrize("model", [DENSE, BLOCK])
def test_a_group_between_two_layers_has_a_couple(model: tuple[str, str]) -> None:
    number, couple, rankings = couple_of(weighted(*model), "w1")
    units = len(rankings[number].order)
    assert couple.second.weight == "w2"
    for share, kept in zip(SENSITIVITY_CUTS, couple.kept, strict=True):
        assert kept.shape == (units,) and kept.sum() == units - round(share * units)
    (gone,) = {tuple(np.flatnonzero(~couple.kept[0]))}
    assert set(gone) == set(rankings[number].tried[0].tolist())


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        # Another layer reads the channels; something else lies between; two layers make them.
        (
            "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[8,4] w3",
            "a = Gemm(x, w1, wb1) b = Relu(a) c = MatMul(b, w2) d = MatMul(b, w3) y = Add(c, d)",
        ),
        (
            "float[N,6] x, float[6,8] w1, float[8] wb1, float[8,4] w2, float[4] wb2",
            "a = Gemm(x, w1, wb1) b = Tanh(a) y = Gemm(b, w2, wb2)",
        ),
        (
            "float[N,6] x, float[6,8] w1, float[8] wb1, float[6,8] w3, float[8] wb3,"
            " float[8,4] w2, float[4] wb2",
            "a = Gemm(x, w1, wb1) c = Gemm(x, w3, wb3) e = Add(a, c) b = Relu(e)"
            " y = Gemm(b, w2, wb2)",
        ),
    ],
)
def test_other_groups_have_none(inputs: str, body: str) -> None:
    channels, rankings, _ = setup(weighted(inputs, body))
    assert rankings and couples(channels, rankings) == {}


@pytest.mark.parametrize("model", [DENSE, BLOCK])
def test_a_turned_trial_cuts_the_same_channels_and_does_less_damage(
    model: tuple[str, str],
) -> None:
    proto = weighted(*model)
    channels, rankings, batches = setup(proto, count=6, size=32)
    (number, couple), *_ = couples(channels, rankings).items()
    stepper = Stepper(proto, batches, threads=1)
    reference = stepper.halted().finish()
    turned = Turned(couple, stepper)
    for which, trial in enumerate(rankings[number].trials):
        made = turned.weights(which, trial)
        rows = couple.second.matrix({**weights_of(proto, couple.second.parameters), **made})[0]
        gone = np.repeat(~couple.kept[which], couple.second.taps)
        assert not rows[:-1][gone].any() and rows[:-1][~gone].any()
        before = weights_of(proto, ["w1"])["w1"]
        same = np.moveaxis(made["w1"] == before, couple.first.out_axis, 0)
        assert same[~couple.kept[which]].all() and not same[couple.kept[which]].all()
        alone = output_change(reference, stepper.finish(changed=trial))
        both = output_change(reference, stepper.finish(changed=made))
        assert alone is not None and both is not None and both < 0.95 * alone


def test_the_factor_is_that_of_the_turned_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = weighted(*BLOCK)
    channels, rankings, batches = setup(proto, count=6, size=32)
    found = couples(channels, rankings)
    (number,) = found
    plain, priced = (
        factors(proto, rankings, batches),
        factors(proto, rankings, batches, couples=found),
    )
    turned = Turned(found[number], Stepper(proto, batches, threads=1))
    reference = Stepper(proto, batches, threads=1).finish()
    lost = own = 0.0
    for which, (gone, trial) in enumerate(
        zip(rankings[number].tried, rankings[number].trials, strict=True)
    ):
        changed = turned.stepper.finish(changed=turned.weights(which, trial))
        change, error = output_change(reference, changed), rankings[number].curve[len(gone)]
        assert change is not None
        lost, own = lost + change * error, own + error * error
    one, other = plain[number], priced[number]
    assert one is not None and other is not None
    np.testing.assert_allclose(other, lost / own, rtol=1e-4)
    assert other < one
    others = [i for i in range(len(rankings)) if i != number]
    assert [plain[i] for i in others] == [priced[i] for i in others]
    monkeypatch.setattr(trials, "TURNS", 0)
    assert factors(proto, rankings, batches, couples=found)[number] == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_group_that_loses_all_its_channels_in_a_trial_is_judged_like_any_other(
    channels: int,
) -> None:
    """Three quarters of one channel are that channel: nothing is left to refit in turns."""
    proto = weighted(
        f"float[N,3,6,6] x, float[{channels},3,3,3] w1, float[{channels}] wb1,"
        f" float[4,{channels},3,3] w2, float[4] wb2",
        "a = Conv <pads = [1,1,1,1]> (x, w1, wb1) b = Relu(a)"
        " y = Conv <pads = [1,1,1,1]> (b, w2, wb2)",
    )
    found, rankings, batches = setup(proto)
    for factor in factors(proto, rankings, batches, couples=couples(found, rankings)):
        assert factor is None or factor >= 0
