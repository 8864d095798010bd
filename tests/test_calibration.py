"""Samples for lossy passes: what is read and drawn, what is refused, and that memory is bounded."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from judge import REPOSITORY

from onnxopt.calibration import Calibration, Preprocess, load_calibration
from onnxopt.errors import UsageError
from onnxopt.model import load
from onnxopt.signature import Array, Port, batch_of, model_inputs

FLOAT = onnx.TensorProto.FLOAT


def port(*dims: int | str, name: str = "x", type_: int = FLOAT) -> Port:
    return Port(name, "tensor", type_, dims)


X = (port("N", 3),)
IMAGES = (port("N", 3, 8, 6),)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def whole(calibration: Calibration, name: str = "x") -> Array:
    return np.concatenate([feeds[name] for feeds in calibration.batches(3)])


class TestChoice:
    def test_all_samples_come_in_order_and_the_last_batch_may_be_short(self) -> None:
        data = draw(7, 3)
        found = Calibration.from_arrays({"x": data}, X)
        assert found.count == 7
        assert [len(feeds["x"]) for feeds in found.batches(3)] == [3, 3, 1]
        np.testing.assert_array_equal(whole(found), data)
        assert found.origin == "arrays: all 7 samples"
        assert found.labels is None and found.notes == ()

    def test_a_draw_has_no_sample_twice_and_is_the_same_each_time(self) -> None:
        data = draw(50, 3)
        first, again = (Calibration.from_arrays({"x": data}, X, samples=20) for _ in range(2))
        other = Calibration.from_arrays({"x": data}, X, samples=20, seed=1)
        assert first.count == len(set(first.indices.tolist())) == 20
        assert first.indices.tolist() == sorted(first.indices.tolist())
        assert first.indices.tolist() == again.indices.tolist() != other.indices.tolist()
        assert first.digest == again.digest != other.digest
        assert other.origin == "arrays: 20 of 50 samples, seed 1"

    def test_labels_go_with_their_samples(self) -> None:
        data, labels = draw(30, 3), np.arange(30)
        found = Calibration.from_arrays({"x": data, "labels": labels}, X, samples=10)
        part = found.take([4, 0])
        assert found.labels is not None and part.labels is not None
        np.testing.assert_array_equal(whole(found), data[found.labels])
        np.testing.assert_array_equal(whole(part), data[part.labels])
        assert part.count == 2

    def test_a_split_is_a_partition_and_the_same_each_time(self) -> None:
        found = Calibration.from_arrays({"x": draw(40, 3)}, X, samples=30)
        rest, held = found.split(0.2)
        assert (rest.count, held.count) == (24, 6)
        assert sorted([*rest.indices, *held.indices]) == found.indices.tolist()
        assert found.split(0.2)[1].digest == held.digest
        assert [part.count for part in found.take([0, 1]).split(0.9)] == [1, 1]

    def test_a_scalar_input_gets_its_number_with_every_batch(self, tmp_path: Path) -> None:
        inputs = (port(name="rate", type_=onnx.TensorProto.INT64), port(name="gain"), *X)
        np.savez(tmp_path / "d.npz", x=draw(7, 3), rate=16000, gain=0.5, labels=np.arange(7))
        found = load_calibration(tmp_path / "d.npz", inputs)
        for part in (found, found.take([1, 2]), *found.split(0.5)):
            for feeds in part.batches(3):
                assert list(feeds) == ["x", "rate", "gain"]
                assert feeds["rate"] == 16000 and feeds["rate"].dtype == np.int64
                assert feeds["gain"].shape == () and feeds["gain"].dtype == np.float32
        other = {"x": draw(7, 3), "rate": np.array(8000), "gain": np.array(0.5)}
        assert found.count == 7
        assert Calibration.from_arrays(other, inputs).digest != found.digest

    @pytest.mark.parametrize("fraction", [0, 1, -1, float("nan")])
    def test_a_split_that_leaves_nothing_is_refused(self, fraction: float) -> None:
        with pytest.raises(UsageError, match="held out"):
            Calibration.from_arrays({"x": draw(4, 3)}, X).split(fraction)

    def test_a_single_sample_is_accepted_and_cannot_be_split(self) -> None:
        found = Calibration.from_arrays({"x": draw(1, 3)}, X)
        with pytest.raises(UsageError, match="too few"):
            found.split(0.5)

    def test_the_digest_depends_on_what_the_model_gets_and_on_nothing_else(self) -> None:
        data = draw(6, 3)
        digests = {
            Calibration.from_arrays({"x": data}, X).digest,
            Calibration.from_arrays({"x": data.astype(np.float64)}, X).digest,
            Calibration.from_arrays({"x": data, "labels": np.arange(6)}, X, name="b").digest,
        }
        assert len(digests) == 1
        named = (port("N", 3, name="y"),)
        for other in (
            Calibration.from_arrays({"x": data[::-1]}, X),
            Calibration.from_arrays({"y": data}, named),
            Calibration.from_arrays({"x": data.reshape(6, 3, 1)}, (port("N", 3, 1),)),
            Calibration.from_arrays({"x": data}, X).take([0, 1]),
        ):
            digests.add(other.digest)
        assert len(digests) == 5

    def test_more_than_there_is_gives_all_and_says_so(self) -> None:
        found = Calibration.from_arrays({"x": draw(5, 3)}, X, samples=9)
        assert found.count == 5
        assert found.notes == ("9 samples were asked for, but 'arrays' holds 5",)

    @pytest.mark.parametrize(
        ("choice", "said"),
        [
            ({"minimum": 6}, "'arrays' holds 5 samples, but at least 6 are needed"),
            ({"samples": 2, "minimum": 3}, "2 samples are too few: at least 3"),
            ({"samples": 0}, "0 samples are too few"),
            ({"seed": -1}, "negative"),
        ],
    )
    def test_too_few_samples_are_refused(self, choice: Any, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            Calibration.from_arrays({"x": draw(5, 3)}, X, **choice)


class TestArrays:
    def test_every_input_gets_its_array_in_its_type(self, tmp_path: Path) -> None:
        inputs = (
            port("N", 3),
            port("N", name="n", type_=onnx.TensorProto.INT64),
            port("N", 2, name="h", type_=onnx.TensorProto.FLOAT16),
            port("N", name="u", type_=onnx.TensorProto.UINT8),
            port("N", name="b", type_=onnx.TensorProto.BFLOAT16),
            port("N", name="s", type_=onnx.TensorProto.STRING),
        )
        file = tmp_path / "d.npz"
        np.savez(
            file,
            x=draw(4, 3).astype(np.float64),
            n=np.arange(4, dtype=np.int32),
            h=draw(4, 2),
            u=np.arange(4),
            b=draw(4),
            s=np.array(["a", "b", "c", "d"]),
        )
        found = load_calibration(file, inputs, samples=2)
        (feeds,) = found.batches(8)
        assert [feeds[p.name].dtype for p in inputs] == [p.dtype for p in inputs]
        assert found.digest == load_calibration(file, inputs, samples=2).digest
        assert found.digest != load_calibration(file, inputs, samples=2, seed=3).digest

    def test_a_single_array_goes_to_the_single_input(self, tmp_path: Path) -> None:
        data = draw(4, 3)
        np.savez(tmp_path / "d.npz", images=data, labels=np.arange(4))
        np.save(tmp_path / "d.npy", data)
        for name in ("d.npz", "d.npy"):
            np.testing.assert_array_equal(whole(load_calibration(tmp_path / name, X)), data)

    def test_an_input_may_be_called_labels(self) -> None:
        found = Calibration.from_arrays({"labels": draw(4, 3)}, (port("N", 3, name="labels"),))
        assert found.labels is None and found.count == 4

    def test_the_samples_of_our_own_models_are_read(self) -> None:
        for name in ("digits_resnet", "digits_transformer"):
            inputs = model_inputs(load(REPOSITORY / "models" / f"{name}.onnx"))
            for part in ("calibration", "test"):
                found = load_calibration(REPOSITORY / "models" / f"{name}_{part}.npz", inputs)
                assert found.notes == ()
                assert (found.labels is None) == (part == "calibration")

    def test_a_folder_of_arrays_holds_a_sample_in_each(self, tmp_path: Path) -> None:
        data = draw(3, 3)
        np.save(tmp_path / "a.npy", data[0])
        np.save(tmp_path / "b.npy", data[1:2])
        np.save(tmp_path / "c.npy", data[2].astype(np.float64))
        (tmp_path / "readme.txt").write_text("not a sample")
        found = load_calibration(tmp_path, X)
        np.testing.assert_array_equal(whole(found), data)
        assert found.name == str(tmp_path)

    def test_samples_in_files_are_of_one_size(self, tmp_path: Path) -> None:
        for index, size in enumerate((3, 3, 4)):
            np.save(tmp_path / f"{index}.npy", draw(size, seed=index))
        with pytest.raises(UsageError, match=r"2.npy' is 4, but '.*0.npy' is 3"):
            load_calibration(tmp_path, (port("N", "M"),))

    def test_a_large_file_is_read_as_far_as_it_is_used(self, tmp_path: Path) -> None:
        shape = (2048, 16384)
        file = tmp_path / "large.npy"
        mapped = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        mapped[:, 0] = np.arange(len(mapped))
        del mapped
        tracemalloc.start()
        found = load_calibration(file, (port("N", shape[1]),))
        assert sum(len(feeds["x"]) for feeds in found.take(range(64)).batches(16)) == 64
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 60e6 < shape[0] * shape[1] * 4

    def test_files_that_were_not_drawn_are_not_read(self, tmp_path: Path) -> None:
        for index in range(10):
            np.save(tmp_path / f"{index}.npy", draw(3, seed=index))
        drawn = load_calibration(tmp_path, X, samples=4).indices
        for index in {*range(10)} - {*drawn.tolist()}:
            (tmp_path / f"{index}.npy").write_text("damaged")
        assert load_calibration(tmp_path, X, samples=4).count == 4
        with pytest.raises(UsageError, match="cannot read"):
            load_calibration(tmp_path, X)


class TestRefusals:
    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"y": draw(4, 3), "z": draw(4, 3)}, "holds 'y', 'z', but the model's inputs are 'x'"),
            ({"x": draw(4, 3), "y": draw(4)}, "labels 'labels'"),
            ({"labels": np.arange(4)}, "holds 'labels', but the model's inputs are 'x'"),
            ({}, "holds nothing"),
            ({"x": np.float32(1)}, "is a scalar"),
            ({"x": draw(4)}, r"is a scalar, but the input 'x' is float32\[N,3\]"),
            ({"x": draw(4, 2)}, r"is 2, but .*float32\[N,3\] \(save samples of shape 3\)"),
            ({"x": np.ones((4, 3), np.uint8)}, r"is uint8, but .*\(normalise as in training"),
            ({"x": np.ones((4, 3), bool)}, r"is bool, but .*\(save it as float32"),
            ({"x": np.array([["a", "b", "c"]])}, "save it as float32"),
            ({"x": np.full((2, 3), 1e300)}, "more than the input 'x' can hold as float32"),
            ({"x": np.ones((4, 3), np.float32)}, "4 samples in 'd.npz' are all the same"),
            ({"x": draw(4, 3), "labels": np.arange(3)}, "labels in 'd.npz' are 3, but .* 4 sam"),
            ({"x": draw(4, 3), "labels": np.array(["a"] * 4)}, "labels in 'd.npz' are <U1"),
            ({"x": draw(4, 3), "labels": np.full(4, np.nan)}, "labels in 'd.npz' hold NaN"),
            ({"x": np.zeros((0, 3), np.float32)}, "holds 0 samples, but at least 1"),
        ],
    )
    def test_wrong_arrays_are_refused_and_it_is_said_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: Any, said: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        np.savez("d.npz", **arrays)
        with pytest.raises(UsageError, match=said) as caught:
            load_calibration("d.npz", X)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (np.full(4, 0.5), r"'gain' in 'arrays' is 4, but .* is a scalar, .* \(give it once"),
            (np.array(np.nan), "is NaN or infinity"),
            (np.array(3), r"is int64, but the input is float32\[\] \(save it as float32\)"),
            (np.array("a"), "save it as float32"),
        ],
    )
    def test_what_is_no_number_for_a_scalar_input_is_refused(self, value: Any, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            Calibration.from_arrays({"x": draw(4, 3), "gain": value}, (*X, port(name="gain")))

    def test_arrays_hold_the_same_number_of_samples(self) -> None:
        inputs = (*X, port("N", name="n", type_=onnx.TensorProto.INT32))
        with pytest.raises(UsageError, match="different numbers of samples: 'x' 4, 'n' 3"):
            Calibration.from_arrays({"x": draw(4, 3), "n": np.arange(3)}, inputs)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_the_first_sample_that_is_not_finite_is_named(self, value: float) -> None:
        data = draw(40, 3)
        data[[17, 30], 1] = value
        with pytest.raises(UsageError, match="sample 17 of 'x' in 'arrays' holds NaN or infinity"):
            Calibration.from_arrays({"x": data}, X)

    def test_a_file_that_is_not_finite_is_named(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", draw(3))
        np.save(tmp_path / "b.npy", np.full(3, np.nan, np.float32))
        with pytest.raises(UsageError, match=r"b\.npy' holds NaN"):
            load_calibration(tmp_path, X)

    @pytest.mark.parametrize(("type_", "high"), [("INT8", 200), ("UINT8", -1), ("INT32", 2**40)])
    def test_integers_must_fit(self, type_: str, high: int) -> None:
        inputs = (port("N", type_=onnx.TensorProto.DataType.Value(type_)),)
        with pytest.raises(UsageError, match="more than the input 'x' can hold"):
            Calibration.from_arrays({"x": np.array([0, high])}, inputs)

    def test_numbers_with_a_fraction_are_not_made_integers(self) -> None:
        inputs = (port("N", type_=onnx.TensorProto.INT64),)
        with pytest.raises(UsageError, match=r"is float32, but .*\(save it as int64"):
            Calibration.from_arrays({"x": draw(3)}, inputs)

    def test_one_input_may_be_constant_where_another_is_not(self) -> None:
        inputs = (*X, port("N", name="mask"))
        same = np.ones(4, np.float32)
        assert Calibration.from_arrays({"x": draw(4, 3), "mask": same}, inputs).count == 4

    def test_swapped_channels_are_recognised(self) -> None:
        with pytest.raises(UsageError, match=r"save x.transpose\(0, 3, 1, 2\)"):
            Calibration.from_arrays({"x": draw(4, 8, 6, 3)}, IMAGES)
        with pytest.raises(UsageError, match=r"save x.transpose\(0, 2, 3, 1\)"):
            Calibration.from_arrays({"x": draw(4, 3, 8, 6)}, (port("N", 8, 6, 3),))

    def test_raw_pixels_as_floats_are_noted(self) -> None:
        data = np.random.default_rng(0).uniform(0, 255, (9, 3)).astype(np.float32)
        (note,) = Calibration.from_arrays({"x": data}, X).notes
        assert "as raw pixels do" in note and "unless the model takes raw pixels" in note

    @pytest.mark.parametrize(
        ("inputs", "said"),
        [
            ((), "no inputs"),
            ((Port("x", "sequence", FLOAT, ("N",)),), "only be tensors"),
            ((port(),), "is a scalar"),
        ],
    )
    def test_inputs_without_an_axis_for_samples_are_refused(
        self, inputs: tuple[Port, ...], said: str
    ) -> None:
        with pytest.raises(UsageError, match=said):
            Calibration.from_arrays({"x": draw(4)}, inputs)

    def test_what_is_no_file_of_samples_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "x.csv").write_text("1,2,3")
        (tmp_path / "x.npz").write_text("hello")
        (tmp_path / "x.npy").write_bytes(b"")
        for name, said in (
            ("none.npz", "there is no file or folder"),
            ("x.csv", r"no file of samples \(give FILE.npz"),
            ("x.npz", "Python objects, or is of another kind"),
            ("x.npy", "cannot read"),
            ("empty", "holds neither .npy files nor images"),
        ):
            with pytest.raises(UsageError, match=said):
                load_calibration(tmp_path / name, X)

    def test_pickled_objects_are_never_loaded_nor_is_it_said_how(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.array([{}], object))
        np.save(tmp_path / "a.npy", np.array([{}], object))
        for name in ("a.npz", "a.npy"):
            with pytest.raises(UsageError, match="it holds Python objects") as caught:
                load_calibration(tmp_path / name, X)
            assert "allow_pickle" not in str(caught.value)

    def test_an_archive_under_another_name_is_refused(self, tmp_path: Path) -> None:
        with (tmp_path / "a.npy").open("wb") as stream:
            np.savez(stream, x=draw(3))
        with pytest.raises(UsageError, match="archive"):
            load_calibration(tmp_path, X)

    def test_unnamed_samples_are_for_models_with_one_input(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", draw(3))
        for path in (tmp_path, tmp_path / "a.npy"):
            with pytest.raises(UsageError, match="has the inputs 'x', 'n'"):
                load_calibration(path, (*X, port("N", name="n")))

    def test_arrays_are_not_preprocessed_again(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", draw(3))
        for path in (tmp_path, tmp_path / "a.npy"):
            with pytest.raises(UsageError, match="already preprocessed"):
                load_calibration(path, X, preprocess=Preprocess())


def test_the_size_of_batches_is_that_of_the_first_axes_where_the_file_fixes_it() -> None:
    def ports(*dims: tuple[int | str | None, ...] | None) -> list[Port]:
        return [Port(f"x{i}", "tensor", onnx.TensorProto.FLOAT, d) for i, d in enumerate(dims)]

    assert batch_of(ports(("N", 3), (None, 4), None, (), (0, 2))) is None
    assert batch_of(ports(("N", 3), (32, 4), (32, 5))) == 32
    assert batch_of(ports((1,))) == 1
    with pytest.raises(UsageError, match="differ: 'x0' 1, 'x2' 2"):
        batch_of(ports((1, 512), ("N",), (2, 1, 64)))
