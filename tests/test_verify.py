"""Verification: what differs is caught, what rounding alone moves is not, the rest is said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from judge import corpus_file, model

from onnxopt.errors import UnverifiableError
from onnxopt.model import load
from onnxopt.runtime import Session
from onnxopt.verification.difference import first_difference, producer
from onnxopt.verification.noise import noisy_model
from onnxopt.verification.smooth import smooth_twin
from onnxopt.verification.verify import Verifier, verify

HEAD = '<ir_version: 10, opset_import: ["": 18, "ai.onnx.ml": 3]>'


def parsed(text: str) -> onnx.ModelProto:
    return model(HEAD + text)


def deep_network(depth: int, *, order: int = 1, seed: int = 0) -> onnx.ModelProto:
    """Matrix products and Tanh, `depth` times; `order` -1 sums the products backwards."""
    rng = np.random.default_rng(seed)
    width, nodes, weights = 96, [], []
    name = "x"
    for layer in range(depth):
        array = (rng.standard_normal((width, width)) / np.sqrt(width) * 1.5).astype(np.float32)
        bias = rng.standard_normal(width).astype(np.float32) / 4
        weights.append(onnx.numpy_helper.from_array(array[::order], f"w{layer}"))
        weights.append(onnx.numpy_helper.from_array(bias, f"b{layer}"))
        source = name
        if order < 0:
            source = f"r{layer}"
            nodes.append(onnx.helper.make_node("Gather", [name, "back"], [source], axis=1))
        nodes.append(onnx.helper.make_node("MatMul", [source, f"w{layer}"], [f"m{layer}"]))
        nodes.append(onnx.helper.make_node("Add", [f"m{layer}", f"b{layer}"], [f"a{layer}"]))
        nodes.append(onnx.helper.make_node("Tanh", [f"a{layer}"], [f"t{layer}"]))
        name = f"t{layer}"
    weights.append(onnx.numpy_helper.from_array(np.arange(width)[::-1].copy(), "back"))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "deep",
        [value("x", onnx.TensorProto.FLOAT, ["batch", width])],
        [value(name, onnx.TensorProto.FLOAT, ["batch", width])],
        weights,
    )
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)


def changed(
    proto: onnx.ModelProto, name: str, change: Callable[[np.ndarray], None]
) -> onnx.ModelProto:
    """A copy in which one initializer was changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = onnx.numpy_helper.to_array(tensor).copy()
            change(array)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return copy


