"""How well a model does on labelled samples: metrics by name or from the user's own module."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxopt.arrays import shape_text
from onnxopt.calibration import Calibration
from onnxopt.errors import OnnxoptError, UsageError, told
from onnxopt.signature import Array

Metric: TypeAlias = Callable[[dict[str, Array], Array], float]
"""From the outputs for all samples by name, and the labels, to a number: higher is better."""

Run: TypeAlias = Callable[[dict[str, Array]], Mapping[str, Any]]
"""From feeds to outputs by name, as `Session.run` does it."""

LEGAL = "top1, top5, mse, or MODULE:FUNCTION for a function of your own"


def load_metric(spec: str) -> Metric:
    """A metric by name. Higher is better for all of them.

    Args:
        spec: `top1` or `top5`: the fraction of samples whose label is the class, or one of the five
            classes, with the highest score in the first output (classes along its last axis; of
            equal scores the first counts). `mse`: minus the mean squared error of the first output.
            `module:function`: the module is imported, which runs it.

    Raises:
        UsageError: it is none of these, or cannot be imported.
    """
    if spec in _METRICS:
        return _METRICS[spec]
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", spec):
        raise UsageError(f"there is no metric '{spec}'", f"use {LEGAL}")
    module, _, name = spec.partition(":")
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"the metric '{spec}' cannot be loaded: {told(error)}",
            "the module must be installed, or its folder be in PYTHONPATH",
        ) from error
    found = getattr(loaded, name, None)
    if not callable(found):
        what = "is not a function" if hasattr(loaded, name) else f"is not in {loaded.__file__}"
        raise UsageError(f"the metric '{spec}' {what}", "give MODULE:FUNCTION")
    return partial(_own, spec, found)


def evaluate(run: Run, calibration: Calibration, metric: Metric, batch: int) -> float:
    """The metric over all samples: of the whole outputs, not a mean over batches. It may be NaN.

    Outputs without one row for each sample, all of one shape, are left out.

    Raises:
        UsageError: no labels, or outputs that the metric cannot judge.
        RunError: as `run` does.
    """
    if calibration.labels is None:
        raise UsageError(
            f"'{calibration.name}' holds no labels, so nothing can be evaluated on it",
            "add an array 'labels' with one label for each sample",
        )
    parts: dict[str, list[Array]] = {}
    for feeds in calibration.batches(batch):
        count = len(next(iter(feeds.values())))
        for name, value in run(feeds).items():
            if isinstance(value, np.ndarray) and value.shape[:1] == (count,):
                parts.setdefault(name, []).append(value)
    outputs = {
        name: np.concatenate(arrays)
        for name, arrays in parts.items()
        if len({array.shape[1:] for array in arrays}) == 1
        and sum(map(len, arrays)) == calibration.count
    }
    if not outputs:
        raise UsageError("no output of the model has one row for each sample")
    return float(metric(outputs, calibration.labels))


def _own(
    spec: str, function: Callable[..., Any], outputs: dict[str, Array], labels: Array
) -> float:
    """What a function of the user says; NaN is for the caller to judge."""
    try:
        return float(function(outputs, labels))
    except OnnxoptError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"the metric '{spec}' fails: {told(error)}",
            "it gets a dict of outputs and the labels, and returns a number, higher for better",
        ) from error


def _top(count: int, outputs: dict[str, Array], labels: Array) -> float:
    name, scores = _first(outputs)
    while scores.ndim > labels.ndim + 1 and scores.shape[-1] == 1:
        scores = scores[..., 0]
    if labels.dtype.kind not in "iu" or scores.shape[:-1] != labels.shape:
        raise UsageError(
            f"top{count} cannot judge the output '{name}', {shape_text(scores.shape)}, by labels "
            f"{labels.dtype} {shape_text(labels.shape)}",
            "it takes scores with classes along the last axis, and numbers of classes as labels",
        )
    classes = scores.shape[-1]
    if classes <= count:
        raise UsageError(f"top{count} says nothing about the {classes} classes of '{name}'")
    if labels.min() < 0 or labels.max() >= classes:
        raise UsageError(
            f"there are labels from {labels.min()} to {labels.max()}, but '{name}' has {classes} "
            "classes",
            "number the classes from 0",
        )
    best = np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")[..., :count]
    right = (best == labels[..., None]).any(axis=-1) & ~np.isnan(scores).any(axis=-1)
    return float(right.mean())


def _minus_mse(outputs: dict[str, Array], labels: Array) -> float:
    name, values = _first(outputs)
    if _without_ones(values) != _without_ones(labels):
        raise UsageError(
            f"mse cannot compare the output '{name}', {shape_text(values.shape)}, with labels "
            f"{shape_text(labels.shape)}",
            "give labels of the shape of the output",
        )
    errors = values.astype(np.float64).reshape(labels.shape) - labels
    return -float(np.mean(np.square(errors)))


def _without_ones(array: Array) -> list[int]:
    return [size for size in array.shape if size != 1]


def _first(outputs: dict[str, Array]) -> tuple[str, Array]:
    return next(iter(outputs.items()))


_METRICS: dict[str, Metric] = {
    "top1": partial(_top, 1),
    "top5": partial(_top, 5),
    "mse": _minus_mse,
}
