"""Drawn inputs: kinds, ranges, sizes, parameters, branches, and the user's own samples."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from judge import corpus_file, model

from onnxopt.errors import UnverifiableError, UsageError
from onnxopt.model import load
from onnxopt.runtime import Session
from onnxopt.signature import Port
from onnxopt.verification.feeds import Drawing, draws
from onnxopt.verification.hints import Hint
from onnxopt.verification.sampling import DrawKind, sample
from onnxopt.verification.skeleton import infer, peak_bytes, skeleton
from onnxopt.verification.userdata import load_user_data

HEAD = '<ir_version: 10, opset_import: ["": 18, "ai.onnx.ml": 3]>'


def drawing(text: str) -> Drawing:
    proto = model(HEAD + text)
    return draws(proto, Session(proto))


def values(found: Drawing, name: str) -> list[Any]:
    return [feed.arrays[name] for feed in found.feeds]


def test_three_kinds_are_drawn_and_the_same_each_time() -> None:
    text = "g (float[3,4] x) => (float[3,4] y) { y = Relu(x) }"
    first, second = drawing(text), drawing(text)
    assert [feed.description for feed in first.feeds] == ["normal", "0/1", "large"]
    normal, binary, large = values(first, "x")
    assert (normal < 0).any()
    assert set(np.unique(binary)) == {0.0, 1.0}
    assert np.abs(large).max() > 50
    for a, b in zip(values(first, "x"), values(second, "x"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_indices_stay_inside_what_they_index() -> None:
    found = drawing("""g (int64[2,N] ids) => (float[2,N,3] y)
        <float[7,3] table = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21}> {
            c = Cast<to = 6>(ids)
            i = Identity(c)
            y = Gather(table, i)
        }""")
    drawn = np.concatenate([v.reshape(-1) for v in values(found, "ids")])
    assert drawn.min() >= 0
    assert drawn.max() == 6


def test_indices_are_followed_into_bodies() -> None:
    found = drawing("""g (int64[8] ids, bool[1] flag) => (float[8] y)
        <float[5] table = {1,2,3,4,5}> {
            y = If(flag) <then_branch = t () => (float[8] a) { a = Gather(table, ids) },
                          else_branch = e () => (float[8] b) { g = Gather(table, ids) b = Neg(g) }>
        }""")
    assert max(v.max() for v in values(found, "ids")) == 4


def test_bytes_take_their_whole_range() -> None:
    found = drawing("g (uint8[100] x) => (float[100] y) { y = Cast<to = 1>(x) }")
    assert values(found, "x")[0].max() > 200


def test_floats_that_become_indices_are_whole_and_in_range() -> None:
    found = drawing("""g (float[50] x) => (float[50] y) <float[4] table = {1,2,3,4}> {
            i = Cast<to = 7>(x)
            y = Gather(table, i)
        }""")
    for drawn in values(found, "x"):
        assert set(np.unique(drawn)) <= {0.0, 1.0, 2.0, 3.0}


def test_texts_that_the_model_knows_are_drawn() -> None:
    found = drawing("""g (string[30] s) => (int64[30] y) {
            y = ai.onnx.ml.LabelEncoder<keys_strings = ["red", "green"], values_int64s = [1, 2]>(s)
        }""")
    assert {"red", "green"} <= {text for drawn in values(found, "s") for text in drawn}


def test_each_symbol_takes_one_and_two_other_sizes() -> None:
    found = drawing(
        "g (float[batch,length] x, float[length] z) => (float[batch,length] y) { y = Add(x, z) }"
    )
    shapes = [drawn.shape for drawn in values(found, "x")]
    for axis in (0, 1):
        sizes = {shape[axis] for shape in shapes}
        assert 1 in sizes
        assert len(sizes) >= 3
    assert all(
        x.shape[1] == z.shape[0]
        for x, z in zip(values(found, "x"), values(found, "z"), strict=True)
    )


def test_a_model_that_takes_only_batches_of_two_says_so() -> None:
    found = drawing("""g (float[batch,6] x) => (float[3,4] y) {
            shape = Constant<value_ints = [3, 4]>()
            y = Reshape(x, shape)
        }""")
    assert {drawn.shape for drawn in values(found, "x")} == {(2, 6)}
    assert "dimension batch ran at size 2 only" in found.notes


def test_multiples_of_thirty_two_are_found() -> None:
    found = drawing("""g (float[1,1,h,w] x) => (float[1,1,a,32,b,32] y) {
            zero = Constant<value_ints = [0]>()
            n = Constant<value_ints = [1, 1, 2, 32, 2, 32]>()
            y = Reshape(x, n)
        }""")
    assert {drawn.shape for drawn in values(found, "x")} == {(1, 1, 64, 64)}


def test_placeholders_are_tried_together_and_then_apart() -> None:
    text = "g (float[?,?] x, float[2,?,3] s) => (float[2,a,3] y, float[b] z) {"
    text += " y = Neg(s) n = Constant<value_ints = [-1, 5]>() r = Reshape(x, n)"
    text += " k = Constant<value_ints = [1]>() z = ReduceSum<keepdims = 0>(r, k) }"
    proto = model(HEAD + text.replace("?", "anything"))
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = "?"
    found = draws(proto, Session(proto))
    assert all(drawn.size % 5 == 0 for drawn in values(found, "x"))


def test_sizes_that_are_sums_of_others_agree() -> None:
    proto = model(
        HEAD
        + """g (float[a] x, float[b] z, float[c] s) => (float[c] y) {
            j = Concat<axis = 0>(x, z)
            y = Add(j, s)
        }"""
    )
    proto.graph.input[2].type.tensor_type.shape.dim[0].dim_param = "a + b"
    found = draws(proto, Session(proto))
    sums = [(f.arrays["x"].size + f.arrays["z"].size, f.arrays["s"].size) for f in found.feeds]
    assert all(a == b for a, b in sums)
    assert len(set(sums)) >= 3


def test_shape_inputs_get_legal_values() -> None:
    found = drawing(
        "g (float[2,6] x, int64[3] shape) => (float[2,3,2] y) { y = Reshape(x, shape) }"
    )
    assert values(found, "shape")[0].tolist() == [2, 3, 2]
    found = drawing("g (float[2,1,3] x, int64[1] axes) => (float[2,3] y) { y = Squeeze(x, axes) }")
    assert values(found, "axes")[0].tolist() == [1]
    found = drawing("g (float[2,3] x, int64[4] pads) => (float[4,3] y) { y = Pad(x, pads) }")
    assert values(found, "pads")[0].tolist() == [1, 0, 1, 0]
    found = drawing("g (float[9] x, int64[1] k) => (float[4] y, int64[4] i) { y, i = TopK(x, k) }")
    assert values(found, "k")[0].tolist() == [4]


def test_numbers_that_the_model_compares_with_are_tried() -> None:
    found = drawing("""g (float[4] x, int64 rate) => (float[4] y) <int64 wanted = {16000}> {
            same = Equal(rate, wanted)
            y = If(same) <then_branch = t () => (float[4] a) { a = Neg(x) },
                          else_branch = e () => (float[4] b) { b = Abs(x) }>
        }""")
    assert 16000 in {int(v) for v in values(found, "rate")}
    assert len({int(v) for v in values(found, "rate")}) > 1


def test_both_branches_of_an_if_on_an_input_are_run() -> None:
    found = drawing("""g (float[4] x, bool flag) => (float[4] y) {
            y = If(flag) <then_branch = t () => (float[4] a) { a = Neg(x) },
                          else_branch = e () => (float[4] b) { b = Abs(x) }>
        }""")
    assert {bool(v) for v in values(found, "flag")} == {True, False}


def test_sequences_and_optionals_are_drawn() -> None:
    found = drawing("g (seq(float[N]) s) => (float[M] y) { y = ConcatFromSequence<axis = 0>(s) }")
    assert all(isinstance(drawn, list) for drawn in values(found, "s"))
    found = drawing("g (optional(float[3]) o) => (bool y) { y = OptionalHasElement(o) }")
    assert None in [feed.arrays["o"] for feed in found.feeds if feed.arrays["o"] is None]


def test_defaults_are_overridden_once() -> None:
    found = drawing(
        "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"
    )
    assert sum("w" in feed.arrays for feed in found.feeds) == 1


def test_no_inputs_make_one_draw() -> None:
    found = drawing("g () => (float[2] y) { y = Constant<value_floats = [1.0, 2.0]>() }")
    assert [feed.arrays for feed in found.feeds] == [{}]


def test_a_loop_count_stays_small() -> None:
    found = drawing("""g (int64 count, float[2] x) => (float[2] y) {
            yes = Constant<value = bool {1}>()
            y = Loop(count, yes, x) <body = b (int64 i, bool c, float[2] v)
                => (bool d, float[2] w) {
                d = Identity(c)
                w = Neg(v)
            }>
        }""")
    assert max(int(v) for v in values(found, "count")) <= 16


def test_four_gigabytes_are_refused_before_they_are_taken() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnverifiableError, match=r"about 4\.0 GB"):
        drawing("""g (float[1] x) => (float[1] y) {
                shape = Constant<value_ints = [1024, 1024, 1024]>()
                big = ConstantOfShape(shape)
                s = ReduceSum<keepdims = 0>(big)
                y = Add(s, x)
            }""")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_memory_is_counted_in_bodies_and_freed_after_the_last_use() -> None:
    chain = " ".join(f"v{i + 1} = Neg(v{i})" for i in range(10))
    proto = model(
        f"{HEAD} g (float[1024] x) => (float[1024] y) {{ v0 = Neg(x) {chain} y = Neg(v10) }}"
    )
    assert peak_bytes(infer(skeleton(proto), {"x": (1024,)})) <= 4 * 4096


def test_a_model_that_never_runs_is_unverifiable() -> None:
    with pytest.raises(UnverifiableError, match="found no inputs"):
        drawing("""g (float[2] x) => (float[K] y) {
                shape = Constant<value_ints = [3]>()
                y = Reshape(x, shape)
            }""")


@pytest.mark.parametrize("kind", get_args(DrawKind))
@pytest.mark.parametrize("type_", ["FLOAT", "FLOAT16", "INT64", "UINT8", "BOOL", "STRING"])
def test_what_is_drawn_is_an_array_of_the_type_even_without_axes(kind: Any, type_: str) -> None:
    for shape in ((), (2, 3)):
        port = Port("x", "tensor", onnx.TensorProto.DataType.Value(type_), shape)
        found = sample(port, Hint(), shape, kind)
        assert isinstance(found, np.ndarray)
        assert (found.shape, found.dtype) == (shape, port.dtype)


class TestUserData:
    TEXT = (
        HEAD
        + "g (float[N,3] x, int64[N] n) => (float[N,3] y, int64[N] m) { y = Neg(x) m = Neg(n) }"
    )

    def load(self, path: Path) -> Drawing:
        proto = model(self.TEXT)
        return draws(proto, Session(proto), load_user_data(path))

    def test_samples_come_first_and_labels_are_ignored(self, tmp_path: Path) -> None:
        x, n = np.ones((20, 3), np.float32), np.arange(20)
        np.savez(tmp_path / "d.npz", x=x, n=n, labels=n)
        found = self.load(tmp_path / "d.npz")
        mine = [f for f in found.feeds if f.description.startswith("user data")]
        assert len(mine) == 16
        assert found.feeds[3].description == "user data, sample 3"
        assert mine[3].arrays["n"].tolist() == [3]

    def test_a_folder_holds_one_feed_in_each_file(self, tmp_path: Path) -> None:
        for size in (1, 4):
            np.savez(tmp_path / f"{size}.npz", x=np.ones((size, 3), np.float32), n=np.arange(size))
        found = self.load(tmp_path)
        assert [f.arrays["x"].shape[0] for f in found.feeds[:2]] == [1, 4]

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"x": np.ones((2, 3), np.float32)}, "the model's inputs are 'x', 'n'"),
            ({"x": np.ones((2, 3)), "n": np.arange(2)}, "is float64, but"),
            ({"x": np.ones((2, 4), np.float32), "n": np.arange(2)}, r"float32\[N,3\]"),
            ({"x": np.full((2, 3), np.nan, np.float32), "n": np.arange(2)}, "nothing but NaN"),
            ({"x": np.ones((2, 3), np.float32), "n": np.arange(3)}, "different numbers"),
        ],
    )
    def test_wrong_samples_are_refused_and_say_what_is_expected(
        self, tmp_path: Path, arrays: dict[str, Any], said: str
    ) -> None:
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(UsageError, match=said):
            self.load(tmp_path / "d.npz")

    def test_what_is_no_numpy_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "d.npz").write_text("hello")
        for path in (tmp_path / "d.npz", tmp_path / "none.npz", tmp_path / "empty"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            with pytest.raises(UsageError):
                load_user_data(path)

    def test_scalar_inputs_get_their_number_with_every_sample(self, tmp_path: Path) -> None:
        proto = model(HEAD + "g (float s, float[N,3] x) => (float[N,3] y) { y = Mul(x, s) }")
        np.savez(tmp_path / "d.npz", s=np.float32(2), x=np.ones((5, 3), np.float32))
        found = draws(proto, Session(proto), load_user_data(tmp_path / "d.npz"))
        assert [f.arrays["s"].tolist() for f in found.feeds[:5]] == [2.0] * 5
        alone = model(HEAD + "g (float s) => (float y) { y = Neg(s) }")
        np.savez(tmp_path / "s.npz", s=np.float32(2))
        (first, *_) = draws(alone, Session(alone), load_user_data(tmp_path / "s.npz")).feeds
        assert first.arrays["s"] == 2.0

    def test_a_single_array_goes_to_the_single_input(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.ones((1, 3), np.float32))
        proto = model(HEAD + "g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }")
        found = draws(proto, Session(proto), load_user_data(tmp_path))
        assert found.feeds[0].description == "user data, a.npy"


REAL = [
    "bert_toy_optimized",
    "gpt2_past_tiny",
    "lr_mnist_scikit",
    "magika_standard_v3_3",
    "openseeface_gaze_opt",
    "ppocr_mobile_v2_cls",
    "scan_cntk",
    "silero_vad_v4",
    "silero_vad_v5",
    "tfbert_qa_keras2onnx",
]


@pytest.mark.parametrize("name", REAL)
def test_real_models_run_with_what_is_drawn(name: str) -> None:
    proto = load(corpus_file(f"real/{name}.onnx"))
    found = draws(proto, Session(proto))
    assert len(found.feeds) >= 3
    assert not [note for note in found.notes if "does not run" in note]