SAME = {
    "tensors": "g (float[N,3] x) => (float[N,3] y) { y = Exp(x) }",
    "NaN and infinity": """g (float[8] x) => (float[8] y, float[8] z) {
        y = Log(x) zero = Sub(x, x) z = Div(x, zero) }""",
    "strings": "g (string[4] x) => (string[4] y) { y = Identity(x) }",
    "sequences": "g (float[6] x) => (seq(float[n]) y) { y = SplitToSequence<axis = 0>(x) }",
    "optionals": "g (optional(float[2]) x) => (bool y) { y = OptionalHasElement(x) }",
    "integers": "g (int64[5] x, int8[4] z) => (int64[5] y, int8[4] w) { y = Neg(x) w = Neg(z) }",
    "empty tensors": """g (float[3] x) => (float[0] y) {
        n = Constant<value_ints = [0]>() y = Slice(x, n, n) }""",
    "maps": """g (float[N,3] x) => (seq(map(int64, float)) y) {
        y = ai.onnx.ml.ZipMap<classlabels_int64s = [10, 20, 30]>(x) }""",
    "no inputs": "g () => (float[2] y) { y = Constant<value_floats = [1.0, 2.0]>() }",
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_a_model_equals_itself_bit_for_bit(text: str) -> None:
    proto = parsed(text)
    for numerics in ("exact", "rounding", "lossy"):
        verdict = verify(proto, proto, numerics=numerics)
        assert verdict.passed
        assert verdict.worst_absolute == 0.0
        assert [output.name for output in verdict.outputs] == [o.name for o in proto.graph.output]


DIFFERENT = {
    "an absolute error": ("float[4] y", "y = Neg(x)", "y = Abs(x)", "value"),
    "another name": ("float[4] y", "y = Neg(x)", None, "instead of"),
    "another shape": (
        "float[a] y",
        "y = Neg(x)",
        "z = Neg(x) y = Concat<axis = 0>(z, z)",
        r"\[4\] became \[8\]",
    ),
    "NaN for a number": ("float[4] y", "y = Sqrt(x)", "z = Abs(x) y = Sqrt(z)", "off by inf"),
    "the other infinity": (
        "float[4] y",
        "z = Sub(x, x) o = Exp(z) y = Div(o, z)",
        "z = Sub(x, x) o = Exp(z) n = Neg(o) y = Div(n, z)",
        "off by inf",
    ),
    "one integer off": (
        "int64[4] y",
        "y = Cast<to = 7>(x)",
        "f = Floor(x) y = Cast<to = 7>(f)",
        "off by 1",
    ),
    "a flag": (
        "bool[4] y",
        "z = Sub(x, x) y = Less(x, z)",
        "z = Sub(x, x) y = Greater(x, z)",
        "off by 1",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_is_caught(case: tuple[str, str, str | None, str]) -> None:
    output, before, after, said = case
    a = parsed(f"g (float[4] x) => ({output}) {{ {before} }}")
    b = parsed(f"g (float[4] x) => ({output}) {{ {after or before} }}")
    if after is None:
        b.graph.node[0].output[0] = b.graph.output[0].name = "other"
    for numerics in ("exact", "rounding"):
        verdict = verify(a, b, numerics=numerics)
        assert not verdict.passed
        if said != "value":
            assert np.any([said.replace("\\", "") in verdict.reason]), verdict.reason


def test_another_type_is_caught() -> None:
    a = parsed("g (float[4] x) => (float[4] y) { y = Neg(x) }")
    b = parsed("g (float[4] x) => (double[4] y) { z = Neg(x) y = Cast<to = 11>(z) }")
    for numerics in ("exact", "rounding", "lossy"):
        assert "float32 became float64" in verify(a, b, numerics=numerics).reason


def test_other_order_of_outputs_is_caught() -> None:
    a = parsed("g (float[4] x) => (float[4] y, float[4] z) { y = Neg(x) z = Abs(x) }")
    b = parsed("g (float[4] x) => (float[4] z, float[4] y) { y = Neg(x) z = Abs(x) }")
    assert not verify(a, b, numerics="lossy").passed


def test_texts_keys_and_lengths_are_compared() -> None:
    a = parsed(SAME["maps"])
    b = parsed(SAME["maps"].replace("10, 20", "10, 21"))
    assert not verify(a, b, numerics="rounding").passed
    text = """g (string[30] x) => (string[30] y) {
        y = ai.onnx.ml.LabelEncoder<keys_strings = ["a"], values_strings = ["low"]>(x) }"""
    a, b = parsed(text), parsed(text.replace("low", "high"))
    assert not verify(a, b, numerics="rounding").passed
    text = """g (float[6] x) => (seq(float[n]) y) <int64 k = {2}> {
        y = SplitToSequence<axis = 0>(x, k) }"""
    a, b = parsed(text), parsed(text.replace("{2}", "{3}"))
    assert "structure" in verify(a, b, numerics="rounding").reason


def test_exact_numerics_catches_one_unit_in_the_last_place() -> None:
    a = parsed("g (float[64] x) => (float[64] y) <float w = {1.0}> { y = Mul(x, w) }")
    b = changed(a, "w", lambda w: w.fill(np.nextafter(np.float32(1), np.float32(2))))
    assert not verify(a, b, numerics="exact").passed
    assert verify(a, b, numerics="rounding").passed


def test_negative_zero_equals_zero() -> None:
    a = parsed("g (float[8] x) => (float[8] y) { y = Sub(x, x) }")
    b = parsed("g (float[8] x) => (float[8] y) { z = Sub(x, x) y = Neg(z) }")
    assert verify(a, b, numerics="exact").passed


def test_a_candidate_that_does_not_load_or_run_fails_with_the_reason() -> None:
    a = parsed("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    b = parsed("g (float[N] x) => (float[N] y) { y = Nope(x) }")
    verdict = verify(a, b, numerics="exact")
    assert "does not load" in verdict.reason
    assert not verdict.passed
    b = parsed(
        """g (float[N] x) => (float[N] y) {
            s = Constant<value_ints = [8]>()
            z = Neg(x)
            y = Reshape(z, s)
        }"""
    )
    verdict = verify(a, b, numerics="exact")
    assert "does not run on" in verdict.reason
    assert not verdict.passed


def test_a_reference_that_does_not_run_raises() -> None:
    proto = parsed(
        "g (float[2] x) => (float[3] y) { s = Constant<value_ints = [3]>() y = Reshape(x, s) }"
    )
    with pytest.raises(UnverifiableError):
        Verifier(proto)


RANDOM = {
    "a random operator": "r = RandomNormalLike(x) y = Add(x, r)",
    "inside a body": """t = Constant<value = bool {1}>()
        y = If(t) <then_branch = a () => (float[4] p) { r = RandomUniformLike(x) p = Add(x, r) },
                   else_branch = b () => (float[4] q) { q = Neg(x) }>""",
}


@pytest.mark.parametrize("body", RANDOM.values(), ids=RANDOM)
def test_random_outputs_are_compared_by_shape_and_named(body: str) -> None:
    proto = parsed(f"g (float[4] x) => (float[4] y, float[4] z) {{ {body} z = Neg(x) }}")
    verdict = verify(proto, proto, numerics="exact")
    assert verdict.passed
    assert "'y' is random: compared by type and shape only" in verdict.unverified
    wrong = parsed(f"g (float[4] x) => (float[4] y, float[4] z) {{ {body} z = Abs(x) }}")
    assert not verify(proto, wrong, numerics="exact").passed


def test_what_the_draws_cannot_show_is_said() -> None:
    proto = parsed("""g (float[4] x) => (float[4] nan, float[2] fixed, float[4] same) {
        a = Abs(x) b = Neg(a) one = Constant<value = float {1.0}>() c = Sub(b, one)
        nan = Sqrt(c) fixed = Constant<value_floats = [1.0, 2.0]>() same = Sub(x, x) }""")
    said = "\n".join(Verifier(proto).unverified)
    assert "'nan' is NaN everywhere" in said
    assert "'fixed' does not depend on the inputs" in said
    assert "'same' came out the same on all draws" in said


def test_a_deep_network_summed_backwards_is_no_false_alarm() -> None:
    verifier = Verifier(deep_network(40))
    backwards = deep_network(40, order=-1)
    verdict = verifier.check(backwards, "rounding")
    assert verdict.worst_relative > 1e-6, "the test network should not be too well behaved"
    assert verdict.passed, verdict.reason
    assert not verifier.check(backwards, "exact").passed


@pytest.mark.parametrize("layer", [0, 20, 39])
@pytest.mark.parametrize("fault", ["0.1 % of a channel", "a bias dropped", "two channels swapped"])
def test_a_fault_in_one_channel_of_a_deep_network_is_caught(layer: int, fault: str) -> None:
    proto = deep_network(40)

    def scale(array: np.ndarray) -> None:
        array[:, 5] *= np.float32(1.001)

    def drop(array: np.ndarray) -> None:
        array[5] = 0

    def swap(array: np.ndarray) -> None:
        array[:, [5, 6]] = array[:, [6, 5]]

    change = {"0.1 % of a channel": scale, "a bias dropped": drop}.get(fault, swap)
    wrong = changed(proto, f"b{layer}" if change is drop else f"w{layer}", change)
    assert not verify(proto, wrong, numerics="rounding").passed


QUANTIZED = """g (float[4,16] x) => (float[4,16] y)
    <float[16,16] w, float s = {0.02}, int8 z = {0}> {
        m = MatMul(x, w)
        q = QuantizeLinear(m, s, z)
        d = DequantizeLinear(q, s, z)
        n = MatMul(d, w)
        r = QuantizeLinear(n, s, z)
        y = DequantizeLinear(r, s, z)
    }"""


def quantized() -> onnx.ModelProto:
    proto = parsed(QUANTIZED.replace("float[16,16] w, ", ""))
    weight = np.random.default_rng(3).standard_normal((16, 16)).astype(np.float32) / 5
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return proto


def test_a_value_that_tips_over_a_step_is_no_false_alarm() -> None:
    """On 0/1 inputs every product lies on the edge between two steps."""
    edge = parsed("""g (float[4,16] x) => (float[4,16] y)
        <float w = {0.01}, float s = {0.02}, int8 z = {0}> {
            m = Mul(x, w)
            q = QuantizeLinear(m, s, z)
            y = DequantizeLinear(q, s, z)
        }""")

    def nudge(array: np.ndarray) -> None:
        array *= np.float32(1 + 2**-22)

    nudged = changed(edge, "w", nudge)
    verdict = verify(edge, nudged, numerics="rounding")
    assert verdict.passed, verdict.reason
    assert verdict.worst_absolute > 0.01, "no value tipped over: the test tests nothing"


def test_a_fault_in_a_quantized_model_is_caught() -> None:
    proto = quantized()

    def scale(array: np.ndarray) -> None:
        array[:, 3] *= np.float32(1.01)

    assert not verify(proto, changed(proto, "w", scale), numerics="rounding").passed


def test_the_smooth_twin_has_no_steps() -> None:
    twin = smooth_twin(quantized())
    assert twin is not None
    assert "DequantizeLinear" not in {node.op_type for node in twin.graph.node}
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    rough, smooth = Session(quantized()).run({"x": x})["y"], Session(twin).run({"x": x})["y"]
    assert 0 < np.abs(rough - smooth).max() < 0.1
    assert smooth_twin(deep_network(1)) is None


def test_half_floats_are_held_to_their_own_rounding() -> None:
    text = """g (float16[8,32] x) => (float16[8,32] y) {
        a = Mul(x, w) b = Exp(a) c = Add(b, a) y = Tanh(c) }"""
    proto = parsed(text)
    weight = np.full(32, 1.5, np.float16)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))

    def nudge(array: np.ndarray) -> None:
        array[:] = np.nextafter(array, np.float16(9))

    def scale(array: np.ndarray) -> None:
        array[3] *= np.float16(1.05)

    assert verify(proto, changed(proto, "w", nudge), numerics="rounding").passed
    assert not verify(proto, changed(proto, "w", scale), numerics="rounding").passed


def test_noise_leaves_arithmetic_on_shapes_alone() -> None:
    proto = parsed("""g (float[N,6] x) => (float[a,b] y) {
        n = Shape(x) f = Cast<to = 1>(n) h = Constant<value_floats = [2.0, 0.5]>()
        g = Mul(f, h) i = Cast<to = 7>(g) e = Exp(x) y = Reshape(e, i) }""")
    noisy = noisy_model(proto, 1.0)
    made = [node.op_type for node in noisy.graph.node]
    assert made.count("RandomUniformLike") == 1
    found = Session(noisy).run({"x": np.ones((2, 6), np.float32)})["y"]
    assert found.shape == (4, 3)


def test_checks_after_the_first_start_with_the_draw_that_failed() -> None:
    a = parsed("g (float[4] x) => (float[4] y) { y = Identity(x) }")
    limit = "lo = Constant<value = float {-50.0}>() hi = Constant<value = float {50.0}>()"
    b = parsed(f"g (float[4] x) => (float[4] y) {{ {limit} y = Clip(x, lo, hi) }}")
    seen: list[str] = []
    verifier = Verifier(a, progress=seen.append)
    assert "large" in verifier.check(b, "exact").reason
    seen.clear()
    assert not verifier.check(b, "exact").passed
    assert seen == ["verifying on large"]


def test_a_changed_signature_is_adapted() -> None:
    a = parsed("""g (float[1,4,5,3] x) => (float[1,3,4,5] y) {
        t = Transpose<perm = [0, 3, 1, 2]>(x) y = Neg(t) }""")
    b = parsed("g (float[1,3,4,5] x) => (float[1,3,4,5] y) { y = Neg(x) }")
    verifier = Verifier(a)
    assert not verifier.check(b, "exact").passed
    verdict = verifier.check(
        b, "exact", adapt=lambda feed: {"x": np.transpose(feed["x"], (0, 3, 1, 2))}
    )
    assert verdict.passed


def test_the_summary_is_one_line_and_names_the_worst() -> None:
    a = parsed("g (float[64] x) => (float[64] y) <float w = {1.0}> { y = Mul(x, w) }")
    b = changed(a, "w", lambda w: w.fill(np.nextafter(np.float32(1), np.float32(2))))
    assert verify(a, a, numerics="exact").summary() == "equal bit for bit on 3 draws"
    assert (
        "equal within rounding on 3 draws: errors up to"
        in verify(a, b, numerics="rounding").summary()
    )
    assert "'y' is off by" in verify(a, b, numerics="exact").summary()


def test_the_first_tensor_that_differs_is_found() -> None:
    proto = deep_network(6)

    def scale(array: np.ndarray) -> None:
        array[:, 5] *= np.float32(1.01)

    found = first_difference(proto, changed(proto, "w3", scale))
    assert found is not None
    assert found.name == "m3"
    assert producer(proto, found.name) == "MatMul"
    assert first_difference(proto, deep_network(6, order=-1)) is None


@pytest.mark.parametrize(
    "name",
    [
        "bert_tiny_fp16_op11",
        "lr_mnist_scikit",
        "qdq_mobilenet_edge_block",
        "scan_cntk",
        "silero_vad_v4",
        "squeezenet_winml",
        "yunet_120x160",
    ],
)
def test_real_models_equal_themselves(name: str) -> None:
    proto = load(corpus_file(f"real/{name}.onnx"))
    assert verify(proto, proto, numerics="exact").passed


@pytest.mark.parametrize(
    ("name", "weight"),
    [("yunet_120x160", 10), ("ultraface_slim320_simplified", 24), ("resnet20_bn_op9", 30)],
)
def test_one_channel_of_a_real_detector_is_watched(name: str, weight: int) -> None:
    proto = load(corpus_file(f"real/{name}.onnx"))
    floats = [t.name for t in proto.graph.initializer if len(t.dims) == 4]

    def scale(array: np.ndarray) -> None:
        array[1 % array.shape[0]] *= np.float32(1.01)

    wrong = changed(proto, floats[weight % len(floats)], scale)
    assert not verify(proto, wrong, numerics="rounding").passed
