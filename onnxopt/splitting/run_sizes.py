"""Sizes of tensors whose shapes nothing tells but a run of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.runtime import Session
from onnxopt.verification.feeds import first_feed

AT_ONCE = 64
"""Tensors that are shown in one run: all of them could take much memory."""


def run_sizes(proto: onnx.ModelProto, names: Sequence[str]) -> dict[str, int]:
    """Bytes of tensors in one run on drawn inputs, by name; nothing where the model does not run.

    Args:
        proto: the model with numbers for all dimensions of its inputs that are to be fixed.
        names: of tensors of the main graph.
    """
    found: dict[str, int] = {}
    try:
        feed = first_feed(proto, Session(proto)) if names else None
        for start in range(0, len(names) if feed is not None else 0, AT_ONCE):
            shown = onnx.ModelProto()
            shown.CopyFrom(proto)
            del shown.graph.output[:]
            for name in names[start : start + AT_ONCE]:
                shown.graph.output.append(onnx.ValueInfoProto(name=name))
            for name, value in Session(shown).run(feed or {}).items():
                if isinstance(value, np.ndarray) and value.dtype.kind != "O":
                    found[name] = value.nbytes
    except OnnxoptError:
        return found
    return found
