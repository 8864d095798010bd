"""A model that is run part by part gives what it gives as a whole."""

from __future__ import annotations

from typing import Any

import judge
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from cuts import weighted
from pruning_cases import CASES

from onnxopt.pruning import stepper as stepper_module
from onnxopt.pruning.stepper import Stepper, set_weights, weights_of
from onnxopt.runtime import Session
from onnxopt.submodel import reads, submodel

TINY = [file.stem for file in judge.TINY_MODELS if file.stem not in ("optional", "qdq")]


def batches_of(proto: onnx.ModelProto, count: int = 3) -> list[dict[str, judge.Array]]:
    return [judge.drawn(proto, seed, size=4) for seed in range(count)]


def type_of(value: Any) -> onnx.TypeProto:
    if isinstance(value, list):
        return onnx.helper.make_sequence_type_proto(type_of(value[0]))
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_type_proto(kind, value.shape)


def assert_equal(
    found: list[dict[str, judge.Array]],
    expected: list[dict[str, judge.Array]],
    tolerance: float = 1e-5,
) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert list(a) == list(b)
        for name, value in b.items():
            judge.assert_close(value, a[name], tolerance, tolerance, name)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_of_a_model_give_what_the_whole_gives(name: str, seed: int) -> None:
    proto = judge.tiny(name)
    batches = batches_of(proto)
    expected = [Session(proto).run(batch) for batch in batches]
    rng = np.random.default_rng(seed)
    count = len(proto.graph.node)
    places = sorted(rng.integers(0, count + 1, rng.integers(1, 6)).tolist())
    stepper = Stepper(proto, batches)
    for place in places:
        stepper.advance(place)
        assert stepper.place == place
    tolerance = 1e-2 if name == "half" else 1e-5
    assert_equal(stepper.finish(), expected, tolerance)
    assert_equal(stepper.finish(2), expected[:2], tolerance)
    stepper.advance(count)
    assert_equal(stepper.finish(), expected, tolerance)


def test_parts_of_models_with_bodies_that_capture_values() -> None:
    for case in CASES:
        if not any(case.name.startswith(word) for word in ("if_", "loop_")):
            continue
        proto = case.model()
        batches = batches_of(proto)
        expected = [Session(proto).run(batch) for batch in batches]
        stepper = Stepper(proto, batches)
        for place in range(len(proto.graph.node) + 1):
            stepper.advance(place)
            assert_equal(stepper.finish(), expected)


def test_an_output_in_the_middle_is_kept_to_the_end() -> None:
    proto = weighted(
        "float[N,4] x, float[4,4] w1, float[4,4] w2",
        "a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Relu(c)",
        "float[...] a, float[...] d",
    )
    batches = batches_of(proto)
    stepper = Stepper(proto, batches)
    for place in (1, 2, 3, 4):
        stepper.advance(place)
    assert_equal(stepper.finish(), [Session(proto).run(batch) for batch in batches])


def test_batches_of_different_sizes_can_be_run() -> None:
    proto = judge.tiny("unet")
    batches = [judge.drawn(proto, 0, 4), judge.drawn(proto, 1, 2)]
    stepper = Stepper(proto, batches)
    stepper.advance(4)
    assert_equal(stepper.finish(), [Session(proto).run(batch) for batch in batches])


def test_an_input_that_is_an_output_is_given_back() -> None:
    proto = weighted(
        "float[N,4] x, float[4,4] w1", "y = MatMul(x, w1)", "float[...] y, float[N,4] x"
    )
    batches = batches_of(proto)
    stepper = Stepper(proto, batches)
    stepper.advance(1)
    found = stepper.finish()
    assert all((a["x"] == b["x"]).all() for a, b in zip(found, batches, strict=True))


def test_only_what_is_still_read_is_kept() -> None:
    proto = weighted(
        "float[N,4] x, float[4,4] w1, float[4,4] w2",
        "a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) y = Add(c, x)",
    )
    stepper = Stepper(proto, batches_of(proto))
    kept = []
    for place in range(5):
        stepper.advance(place)
        kept.append(set(stepper.frontier[0]))
    assert kept == [{"x"}, {"a", "x"}, {"b", "x"}, {"c", "x"}, {"y"}]
    assert stepper.made == {"a": 0, "b": 1, "c": 2, "y": 3}


