"""Layers at several widths, and predictions: on made-up times, and by structure on real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import onnx.checker
import onnx.parser
import profiles
import pytest
from judge import REPOSITORY, drawn
from profiles import conv_kernel, conv_us, residual

import onnxopt
from onnxopt.errors import UsageError
from onnxopt.kernel_times import KernelTimes, Source
from onnxopt.kernels import fused_kernels, named
from onnxopt.latency import LayerLatency, predict
from onnxopt.layer_shapes import LayerShape, distinct_layers, widths
from onnxopt.profiler import make_kit, profile_model
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Profile
from onnxopt.profiling.events import Kernel
from onnxopt.profiling.kit import read_kit
from onnxopt.profiling.measure import measure
from onnxopt.runtime import Session
from onnxopt.small_models import small_model

SHORT = Asked(seconds=0.01)


# Layers and their small models


def test_layers_that_are_alike_are_one_layer_with_all_their_nodes() -> None:
    proto = named(residual())
    found = distinct_layers(fused_kernels(proto), proto)
    convolutions = {layer: nodes for layer, nodes in found.items() if layer.op == "Conv"}
    assert sorted(name for nodes in convolutions.values() for name in nodes) == ["first", "second"]
    assert {(layer.inputs, layer.outputs, layer.kernel) for layer in convolutions} == {
        (16, 16, (3, 3))
    }
    (product,) = (layer for layer in found if layer.op == "MatMul")
    assert (product.inputs, product.outputs, product.batch) == (16, 10, (1,))


def test_nodes_without_names_get_names_of_their_own_and_others_keep_theirs() -> None:
    proto = residual()
    proto.graph.node[0].name = proto.graph.node[1].name = ""
    proto.graph.node[2].name = "sum"
    names = [node.name for node in named(proto).graph.node]
    assert len(set(names)) == len(names) and "" not in names
    assert names[4:] == ["last", "mean", "flat", "classes"]


CONV = LayerShape(
    "Conv", (1,), 32, 48, (8, 8), (8, 8), (3, 3), attributes=(("pads", (1, 1, 1, 1)),)
)


def test_the_widths_of_a_layer_begin_with_the_whole_one_and_none_comes_twice() -> None:
    found = widths(CONV, 16)
    pairs = [(layer.inputs, layer.outputs) for layer in found]
    assert pairs[0] == (32, 48) and len(set(pairs)) == len(pairs)
    assert {(24, 36), (16, 24), (8, 12), (4, 6)} <= set(pairs)  # together
    assert {(32, 16), (16, 48), (16, 16)} <= set(pairs)  # unevenly, in whole blocks
    assert {(31, 48), (31, 24)} <= set(pairs)  # not to be run in blocks


def test_depthwise_layers_keep_as_many_outputs_as_inputs_and_groups_stay_whole() -> None:
    depthwise = LayerShape("Conv", (1,), 32, 32, (8, 8), (8, 8), (3, 3), groups=None)
    assert all(layer.inputs == layer.outputs for layer in widths(depthwise, 16))
    assert {layer.weight[1] for layer in widths(depthwise, 16)} == {1}
    grouped = LayerShape("Conv", (1,), 48, 96, (8, 8), (8, 8), (3, 3), groups=3)
    assert all(layer.inputs % 3 == layer.outputs % 3 == 0 for layer in widths(grouped, 16))


def test_an_image_and_a_few_classes_keep_their_size() -> None:
    first = LayerShape("Conv", (1,), 3, 32, (8, 8), (8, 8), (3, 3))
    assert {layer.inputs for layer in widths(first, 16)} == {3}
    assert len({layer.outputs for layer in widths(first, 16)}) >= 5


def test_costs_of_a_layer_are_those_of_the_model_that_has_it() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,32,8,8] x, float[48,32,3,3] w, float[48] b) => (float[1,48,8,8] y) {
            y = Conv<pads = [1, 1, 1, 1]>(x, w, b)
        }"""
    cost = onnxopt.cost_of(onnx.parser.parse_model(text))
    assert CONV.cost().macs == cost.macs == 64 * 48 * 32 * 9
    assert CONV.cost().bytes == 4 * (32 * 64 + 48 * 32 * 9 + 48 + 48 * 64)


