"""Decode image files with Pillow, which only those who calibrate on images need."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onnxopt.errors import UsageError, told
from onnxopt.signature import Array

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp"))


def reader(preprocess: Callable[[Array], Array]) -> Callable[[Path], Array]:
    """A function that reads an image file as a sample.

    Args:
        preprocess: gets an image as uint8 [height, width, 3] in RGB and returns the sample.

    Raises:
        UsageError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise UsageError(
            "reading images needs Pillow, which is not installed",
            "pip install 'onnxopt[images]'",
        ) from None

    def read(file: Path) -> Array:
        image = decode(file)
        try:
            return np.asarray(preprocess(image))
        except Exception as error:
            raise UsageError(f"preprocessing '{file}' fails: {told(error)}") from error

    return read


def decode(file: Path) -> Array:
    """An image as uint8 [height, width, 3] in RGB, without transparency and EXIF orientation.

    Raises:
        UsageError: it is not readable, is enormous, or has more than 8 bits a channel.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.mode.startswith(("I", "F")):
                    raise ValueError("it has more than 8 bits a channel: convert it")
                return np.asarray(image.convert("RGB"))
    except Exception as error:  # damaged files raise what their decoder raises
        raise UsageError(f"cannot read the image '{file}': {error}") from None
