"""The small trained model of this repository, with samples for it: what many tests prune."""

from __future__ import annotations

from functools import cache

import onnx
from judge import REPOSITORY

from onnxopt.calibration import Calibration, load_calibration
from onnxopt.model import load
from onnxopt.signature import model_inputs

MODELS = REPOSITORY / "models"
DIGITS = MODELS / "digits_resnet.onnx"
CALIBRATION = MODELS / "digits_resnet_calibration.npz"


@cache
def digits() -> onnx.ModelProto:
    """Not to be changed: all tests of a process share it."""
    return load(DIGITS)


@cache
def digits_samples(count: int) -> Calibration:
    return load_calibration(CALIBRATION, model_inputs(digits()), samples=count)
