"""The batches that a model is looked at with: of calibration samples or, without any, drawn."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnxopt.calibration import Calibration
from onnxopt.errors import UsageError
from onnxopt.pruning.samples import Batch, batches_of
from onnxopt.runtime import RunError, Session
from onnxopt.signature import batch_of, model_inputs


def loaded_batches(
    proto: onnx.ModelProto, calibration: Calibration | None, sample_bytes: int
) -> Sequence[Batch]:
    if calibration is None:
        from onnxopt.verification.feeds import draws

        return [dict(draws(proto, Session(proto)).feeds[0].arrays)]
    batches = batches_of(calibration, model_inputs(proto), sample_bytes)
    if not batches:
        raise UsageError(
            f"'{calibration.name}' holds fewer samples than the model takes at once",
            "give more samples",
        )
    try:
        Session(proto).run(batches[0])
    except RunError as error:
        count = len(next(iter(batches[0].values())))
        raise UsageError(
            f"the model does not run with {count} samples of '{calibration.name}' at once: {error}",
            "give samples with values that the model takes; if it takes one size of batches only, "
            "fix that with --set-shape NAME=SIZE,...",
        ) from None
    return batches


def one_run(proto: onnx.ModelProto, calibration: Calibration | None) -> Batch | None:
    """Samples for one run: a single one, or as many as the model takes at once."""
    if calibration is None:
        return None
    return next(iter(calibration.batches(batch_of(model_inputs(proto)) or 1)), None)
