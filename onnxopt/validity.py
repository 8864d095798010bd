"""What onnx.checker says of a model, in one line."""

from __future__ import annotations

import google.protobuf.message
import onnx
import onnx.checker
import onnx.shape_inference

from onnxopt.graph_protos import operators

PRINTED_ABOUT = frozenset(
    ("ATen", "Affine", "ConstantFill", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill")
    + ("ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh")
)
"""Withdrawn operators about which the checker prints to standard output, where JSON may go."""


def complaint(proto: onnx.ModelProto, *, types: bool = False) -> str | None:
    """Why the model is not valid; None if it is, or if the checker cannot be asked.

    Args:
        types: also what only type and shape inference sees.
    """
    if any(op in PRINTED_ABOUT for op in operators(proto)):
        return None
    try:
        onnx.checker.check_model(proto, full_check=types)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return next(iter(str(error).splitlines()), "invalid")
    except (ValueError, RuntimeError, google.protobuf.message.Error):
        return None  # larger than the checker can take
    return None
