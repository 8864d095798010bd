"""Images as samples: how they are preprocessed, when they are read, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxopt.calibration import Calibration, Preprocess, load_calibration
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Port

FLOAT = onnx.TensorProto.FLOAT
TEXT = "mean=0.485:0.456:0.406,std=0.229/0.224/0.225,layout=nchw,size=8x6,scale=255,color=rgb"


def port(*dims: int | str, type_: int = FLOAT) -> Port:
    return Port("x", "tensor", type_, dims)


IMAGES = (port("N", 3, 8, 6),)


def whole(calibration: Calibration) -> Array:
    return np.concatenate([feeds["x"] for feeds in calibration.batches(3)])


def write_images(folder: Path, count: int = 4, suffix: str = ".png") -> list[Array]:
    """Images of 8x6 pixels, and those pixels."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    pixels = [rng.integers(0, 256, (8, 6, 3)).astype(np.uint8) for _ in range(count)]
    for index, array in enumerate(pixels):
        Image.fromarray(array).save(folder / f"{index}{suffix}")
    return pixels


@pytest.mark.parametrize("suffix", [".png", ".BMP"])
def test_images_are_normalised_as_it_is_said(tmp_path: Path, suffix: str) -> None:
    pixels = np.stack(write_images(tmp_path, suffix=suffix)).astype(np.float32)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    expected = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    found = load_calibration(tmp_path, IMAGES, preprocess=Preprocess.parse(TEXT))
    np.testing.assert_array_equal(whole(found), expected)
    assert whole(found).dtype == np.float32
    assert found.notes == ()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_compressed_images_are_read(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, suffix=suffix)
    assert load_calibration(tmp_path, IMAGES, samples=3).count == 3


def test_size_layout_and_color_are_those_of_the_input(tmp_path: Path) -> None:
    pixels = np.stack(write_images(tmp_path))
    found = load_calibration(tmp_path, (port("N", 8, 6, 3),))
    np.testing.assert_array_equal(whole(found), pixels / np.float32(255))
    assert "no preprocessing was given" in found.notes[0]
    assert whole(load_calibration(tmp_path, (port("N", 1, 4, 5),))).shape == (4, 1, 4, 5)
    assert whole(load_calibration(tmp_path, (port("N", 4, 5, 1),))).shape == (4, 4, 5, 1)


def test_inputs_of_pixels_get_pixels(tmp_path: Path) -> None:
    pixels = np.stack(write_images(tmp_path))
    inputs = (port("N", 3, "H", "W", type_=onnx.TensorProto.UINT8),)
    found = load_calibration(tmp_path, inputs, preprocess=Preprocess.parse("size=8x6"))
    assert found.notes == ()
    np.testing.assert_array_equal(whole(found), pixels.transpose(0, 3, 1, 2))


def test_the_order_of_colors_and_the_size_can_be_chosen(tmp_path: Path) -> None:
    pixels = np.stack(write_images(tmp_path)).astype(np.float32)
    blue_first = Preprocess.parse("color=bgr,scale=1,layout=nhwc,size=8x6,mean=1:2:3")
    found = load_calibration(tmp_path, (port("N", "H", "W", "C"),), preprocess=blue_first)
    np.testing.assert_array_equal(whole(found), pixels[..., ::-1] - np.array([1, 2, 3], np.float32))
    square = load_calibration(
        tmp_path, (port("N", 3, "H", "W"),), preprocess=Preprocess.parse("size=5")
    )
    assert whole(square).shape == (4, 3, 5, 5)


def test_gray_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    pixels = write_images(tmp_path, 1)[0]
    for mode in ("L", "P", "RGBA", "1", "LA"):
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{mode}.png")
    assert whole(load_calibration(tmp_path, IMAGES)).shape == (6, 3, 8, 6)
    shapes: list[Any] = []

    def look(image: Array) -> Array:
        shapes.append((image.shape, image.dtype))
        return np.asarray(image.transpose(2, 0, 1), np.float32)

    load_calibration(tmp_path, IMAGES, preprocess=look)
    assert set(shapes) == {((8, 6, 3), np.dtype(np.uint8))}


def test_images_are_read_when_a_batch_needs_them(tmp_path: Path) -> None:
    write_images(tmp_path, 8)
    calls: list[Array] = []

    def record(image: Array) -> Array:
        calls.append(image)
        return np.asarray(image.transpose(2, 0, 1)[None] / 255)

    found = load_calibration(tmp_path, IMAGES, samples=5, preprocess=record)
    assert len(calls) == 5
    batches = found.batches(2)
    next(batches)
    assert len(calls) == 7
    next(batches)
    assert len(calls) == 9


