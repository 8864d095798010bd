"""Proofs: a wrong cut does not prove, and rounding is no fault of a cut."""

from __future__ import annotations

from collections.abc import Iterable

import judge
import numpy as np
import onnx
import onnx.numpy_helper
from cuts import channels_of, weighted
from pruning_cases import CASES

from onnxopt.pruning.channels import Channels
from onnxopt.pruning.proof import TOLERANCE, prove, within_noise, zeroed


class WrongChannels(Channels):
    """Cuts others than it is told to."""

    def cut(self, dead: Iterable[int]) -> onnx.ModelProto:
        units = [unit for group in self.groups for unit in group.units]
        return super().cut([units[(units.index(unit) + 1) % len(units)] for unit in dead])


def test_a_cut_of_other_channels_does_not_prove() -> None:
    for name in ("relu", "flatten_to_gemm", "qdq", "lstm"):
        proto = next(case for case in CASES if case.name == name).model()
        feeds = [judge.drawn(proto, 1)]
        wrong = WrongChannels(proto, feeds[0])
        proof = prove(wrong, wrong.groups[0].units[:2], feeds)
        assert proof.error > 100 * TOLERANCE
        assert not proof.holds
        assert prove(channels_of(proto), wrong.groups[0].units[:2], feeds).holds


def test_weights_are_zeroed_at_both_ends_and_nowhere_else() -> None:
    proto = weighted(
        "float[N,6] x, float[6,8] w1, float[8] wb, float[8,3] w2",
        "a = MatMul(x, w1) b = Add(a, wb) y = MatMul(b, w2)",
    )
    channels = channels_of(proto)
    unit = channels.groups[0].units[3]
    before = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    model = zeroed(channels, [unit])
    after = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    before["w1"], before["wb"], before["w2"] = (np.array(before[n]) for n in ("w1", "wb", "w2"))
    before["w1"][:, 3] = before["wb"][3] = before["w2"][3] = 0
    for name, array in before.items():
        assert np.array_equal(array, after[name]), name


def test_what_cancels_is_held_to_the_noise_of_the_model_and_not_to_a_fixed_tolerance() -> None:
    body = "a = MatMul(x, w1) b = Mul(a, big) y = ReduceSum<keepdims=1>(b, i1)"
    constants = "float big = {1000.0}, int64[1] i1 = {1}"
    proto = weighted("float[N,64] x, float[64,64] w1", body, constants=constants)
    other = weighted("float[N,64] x, float[64,64] w1", body, constants=constants)
    weight = next(t for t in other.graph.initializer if t.name == "w1")
    array = np.array(onnx.numpy_helper.to_array(weight))
    feeds = [judge.drawn(proto, 1)]
    weight.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1 + 1e-7), "w1"))
    assert within_noise(proto, other, feeds)
    weight.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1.001), "w1"))
    assert not within_noise(proto, other, feeds)