def test_a_place_behind_changes_nothing() -> None:
    proto = weighted("float[N,4] x, float[4,4] w1", "a = MatMul(x, w1) y = Relu(a)")
    stepper = Stepper(proto, batches_of(proto))
    stepper.advance(1)
    before = [dict(values) for values in stepper.frontier]
    stepper.advance(0)
    stepper.advance(1)
    assert stepper.place == 1
    for now, then in zip(stepper.frontier, before, strict=True):
        assert list(now) == list(then) and all(now[name] is then[name] for name in now)


def test_the_batches_that_were_given_stay_whole() -> None:
    proto = weighted("float[N,4] x, float[4,4] w1", "a = MatMul(x, w1) y = Relu(a)")
    batches = batches_of(proto)
    Stepper(proto, batches).advance(2)
    assert all(list(batch) == ["x"] for batch in batches)


def test_weights_of_later_nodes_may_change_and_earlier_ones_no_longer_matter() -> None:
    proto = weighted(
        "float[N,4] x, float[4,4] w1, float[4,4] w2", "a = MatMul(x, w1) y = MatMul(a, w2)"
    )
    batches = batches_of(proto)
    w1, w2 = weights_of(proto, ["w1", "w2"]).values()
    stepper = Stepper(proto, batches)
    stepper.advance(1)
    set_weights(proto, {"w2": w2 * 2, "w1": w1 * 100})
    for batch, outputs in zip(batches, stepper.finish(), strict=True):
        np.testing.assert_allclose(outputs["y"], batch["x"] @ w1 @ w2 * 2, rtol=1e-4, atol=1e-4)


def test_weights_are_set_and_read_by_name_and_in_their_type() -> None:
    proto = weighted(
        "float16[N,4] x, float16[4,4] w1, float16[4,4] w2",
        "a = MatMul(x, w1) y = MatMul(a, w2)",
        "float16 y",
    )
    before = weights_of(proto, ["w1", "w2", "none", ""])
    assert set(before) == {"w1", "w2"}
    new = np.full((4, 3), 2.5, np.float16)
    set_weights(proto, {"w2": new, "none": new})
    after = weights_of(proto, ["w1", "w2"])
    assert np.array_equal(after["w1"], before["w1"]) and np.array_equal(after["w2"], new)
    assert after["w2"].dtype == np.float16
    assert {t.name for t in proto.graph.initializer} == {"w1", "w2"}


def test_sparse_weights_are_weights_and_no_values_between_nodes() -> None:
    proto = weighted("float[N,4] x, float[4,4] w1", "a = MatMul(x, s) y = MatMul(a, w1)")
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32), "s"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 5, 10, 15]), "i"))
    sparse.dims.extend([4, 4])
    batches = batches_of(proto)
    expected = [Session(proto).run(batch) for batch in batches]
    stepper = Stepper(proto, batches)
    for place in (0, 1, 2):
        stepper.advance(place)
        assert_equal(stepper.finish(), expected)


@pytest.mark.parametrize("name", TINY)
def test_a_submodel_gives_inner_values_as_the_whole_does(name: str) -> None:
    proto = judge.tiny(name)
    feeds = judge.drawn(proto, 0, 4)
    names = [n for node in proto.graph.node for n in node.output if n]
    shown = submodel(proto, names)
    read = {info.name for info in shown.graph.input}
    whole = Session(shown).run({k: v for k, v in feeds.items() if k in read})
    rng = np.random.default_rng(0)
    for _ in range(4):
        wanted = rng.choice(names, min(2, len(names)), replace=False).tolist()
        cut = rng.choice([n for n in names if n not in wanted] or names, 1).tolist()
        given = {n: type_of(whole[n]) for n in cut if n not in wanted}
        part = submodel(proto, wanted, given)
        assert [info.name for info in part.graph.output] == wanted
        read = {info.name for info in part.graph.input}
        found = Session(part).run({n: v for n, v in {**feeds, **whole}.items() if n in read})
        for wish in wanted:
            tolerance = 1e-2 if name == "half" else 1e-5
            judge.assert_close(whole[wish], found[wish], tolerance, tolerance, wish)


