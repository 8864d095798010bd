"""Samples that tell how a model is used: statistics and judgements of lossy passes rest on them."""

from onnxopt.calibration.flipping import flipped
from onnxopt.calibration.loading import load_calibration
from onnxopt.calibration.preprocess import Preprocess
from onnxopt.calibration.samples import Calibration

__all__ = ["Calibration", "Preprocess", "flipped", "load_calibration"]
