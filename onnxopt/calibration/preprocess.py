"""How an image becomes a sample, as `--preprocess` says it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from onnxopt.arrays import fits, shape_text
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Dim, Port

LAYOUTS = ("nchw", "nhwc")
COLORS = ("rgb", "bgr", "gray")


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a sample: resized, colors ordered, divided, normalised, laid out.

        sample = (pixels / scale - mean) / std

    The image is stretched to the size (bilinear, as Pillow does it), without cropping. Whatever
    this cannot express, a Python function can: see `load_calibration`.

    Attributes:
        mean: one number, or one for each channel in the order of `color`; none is 0.
        std: likewise; none is 1.
        layout: "nchw" or "nhwc"; None: the one that the input's shape shows, else "nchw".
        size: height and width; None: the input's.
        scale: None: 255; for inputs of integers, pixels stay as they are.
        color: "rgb", "bgr" or "gray"; None: "gray" for inputs of one channel, else "rgb".
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["nchw", "nhwc"] | None = None
    size: tuple[int, int] | None = None
    scale: float | None = None
    color: Literal["rgb", "bgr", "gray"] | None = None

    def __post_init__(self) -> None:
        divisors = (*self.std, *(() if self.scale is None else (self.scale,)))
        if not all(map(math.isfinite, (*self.mean, *divisors))):
            raise UsageError("mean, std and scale must be finite numbers")
        if min(divisors, default=1) <= 0:
            raise UsageError("std and scale must be above 0", "they are what is divided by")
        if self.size is not None and min(self.size) < 1:
            raise UsageError("the size of images must be at least 1x1")
        for key, value, legal in (("layout", self.layout, LAYOUTS), ("color", self.color, COLORS)):
            if value is not None and value not in legal:
                raise UsageError(f"there is no {key} '{value}'", f"use {', '.join(legal)}")

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read `mean=0.485:0.456:0.406,std=0.229:0.224:0.225,size=224x224,color=rgb`.

        The keys are the attributes; each may be left out. Numbers are separated by `:` or `/`; a
        size is HEIGHTxWIDTH, or one number for a square.

        Raises:
            UsageError: an unknown or repeated key, or a value that makes no sense.
        """
        found: dict[str, Any] = {}
        for entry in text.split(","):
            key, _, value = (piece.strip() for piece in entry.partition("="))
            if key not in _READERS:
                raise UsageError(
                    f"there is no '{key}' in preprocessing",
                    f"write KEY=VALUE,... with the keys {', '.join(_READERS)}",
                )
            if key in found:
                raise UsageError(f"preprocessing says '{key}' twice")
            try:
                found[key] = _READERS[key](value)
            except ValueError:
                raise UsageError(
                    f"preprocessing with '{entry.strip()}' makes no sense",
                    f"write it like {key}={_EXAMPLES[key]}",
                ) from None
        return cls(**found)

    def for_input(self, port: Port) -> Pipeline:
        """What this says, completed by what the input says.

        Raises:
            UsageError: it is no input for images, or does not go with this.
        """
        dims = port.dims if port.dims is not None else (None,) * 4
        if len(dims) != 4:
            raise UsageError(
                f"the input '{port.name}' is {port.describe()}, and images need four dimensions",
                "give arrays that are already preprocessed",
            )
        if not port.is_floating and (self.mean or self.std or self.scale):
            raise UsageError(
                f"the input '{port.name}' is {port.describe()}, which takes pixels as they are",
                "leave mean, std and scale out of the preprocessing",
            )
        layout = self.layout or _layout(dims)
        height, width, channels = dims[1:] if layout == "nhwc" else (*dims[2:], dims[1])
        color = self.color or ("gray" if channels == 1 else "rgb")
        self._check_channels(port, channels, color, layout)
        size = self.size or _fixed_size(port, height, width)
        if not fits(size, (height, width)):
            raise UsageError(
                f"preprocessing makes images of {shape_text(size)}, but the input '{port.name}' "
                f"is {port.describe()}, in the layout {layout}",
                "leave size out of the preprocessing",
            )
        scale = self.scale or 255.0 if port.is_floating else None
        mean, std = self.mean or (0.0,), self.std or (1.0,)
        return Pipeline(size, color, layout == "nhwc", scale, mean, std)

    def _check_channels(self, port: Port, channels: Dim, color: str, layout: str) -> None:
        count = 1 if color == "gray" else 3
        if isinstance(channels, int) and channels != count:
            raise UsageError(
                f"{color} images have {count} channels, but the input '{port.name}' is "
                f"{port.describe()}, with {channels} in the layout {layout}",
                "say another layout or color in the preprocessing",
            )
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (0, 1, count):
                raise UsageError(
                    f"preprocessing gives {len(numbers)} numbers as {key} for {color} images",
                    "give one, or one for each channel",
                )


@dataclass(frozen=True)
class Pipeline:
    """Makes samples of images. It is a function from uint8 [height, width, 3] in RGB to a sample.

    Attributes:
        scale: None: pixels stay as they are.
    """

    size: tuple[int, int]
    color: str
    channels_last: bool
    scale: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Array) -> Array:
        from PIL import Image

        picture = Image.fromarray(image).resize(self.size[::-1], Image.Resampling.BILINEAR)
        pixels: Array = np.asarray(picture.convert("L") if self.color == "gray" else picture)
        pixels = np.atleast_3d(pixels)
        if self.color == "bgr":
            pixels = pixels[..., ::-1]
        if self.scale is not None:
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
            pixels = (pixels.astype(np.float32) / np.float32(self.scale) - mean) / std
        return pixels if self.channels_last else pixels.transpose(2, 0, 1)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is suspicious about it, for a person."""
        if self.scale is None or max(self.mean) <= 255 / self.scale:
            return ()
        return (
            f"the mean {max(self.mean):g} is above all pixels, which are divided by "
            f"{self.scale:g}; for a mean and std of pixels from 0 to 255 say scale=1",
        )


def _layout(dims: tuple[Dim, ...]) -> str:
    return "nhwc" if dims[3] in (1, 3) and dims[1] not in (1, 3) else "nchw"


def _fixed_size(port: Port, height: Dim, width: Dim) -> tuple[int, int]:
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    raise UsageError(
        f"the input '{port.name}' leaves the size of images open: {port.describe()}",
        "say size=HEIGHTxWIDTH in the preprocessing",
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, re.split("[:/]", text)))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if match is None:
        raise ValueError(text)
    return int(match[1]), int(match[2] or match[1])


_READERS: dict[str, Callable[[str], Any]] = {
    "mean": _numbers,
    "std": _numbers,
    "layout": str,
    "size": _size,
    "scale": float,
    "color": str,
}

_EXAMPLES = {
    "mean": "0.485:0.456:0.406",
    "std": "0.229:0.224:0.225",
    "size": "224x224",
    "scale": "255",
}
