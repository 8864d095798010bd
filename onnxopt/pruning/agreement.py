"""How far a pruned model agrees with the original on samples; and that it is still a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxopt.errors import CheckError
from onnxopt.graph import Array
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs, model_outputs
from onnxopt.validity import complaint
from onnxopt.verification.comparison import leaves

Run: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class OutputAgreement:
    """One output on all samples.

    Attributes:
        top1: share of samples for which the same class has the highest score; None if the output
            does not look like scores of classes.
        relative: root mean square of the difference by that of the original's deviation from its
            mean; for other than floats the share of elements that differ.
        cosine: of the angle between what both give; None for other than floats.
    """

    name: str
    top1: float | None
    relative: float
    cosine: float | None

    def __str__(self) -> str:
        parts = [] if self.top1 is None else [f"the same class for {self.top1:.1%}"]
        if self.cosine is None:
            parts.append(f"{self.relative:.2%} of the elements differ")
        else:
            parts.append(f"relative error {self.relative:.2g}, cosine {self.cosine:.4f}")
        return f"'{self.name}': {', '.join(parts)}"


@dataclass(frozen=True)
class Agreement:
    """Attributes: samples: how many; origin: which, for a person."""

    samples: int
    origin: str
    outputs: tuple[OutputAgreement, ...]


def check_signature(reference: onnx.ModelProto, pruned: onnx.ModelProto) -> None:
    """Raise CheckError unless names, types and shapes are those of the reference, and as valid."""
    for what, ports in (("inputs", model_inputs), ("outputs", model_outputs)):
        if ports(reference) != ports(pruned):
            raise CheckError(f"the {what} of the pruned model are not those of the original", BUG)
    if complaint(reference) is None and (why := complaint(pruned)) is not None:
        raise CheckError(f"the pruned model is not valid: {why}", BUG)


BUG = "nothing was written; please report this model"


def agreement(
    original: onnx.ModelProto,
    pruned: onnx.ModelProto,
    batches: Iterable[Mapping[str, Array]],
    origin: str,
) -> Agreement:
    """Run both on these samples and compare all outputs.

    Raises:
        CheckError: types or shapes differ, or the pruned model gives NaN or infinity where the
            original does not.
    """
    first, second = Session(original, optimized=True), Session(pruned, optimized=True)
    return agreement_of(first.run, second.run, batches, origin)


def agreement_of(
    first: Run, second: Run, batches: Iterable[Mapping[str, Array]], origin: str
) -> Agreement:
    """The same for whatever gives outputs; what the second gives beside them is left out."""
    sums: dict[str, _Sums] = {}
    count = 0
    for feeds in batches:
        samples = batch_size(feeds)
        count += samples
        found = second(feeds)
        for name, expected in first(feeds).items():
            pairs = zip(leaves(expected), leaves(found[name]), strict=False)
            for number, ((_, a), (_, b)) in enumerate(pairs):
                key = name if isinstance(expected, np.ndarray) else f"{name}[{number}]"
                if a is not None and b is not None:
                    _check(key, a, b)
                    sums.setdefault(key, _Sums()).add(a, b, samples)
    outputs = tuple(entry.result(name) for name, entry in sums.items())
    return Agreement(count, origin, outputs)


def batch_size(feeds: Mapping[str, Any]) -> int:
    """Along the first axis of the first input that has one."""
    shapes = (value.shape for value in feeds.values() if isinstance(value, np.ndarray))
    return next((shape[0] for shape in shapes if shape), 1)


def _check(name: str, expected: Array, found: Array) -> None:
    if (expected.shape, expected.dtype) != (found.shape, found.dtype):
        raise CheckError(
            f"the output '{name}' was {expected.dtype} {list(expected.shape)} and is "
            f"{found.dtype} {list(found.shape)} now",
            BUG,
        )
    if expected.dtype.kind == "f":
        if np.isfinite(expected).all() and not np.isfinite(found).all():
            raise CheckError(f"the pruned model gives NaN or infinity in '{name}'", "cut less")


class _Sums:
    """Sums over the elements of one output."""

    def __init__(self) -> None:
        self.is_float = True
        self.total = np.zeros(6)  # elements, a, aa, bb, ab, (a-b)^2; of others elements, ..., a!=b
        self.samples = self.same = 0
        self.has_classes = True

    def add(self, a: Any, b: Any, samples: int) -> None:
        self.is_float = a.dtype.kind == "f" or a.dtype.kind == "V"
        if not self.is_float:
            self.total += [a.size, 0, 0, 0, 0, float(np.sum(a != b))]
            return
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        finite = np.isfinite(x)
        p, q = x[finite], y[finite]
        with np.errstate(over="ignore"):
            self.total += [p.size, p.sum(), p @ p, q @ q, p @ q, np.square(p - q).sum()]
        self.has_classes = x.ndim == 2 and x.shape[1] > 1 and len(x) == samples
        if self.has_classes:
            self.samples += samples
            self.same += int((x.argmax(axis=1) == y.argmax(axis=1)).sum())

    def result(self, name: str) -> OutputAgreement:
        count, total, aa, bb, ab, gap = self.total.tolist()
        if not self.is_float:
            return OutputAgreement(name, None, gap / max(count, 1), None)
        spread = aa - total * total / max(count, 1)
        relative = float(np.sqrt(gap / spread)) if spread > 0 else float(np.sqrt(gap))
        length = float(np.sqrt(aa * bb))
        cosine = ab / length if length > 0 else 1.0
        top1 = self.same / self.samples if self.has_classes and self.samples else None
        return OutputAgreement(name, top1, relative, cosine)
