"""Mirror images of samples: which axis, which order, and what is no image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxopt.calibration import Calibration, flipped
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Port

FLOAT = onnx.TensorProto.FLOAT


def port(*dims: int | str, name: str = "x") -> Port:
    return Port(name, "tensor", FLOAT, dims)


def draw(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def whole(samples: Calibration, name: str = "x") -> Array:
    return np.concatenate([feeds[name] for feeds in samples.batches(3)])


@pytest.mark.parametrize(
    ("shape", "axis"), [((7, 3, 8, 6), 3), ((7, 8, 6, 3), 2), ((7, 1, 5, 5), 3), ((7, 5, 9, 4), 2)]
)
def test_each_sample_is_followed_by_its_mirror_image(shape: tuple[int, ...], axis: int) -> None:
    data = draw(*shape)
    made = flipped(Calibration.from_arrays({"x": data}, (port("N", *shape[1:]),)))
    assert made.count == 14
    np.testing.assert_array_equal(whole(made)[::2], data)
    np.testing.assert_array_equal(whole(made)[1::2], np.flip(data, axis))


def test_of_drawn_samples_the_mirror_images_are_added_with_their_labels() -> None:
    data, labels = draw(20, 3, 8, 6), np.arange(20)
    given = {"x": data, "labels": labels}
    drawn = Calibration.from_arrays(given, (port("N", 3, 8, 6),), samples=5)
    made = flipped(drawn)
    np.testing.assert_array_equal(whole(made)[::2], whole(drawn))
    np.testing.assert_array_equal(whole(made)[1::2], whole(drawn)[..., ::-1])
    assert made.labels is not None and drawn.labels is not None
    np.testing.assert_array_equal(made.labels, np.repeat(drawn.labels, 2))
    assert made.origin == "arrays with mirror images: 10 of 40 samples, seed 0"
    assert made.digest != drawn.digest


def test_parts_of_flipped_samples_are_those_samples() -> None:
    made = flipped(Calibration.from_arrays({"x": draw(6, 3, 8, 6)}, (port("N", 3, 8, 6),)))
    np.testing.assert_array_equal(whole(made.take([3, 4, 9])), whole(made)[[3, 4, 9]])


def test_what_is_no_image_beside_one_is_given_again_as_it_is() -> None:
    data, more = draw(4, 3, 8, 6), draw(4, 5)
    ports = (port("N", 3, 8, 6), port("N", 5, name="m"))
    made = flipped(Calibration.from_arrays({"x": data, "m": more}, ports))
    np.testing.assert_array_equal(whole(made)[1::2], data[..., ::-1])
    np.testing.assert_array_equal(whole(made, "m"), np.repeat(more, 2, 0))


@pytest.mark.parametrize(
    ("shape", "said"),
    [((6, 5), "no input of the model is an image"), ((6, 3, 8, 2), "which axis of 'x'")]
    + [((6, 8, 8, 8), "no input of the model is an image")],
)
def test_what_cannot_be_mirrored_is_refused(shape: tuple[int, ...], said: str) -> None:
    samples = Calibration.from_arrays({"x": draw(*shape)}, (port("N", *shape[1:]),))
    with pytest.raises(UsageError, match=said):
        flipped(samples)


def test_files_are_mirrored_when_they_are_read(tmp_path: Path) -> None:
    from onnxopt.calibration import load_calibration

    data = draw(5, 3, 8, 6)
    for number, sample in enumerate(data):
        np.save(tmp_path / f"{number}.npy", sample)
    made = flipped(load_calibration(tmp_path, (port("N", 3, 8, 6),)))
    np.testing.assert_array_equal(whole(made)[1::2], data[..., ::-1])
    place = next(iter(made.sources.values())).place(3)
    assert place.startswith("the mirror image of ") and "1.npy" in place
