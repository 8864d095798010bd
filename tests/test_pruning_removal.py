"""Removed blocks: nothing changes where branches give zero; constants and maps are put right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import judge
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from block_cases import NEVER_SILENT, WITH_BLOCKS, Case, silenced
from cuts import weighted
from test_pruning_blocks import REAL, blocks_in, case, random_graph

from onnxopt.graph import Array
from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.blocks import Block, blocks_of
from onnxopt.pruning.removal import Removed, Replaced, StandIn, without
from onnxopt.runtime import Session
from onnxopt.submodel import submodel
from onnxopt.validity import complaint
from onnxopt.verification.feeds import draws

LOSSLESS = Options(verify=False)
OFFSET = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
MAP = np.eye(4, dtype=np.float32) + 0.25


def outputs(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    return Session(proto).run(feeds)


def assert_equal_bits(
    before: onnx.ModelProto, after: onnx.ModelProto, draws: Sequence[Mapping[str, Any]]
) -> None:
    """But for the sign of zero."""
    first, second = Session(before), Session(after)
    for feeds in draws:
        expected, found = first.run(feeds), second.run(feeds)
        assert list(expected) == list(found)
        for name, value in expected.items():
            if isinstance(value, np.ndarray):
                assert value.dtype == found[name].dtype
                assert np.array_equal(value, found[name], equal_nan=value.dtype.kind == "f"), name


SILENT = pytest.mark.parametrize(
    "case",
    [case for case in WITH_BLOCKS if case.name not in NEVER_SILENT],
    ids=lambda case: case.name,
)


def drawn(proto: onnx.ModelProto) -> list[dict[str, Array]]:
    return [judge.drawn(proto, seed, size) for seed, size in ((1, 3), (2, 5), (3, 1))]


@SILENT
def test_a_block_whose_branch_gives_zero_can_go_without_any_change(case: Case) -> None:
    proto = case.model()
    blocks = blocks_of(proto, judge.drawn(proto, 0, 3)).found
    for block in blocks:
        silent = silenced(proto, block)
        assert silent is not None
        assert not shown_values(silent, [block.branch], judge.drawn(proto, 1, 3))[0].any()
        small = without(silent, {block: Removed()})
        assert complaint(small) == complaint(proto)
        assert_equal_bits(silent, small, drawn(proto))


@SILENT
def test_all_blocks_whose_branches_give_zero_can_go_at_once(case: Case) -> None:
    proto = case.model()
    blocks = blocks_of(proto, judge.drawn(proto, 0, 3)).found
    silent = proto
    for block in blocks:
        made = silenced(silent, block)
        assert made is not None
        silent = made
    small = without(silent, dict.fromkeys(blocks, Removed()))
    assert_equal_bits(silent, small, drawn(proto))
    tidy = optimize(small, LOSSLESS).model
    judge.assert_same(small, tidy, "rounding")
    assert_equal_bits(silent, without(silent, dict.fromkeys(blocks[::-1], Removed())), drawn(proto))


@pytest.mark.parametrize("case", WITH_BLOCKS, ids=lambda case: case.name)
def test_the_nodes_and_weights_of_the_branch_are_gone_and_nothing_else(case: Case) -> None:
    proto = case.model()
    for block in blocks_of(proto, judge.drawn(proto, 0, 3)).found:
        small = without(proto, {block: Removed()})
        names = {name for node in proto.graph.node for name in node.output}
        left = {name for node in small.graph.node for name in node.output}
        gone = {
            n for node in proto.graph.node if node.output[0] in block.nodes for n in node.output
        }
        assert left == names - gone
        read = {name for node in small.graph.node for name in node.input}
        ours = {t.name for t in small.graph.initializer if t.name.startswith("w")}
        assert ours <= read
        assert [o.name for o in small.graph.output] == [o.name for o in proto.graph.output]
        assert [i.name for i in small.graph.input] == [i.name for i in proto.graph.input]


def test_a_weight_that_is_read_elsewhere_too_stays() -> None:
    body = "c = Conv(x, w1) s = Add(x, c) y = Conv(s, w1)"
    proto = weighted("float[N,4,8,8] x, float[4,4,1,1] w1", body)
    (block,) = blocks_of(proto, judge.drawn(proto)).found
    small = without(proto, {block: Removed()})
    assert [t.name for t in small.graph.initializer] == ["w1"]
    assert judge.operators(small) == ["Identity", "Conv"]


def test_defaults_of_inputs_stay_though_only_the_branch_read_them() -> None:
    proto = judge.model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x, float[2,2] w) => (float[2,2] y)
        <float[2,2] w = {1, 2, 3, 4}> { m = MatMul(x, w) y = Add(x, m) }"""
    )
    (block,) = blocks_of(proto, {"x": np.ones((2, 2), np.float32)}).found
    small = without(proto, {block: Removed()})
    assert [info.name for info in small.graph.input] == ["x", "w"]
    assert [t.name for t in small.graph.initializer] == ["w"]