LAYERS = {
    "plain": CONV,
    "fused": replace(CONV, activation="Clip", parameters=(0.0, 6.0), adds=True),
    "leaky": replace(CONV, activation="LeakyRelu", parameters=(0.1,)),
    "depthwise": LayerShape("Conv", (2,), 32, 32, (8, 8), (6, 6), (3, 3), groups=None),
    "multiplied": LayerShape("Conv", (1,), 32, 64, (8, 8), (6, 6), (3, 3), groups=None),
    "transposed": LayerShape("ConvTranspose", (1,), 32, 16, (4, 4), (5, 5), (2, 2)),
    "gemm": LayerShape("Gemm", (5,), 64, 32, transposed=True),
    "matmul": LayerShape("MatMul", (2, 7), 64, 32),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_small_model_of_a_layer_runs_with_a_branch_for_each_width(layer: LayerShape) -> None:
    measured = widths(layer, 16)
    proto = small_model(measured)
    onnx.checker.check_model(proto, full_check=True)
    assert len(proto.graph.output) == len(measured) >= 5
    assert len(proto.SerializeToString()) < 30_000  # the weights are made when it is loaded
    session = Session(proto, optimized=True)
    made = session.run(drawn(proto))
    kept = 2 if layer.kernel else len(layer.batch)  # each branch ends with a mean
    shapes = [width.output_shape[:kept] for width in measured]
    assert [value.shape[:kept] for value in made.values()] == shapes


@pytest.fixture(scope="module")
def digits() -> onnx.ModelProto:
    return onnxopt.load(REPOSITORY / "models" / "digits_resnet.onnx")


@pytest.fixture(scope="module")
def profile(digits: onnx.ModelProto) -> Profile:
    return profile_model(digits, SHORT, source="digits", widths=True)


def test_a_profile_with_widths_tells_each_layer_at_five_widths_or_more(profile: Profile) -> None:
    convolutions = [layer for layer in profile.layers if layer.op == "Conv"]
    assert sum(layer.count for layer in convolutions) == 15
    for layer in convolutions:
        assert len(layer.widths) >= 5 and layer.fit is not None
        assert layer.startup_share is not None and 0 <= layer.startup_share <= 1
        assert layer.in_model_us is not None and layer.in_model_us > 0
        assert all(width.low <= width.high and width.us > 0 for width in layer.widths)
    assert profile.samples and profile.mapped_share is not None and profile.mapped_share > 0.5


def test_a_kit_that_another_machine_measures_gives_the_same_layers(
    digits: onnx.ModelProto, profile: Profile, tmp_path: Path
) -> None:
    made = make_kit(digits, tmp_path / "kit", SHORT, source="digits")
    assert read_kit(tmp_path / "kit") == (made, tmp_path / "kit")
    found = measure(tmp_path / "kit", SHORT)
    assert found.source == "digits"
    for left, right in zip(found.layers, profile.layers, strict=True):
        assert (left.text, left.nodes, len(left.widths)) == (
            right.text,
            right.nodes,
            len(right.widths),
        )


def test_a_kit_is_not_written_into_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        make_kit(residual(), tmp_path, SHORT)
    with pytest.raises(UsageError, match="cannot make the folder"):
        make_kit(residual(), tmp_path / "a" / "b", SHORT)


# Times of kernels


def time_of(times: KernelTimes, inputs: int, outputs: int) -> tuple[float, Source]:
    return times.time_us(Kernel("", *conv_kernel(inputs, outputs)))


def test_what_was_measured_is_told_as_it_was_measured() -> None:
    times = KernelTimes(profiles.profile())
    for width, source in ((64, Source.in_model), (32, Source.alone)):
        us, found = time_of(times, width, width)
        assert us == pytest.approx(conv_us(width, width)) and found is source
    reorder = Kernel("", "ReorderInput", ("float[1,64,8,8]",), ("float[1,64,8,8]",))
    assert times.time_us(reorder) == (2.5, Source.alone)


def test_between_measured_widths_the_fit_finds_times_that_follow_the_law() -> None:
    times = KernelTimes(profiles.profile())
    for inputs, outputs in ((48, 32), (32, 64), (96, 96)):
        us, source = time_of(times, inputs, outputs)
        assert source is Source.between
        assert us == pytest.approx(conv_us(inputs, outputs), rel=1e-6)


def test_what_is_slower_in_the_model_is_slower_at_other_widths_too() -> None:
    times = KernelTimes(profiles.profile(in_model=1.2))
    assert time_of(times, 32, 32)[0] == pytest.approx(1.2 * conv_us(32, 32))
    assert time_of(times, 48, 32)[0] == pytest.approx(1.2 * conv_us(48, 32))
    alone = KernelTimes(profiles.profile(in_model=1.2), in_model=False)
    assert time_of(alone, 64, 64)[1] is Source.alone


def test_of_a_smaller_model_more_lies_in_near_caches() -> None:
    whole = [Kernel("", *conv_kernel(64, 64)), Kernel("", "Relu", *(conv_kernel(64, 64)[2],) * 2)]
    slower = KernelTimes(profiles.profile(in_model=1.2))
    assert slower.smaller(whole) == pytest.approx(1)
    assert slower.smaller(whole * 2) == pytest.approx(1)
    assert 1 / 1.2 < slower.smaller(whole[1:]) < 1
    assert slower.smaller([]) == pytest.approx(1 / 1.2)
    assert KernelTimes(profiles.profile(in_model=0.9)).smaller(whole[1:]) == 1


def test_other_sizes_of_an_operator_go_by_bytes_and_unknown_ones_by_all() -> None:
    times = KernelTimes(profiles.profile())
    half = ("float[1,32,8,8]",)
    us, source = times.time_us(Kernel("", "Relu", half, half))
    assert source is Source.operator and us == pytest.approx(1 + 3 / 2)  # 1 us is start-up
    us, source = times.time_us(Kernel("", "Unheard", half, half))
    assert source is Source.unknown and us > 0
    assert times.time_us(Kernel("", "Nothing", (), ()))[0] > 0


def test_the_latency_of_layers_falls_with_their_widths_in_whole_blocks() -> None:
    latency = LayerLatency(profiles.profile())
    assert latency.nodes == ("conv",)
    assert latency.us("conv", 64, 64) == pytest.approx(conv_us(64, 64))
    assert latency.us("conv", 64, 33) == latency.us("conv", 64, 48)  # kernels take 16 at once
    steps = [latency.us("conv", width, width) for width in (64, 48, 32, 16)]
    assert steps == sorted(steps, reverse=True)
    assert latency.us("conv", 0, 64) == 0
    with pytest.raises(KeyError):
        latency.us("elsewhere", 1, 1)


def test_a_profile_without_widths_tells_no_latency_of_layers() -> None:
    with pytest.raises(UsageError, match="no layers at several widths"):
        LayerLatency(profiles.profile(widths=()))


# Predictions


def test_a_model_that_was_profiled_is_predicted_from_its_own_kernels(
    digits: onnx.ModelProto, profile: Profile
) -> None:
    found = predict(digits, profile)
    assert found.shares[Source.in_model] == pytest.approx(1)
    total = sum(kernel.us for kernel in profile.kernels) + profile.overhead.run_us
    assert found.ms == pytest.approx(total / 1000)
    assert found.kernels == len(profile.kernels)


def test_another_model_is_predicted_from_layers_alone(
    digits: onnx.ModelProto, profile: Profile
) -> None:
    found = predict(digits, profile, in_model=False)
    assert found.shares[Source.alone] > 0.5 and found.ms > 0
    assert sum(found.shares.values()) == pytest.approx(1)


def test_a_cut_model_is_predicted_with_the_times_of_narrower_layers(
    digits: onnx.ModelProto, profile: Profile
) -> None:
    half = onnxopt.prune(digits, onnxopt.Budget("flops", 0.5)).model
    found = predict(half, profile)
    assert found.shares[Source.alone] + found.shares[Source.between] > 0.1
    assert found.shares[Source.unknown] < 0.1


def test_every_layer_of_the_profile_has_a_latency_at_any_width(profile: Profile) -> None:
    latency = LayerLatency(profile)
    for layer in profile.layers:
        whole = layer.widths[0]
        for inputs, outputs in ((whole.inputs, whole.outputs), (5, 7), (whole.inputs, 1)):
            assert latency.us(layer.nodes[0], inputs, outputs) > 0
        assert latency.startup_us(layer.nodes[0]) >= 0