def test_a_submodel_has_nothing_that_its_outputs_do_not_need() -> None:
    proto = weighted(
        "float[N,4] x, float[N,4] z, float[4,4] w1, float[4,4] w2, float[4,4] w3",
        "a = MatMul(x, w1) b = MatMul(z, w2) c = MatMul(a, w3) y = Add(b, c)",
    )
    part = submodel(proto, ["c"])
    assert [node.output[0] for node in part.graph.node] == ["a", "c"]
    assert [info.name for info in part.graph.input] == ["x"]
    assert {t.name for t in part.graph.initializer} == {"w1", "w3"}
    fed = submodel(proto, ["y"], {"a": type_of(np.zeros((1, 1), np.float32))})
    assert [node.output[0] for node in fed.graph.node] == ["b", "c", "y"]
    assert [info.name for info in fed.graph.input] == ["a", "z"]
    fed.graph.node[0].output[0] = "other"
    fed.graph.initializer[0].dims[0] = 5
    assert proto.graph.node[1].output[0] == "b" and proto.graph.initializer[1].dims[0] == 4


def test_a_node_reads_what_its_bodies_read() -> None:
    proto = next(case for case in CASES if case.name == "if_captures").model()
    node = next(node for node in proto.graph.node if node.op_type == "If")
    assert {"a", "w3", "c"} <= reads(node)


HOURGLASS = (
    "float[N,2,8,8] x, float[16,2,3,3] w1, float[4,16,1,1] w2, float[32,4,3,3] w3, float[32,3] w4",
    "a = Conv<pads=[1,1,1,1]>(x, w1) b = Relu(a) c = Conv<strides=[4,4]>(b, w2)"
    " d = Conv<pads=[1,1,1,1]>(c, w3) e = Relu(d) p = GlobalAveragePool(e) f = Flatten(p)"
    " y = MatMul(f, w4)",
)


def test_where_values_are_large_only_some_batches_are_held_and_later_the_others_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 4 samples: x takes 2 kB, b 16 kB, c 256 bytes, e 2 kB, f 512 bytes."""
    monkeypatch.setattr(stepper_module, "LARGEST_FRONTIER_BYTES", 48 * 2**10)
    monkeypatch.setattr(stepper_module, "FEWEST_BATCHES", 2)
    proto = weighted(*HOURGLASS)
    batches = batches_of(proto, 40)
    expected = [Session(proto).run(batch) for batch in batches]
    stepper = Stepper(proto, batches)
    assert len(stepper.frontier) == 24
    held = []
    for place in range(1, len(proto.graph.node) + 1):
        stepper.advance(place)
        held.append(len(stepper.frontier))
        assert_equal(stepper.finish(), expected[: held[-1]], 1e-4)
    assert held == [3, 3, 40, 24, 24, 40, 40, 40]
    monkeypatch.setattr(stepper_module, "LARGEST_FRONTIER_BYTES", 1)
    stepper = Stepper(proto, batches)
    stepper.advance(4)
    assert_equal(stepper.finish(), expected[:2], 1e-4)


def test_batches_that_follow_later_run_with_the_weights_that_were_set_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stepper_module, "LARGEST_FRONTIER_BYTES", 48 * 2**10)
    proto = weighted(*HOURGLASS)
    batches = batches_of(proto, 40)
    stepper = Stepper(proto, batches)
    set_weights(proto, {"w1": weights_of(proto, ["w1"])["w1"] * np.float32(2)})
    stepper.advance(3)
    assert len(stepper.frontier) == 40
    assert_equal(stepper.finish(), [Session(proto).run(batch) for batch in batches], 1e-4)


def test_weights_that_are_dequantized_before_a_part_begins_may_still_be_changed() -> None:
    """As in quantized models: what makes numbers of them stands right before their layer."""
    proto = weighted(
        "float[N,4,1,1] x, int8[4,4,1,1] w1, int8[4,4,1,1] w2",
        """f = DequantizeLinear(w1, s, z) t = Transpose<perm = [1,0,2,3]>(f)
        g = DequantizeLinear(w2, s, z) a = Conv(x, t) r = Relu(a) y = Conv(r, g)""",
        constants="float s = {0.1}, int8 z = {0}",
    )
    rng = np.random.default_rng(0)
    batches = [{"x": rng.standard_normal((3, 4, 1, 1)).astype(np.float32)} for _ in range(2)]
    changed = {n: rng.integers(-9, 9, (4, 4, 1, 1)).astype(np.int8) for n in ("w1", "w2")}
    stepper, other = Stepper(proto, batches), onnx.ModelProto()
    stepper.advance(stepper.made["a"])
    other.CopyFrom(proto)
    set_weights(other, changed)
    expected = [Session(other).run(batch) for batch in batches]
    assert_equal(stepper.finish(changed=changed), expected)
    set_weights(proto, changed)
    stepper.advance(stepper.made["y"])
    assert_equal(stepper.finish(), expected)
    assert not np.allclose(expected[0]["y"], 0)