def test_the_model_that_is_given_stays_as_it_is() -> None:
    proto = case("basic").model()
    before = proto.SerializeToString(deterministic=True)
    (block,) = blocks_of(proto, judge.drawn(proto)).found
    without(proto, {block: Removed()})
    assert proto.SerializeToString(deterministic=True) == before


def test_of_blocks_in_a_block_only_the_outer_one_counts() -> None:
    proto = case("blocks in a block").model()
    blocks = blocks_of(proto, judge.drawn(proto)).found
    alone = without(proto, {blocks[-1]: Removed()})
    together = without(proto, dict.fromkeys(blocks, Removed()))
    assert judge.operators(together) == judge.operators(alone) == ["Identity", "Neg"]


def test_nothing_is_left_of_a_map_in_a_block_that_goes() -> None:
    body = "a = MatMul(x, w1) b = MatMul(a, w2) s = Add(a, b) c = MatMul(s, w3) y = Add(x, c)"
    weights = ", ".join(f"float[4,4] w{n}" for n in (1, 2, 3))
    proto = weighted(f"float[N,S,4] x, {weights}", body)
    inner, outer = blocks_of(proto, judge.drawn(proto)).found
    standins: dict[Block, StandIn] = {inner: Replaced(MAP, OFFSET), outer: Removed()}
    small = without(proto, standins)
    assert judge.operators(small) == ["Identity"]
    assert len(small.graph.initializer) == 0


OFFSETS = ("basic", "pre-norm transformer", "Gemm", "quantized", "inverted")


def offsets_of(blocks: Sequence[Block]) -> dict[Block, Removed]:
    rng = np.random.default_rng(0)
    return {b: Removed(rng.normal(size=b.shape[b.axis or 0]).astype(np.float32)) for b in blocks}


@pytest.mark.parametrize("name", OFFSETS)
def test_a_constant_is_what_each_channel_gets(name: str) -> None:
    proto = case(name).model()
    feeds = judge.drawn(proto, 0, 3)
    blocks = blocks_of(proto, feeds).found
    for block, removed in offsets_of(blocks).items():
        small = without(proto, {block: removed})
        entry, made = shown_values(small, [block.entry, block.exit], feeds)
        shape = [1] * len(block.shape)
        shape[block.axis or 0] = -1
        assert removed.offset is not None
        np.testing.assert_array_equal(made, entry + removed.offset.reshape(shape))


def shown_values(
    proto: onnx.ModelProto, names: Sequence[str], feeds: Mapping[str, Any]
) -> list[Array]:
    """Inner values of a model, or inputs."""
    part = submodel(proto, [name for name in names if name not in feeds])
    read = {info.name for info in part.graph.input}
    found = outputs(part, {name: array for name, array in feeds.items() if name in read})
    return [{**feeds, **found}[name] for name in names]


def test_a_branch_that_gives_a_constant_is_replaced_by_it_exactly() -> None:
    proto = case("basic").model()
    (block,) = blocks_of(proto, judge.drawn(proto)).found
    rng = np.random.default_rng(1)
    bias = rng.normal(size=4).astype(np.float32)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 4, 3, 3), np.float32), "w2"))
    last = next(node for node in proto.graph.node if node.output[0] == "c2")
    last.input.append("bias")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(bias, "bias"))
    assert_equal_bits(proto, without(proto, {block: Removed(bias)}), drawn(proto))


MAPS = ("basic", "preactivation chain", "pre-norm transformer", "Gemm")


@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_a_map_multiplies_the_channels_at_every_position(name: str, with_offset: bool) -> None:
    proto = case(name).model()
    feeds = judge.drawn(proto, 0, 3)
    for block in blocks_of(proto, feeds).found:
        rng = np.random.default_rng(2)
        axis = block.axis or 0
        matrix = rng.normal(size=(block.shape[axis],) * 2).astype(np.float32)
        offset = rng.normal(size=len(matrix)).astype(np.float32) * with_offset
        small = without(proto, {block: Replaced(matrix, offset)})
        assert complaint(small) == complaint(proto)
        entry, made = shown_values(small, [block.entry, block.exit], feeds)
        expected = np.moveaxis(np.moveaxis(entry, axis, -1) @ matrix + offset, -1, axis)
        np.testing.assert_allclose(made, expected, 1e-4, 1e-5)
        extra = set(judge.operators(small)) - set(judge.operators(proto))
        assert extra <= {"Conv", "MatMul", "Gemm", "Add"}


def tidied(name_or_case: str | Case, standin: Removed | Replaced) -> list[str]:
    """Operators that are left where the first block of a model is gone, after rewriting."""
    chosen = case(name_or_case) if isinstance(name_or_case, str) else name_or_case
    proto = chosen.model()
    block = blocks_of(proto, judge.drawn(proto)).found[0]
    small = without(proto, {block: standin})
    tidy = optimize(small, LOSSLESS).model
    judge.assert_same(small, tidy, "rounding")
    return judge.operators(tidy)