def test_a_function_that_fails_is_told_with_its_image(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(UsageError, match=r"0.png' fails: ZeroDivisionError"):
        load_calibration(tmp_path, IMAGES, preprocess=lambda image: image[0] * (1 // 0))
    with pytest.raises(UsageError, match=r"is 8x6x3, but the input 'x' is float32\[N,3,8,6\]"):
        load_calibration(tmp_path, IMAGES, preprocess=lambda image: image / 255)


def test_a_mean_above_all_pixels_is_noted(tmp_path: Path) -> None:
    write_images(tmp_path)
    slip = Preprocess.parse("mean=123.7:116.3:103.5,std=58.4:57.1:57.4")
    found = load_calibration(tmp_path, IMAGES, preprocess=slip)
    assert "say scale=1" in found.notes[0]


@pytest.mark.parametrize(
    ("inputs", "text", "said"),
    [
        ((port("N", 3, "H", "W"),), "scale=255", "leaves the size of images open"),
        ((port("N", 3, 8),), "size=8", "images need four dimensions"),
        ((Port("x", "tensor", FLOAT, None),), "scale=1", "say size=HEIGHTxWIDTH"),
        (IMAGES, "layout=nhwc", "with 6 in the layout nhwc"),
        (IMAGES, "color=gray", "gray images have 1 channels"),
        (IMAGES, "size=9", "makes images of 9x9, but .*leave size out"),
        (IMAGES, "mean=0.5:0.5", "gives 2 numbers as mean for rgb images"),
        ((port("N", 3, 8, 6, type_=onnx.TensorProto.UINT8),), "scale=2", "pixels as they are"),
    ],
)
def test_preprocessing_that_does_not_suit_the_input_is_refused(
    tmp_path: Path, inputs: tuple[Port, ...], text: str, said: str
) -> None:
    write_images(tmp_path)
    with pytest.raises(UsageError, match=said):
        load_calibration(tmp_path, inputs, preprocess=Preprocess.parse(text))


def test_damaged_deep_and_enormous_images_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good"
    write_images(good)
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "a.png").write_bytes((good / "0.png").read_bytes()[:90])
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.ones((8, 6), np.uint16)).save(deep / "a.png")
    for folder, said in ((cut, "cut/a.png"), (deep, "a.png': it has more than 8 bits")):
        with pytest.raises(UsageError, match=said):
            load_calibration(folder, IMAGES)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(UsageError, match=r"cannot read the image .*exceeds limit"):
        load_calibration(good, IMAGES)


def test_a_folder_holds_arrays_or_images(tmp_path: Path) -> None:
    write_images(tmp_path)
    np.save(tmp_path / "a.npy", np.ones((3, 8, 6)))
    with pytest.raises(UsageError, match=r"holds both \.npy files and images"):
        load_calibration(tmp_path, IMAGES)


def test_without_pillow_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(UsageError, match=r"pip install 'onnxopt\[images\]'"):
        load_calibration(tmp_path, IMAGES)


def test_every_key_is_read() -> None:
    assert Preprocess.parse(TEXT) == Preprocess(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "nchw", (8, 6), 255.0, "rgb"
    )
    assert Preprocess.parse(" size = 224 ").size == (224, 224)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("men=1", "no 'men' .* mean, std, layout, size, scale, color"),
        ("", "no ''"),
        ("mean=0.5,,std=1", "no ''"),
        ("0.5", r"no '0\.5'"),
        ("scale=1,scale=2", "says 'scale' twice"),
        ("mean=a", "'mean=a' makes no sense .write it like mean=0.485:0.456:0.406"),
        ("mean", "'mean' makes no sense"),
        ("mean=nan", "finite"),
        ("std=0:1:1", "std and scale must be above 0"),
        ("scale=0", "above 0"),
        ("scale=", "write it like scale=255"),
        ("size=8x", "write it like size=224x224"),
        ("size=0", "at least 1x1"),
        ("size=8x8x3", "makes no sense"),
        ("layout=chw", "no layout 'chw' .use nchw, nhwc"),
        ("color=RGBA", "no color 'RGBA' .use rgb, bgr, gray"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Preprocess.parse(text)