def following(layer: str) -> Case:
    """A block after a Relu, then a layer of one's own."""
    inputs = "float[N,4,8,8] x, float[4,4,3,3] w1, float[5,4,3,3] w2, float[5] w2b"
    return Case("following", inputs, f"a = Relu(x) c = Conv<pads = [1,1,1,1]>(a, w1) "
                f"s = Add(a, c) {layer}")  # fmt: skip


def test_a_relu_of_what_a_relu_made_goes_with_the_block_between_them() -> None:
    assert tidied("basic", Removed()) == ["Relu"]
    assert tidied("basic", Removed(OFFSET)) == ["Relu", "Add", "Relu"]


def test_a_constant_goes_into_the_bias_of_a_convolution_that_does_not_pad() -> None:
    assert tidied(following("y = Conv(s, w2, w2b)"), Removed(OFFSET)) == ["Relu", "Conv"]
    assert tidied(following("y = Conv(s, w2)"), Removed(OFFSET)) == ["Relu", "Conv"]


def test_a_constant_stays_before_a_convolution_that_pads() -> None:
    padded = following("y = Conv<pads = [1,1,1,1]>(s, w2, w2b)")
    assert tidied(padded, Removed(OFFSET)) == ["Relu", "Add", "Conv"]


def test_a_map_goes_into_a_convolution_but_its_constant_only_where_that_does_not_pad() -> None:
    zero = np.zeros(4, np.float32)
    padded = following("y = Conv<pads = [1,1,1,1]>(s, w2, w2b)")
    assert tidied(padded, Replaced(MAP, zero)) == ["Relu", "Conv"]
    assert tidied(padded, Replaced(MAP, OFFSET)) == ["Relu", "Conv", "Conv"]
    assert tidied(following("y = Conv(s, w2)"), Replaced(MAP, OFFSET)) == ["Relu", "Conv"]


def test_constants_and_maps_go_into_the_convolution_that_makes_the_entry() -> None:
    inputs = "float[N,3,8,8] x, float[4,3,3,3] w0, float[4] w0b, float[4,4,3,3] w1"
    body = "a = Conv<pads = [1,1,1,1]>(x, w0, w0b) c = Conv<pads = [1,1,1,1]>(a, w1) "
    linear = Case("linear", inputs, f"{body} s = Add(a, c) y = Relu(s)")
    assert tidied(linear, Removed(OFFSET)) == ["Conv", "Relu"]
    assert tidied(linear, Replaced(MAP, OFFSET)) == ["Conv", "Relu"]


def test_maps_and_constants_of_products_go_into_the_next_product() -> None:
    inputs = "float[N,4] x, float[4,4] w1, float[4,3] w2, float[3] w2b"
    body = "a = Relu(x) c = MatMul(a, w1) s = Add(a, c) y = Gemm(s, w2, w2b)"
    product = Case("product", inputs, body)
    assert tidied(product, Removed(OFFSET)) == ["Relu", "Gemm"]
    assert tidied(product, Replaced(MAP, OFFSET)) == ["Relu", "Gemm"]
    rows = "float[N,S,4] x, float[4,4] w1, float[4,3] w2, float[3] w2b"
    body = "a = Relu(x) c = MatMul(a, w1) s = Add(a, c) m = MatMul(s, w2) y = Add(m, w2b)"
    assert tidied(Case("rows", rows, body), Removed(OFFSET)) == ["Relu", "MatMul", "Add"]
    assert tidied(Case("rows", rows, body), Replaced(MAP, OFFSET)) == ["Relu", "MatMul", "Add"]


@pytest.mark.parametrize("name", REAL)
def test_silent_blocks_of_real_models_can_go_without_any_change(name: str) -> None:
    proto, blocks = blocks_in(name)
    feeds = [feed.arrays for feed in draws(proto, Session(proto)).feeds[:2]]
    tried = 0
    for block in (blocks.found[0], blocks.found[len(blocks.found) // 2], blocks.found[-1]):
        silent = silenced(proto, block)
        if silent is not None:
            tried += 1
            assert not shown_values(silent, [block.branch], feeds[0])[0].any()
            assert_equal_bits(silent, without(silent, {block: Removed()}), feeds)
    assert tried == 3


@pytest.mark.parametrize("seed", range(0, 500, 10))
def test_in_random_graphs_the_sum_is_its_entry_then_and_the_rest_is_computed_as_before(
    seed: int,
) -> None:
    proto = random_graph(seed)
    feeds = judge.drawn(proto, seed)
    for block in blocks_of(proto, feeds).found:
        plain = onnx.ModelProto()
        plain.CopyFrom(proto)
        (add,) = (node for node in plain.graph.node if node.output[0] == block.exit)
        add.CopyFrom(onnx.helper.make_node("Identity", [block.entry], [block.exit]))
        assert_equal_bits(plain, without(proto, {block: Removed()}), [feeds])
