"""Whether samples fit the inputs of a model: number, types, shapes, labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.arrays import fits, shape_text
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Port

NORMALIZE = "normalise as in training and save as {dtype}, e.g. ((x / 255 - mean) / std)"


def check_inputs(inputs: Sequence[Port]) -> None:
    """Raise UsageError unless samples for these inputs can be arrays with samples along an axis."""
    if not inputs:
        raise UsageError("the model has no inputs, so there is nothing to give samples for")
    for port in inputs:
        if port.kind != "tensor":
            raise UsageError(
                f"the input '{port.name}' is a {port.describe()}, and samples can only be tensors"
            )
    if all(port.dims == () for port in inputs):
        raise UsageError(
            f"the input '{inputs[0].name}' is a scalar, without an axis for samples",
            "leave the samples out: no input of this model has such an axis",
        )


def given_once(array: Array, port: Port, label: str) -> Array:
    """What an input without axes gets with every batch, in the type of the input.

    Raises:
        UsageError: it has axes, is of another kind, or is not finite.
    """
    if array.ndim:
        raise UsageError(
            f"'{port.name}' in '{label}' is {shape_text(array.shape)}, but the input is a scalar, "
            "which all samples share",
            f"give it once, without axes: numpy.savez(..., {port.name}=numpy.array(VALUE))",
        )
    made = to_type(array, port, label)
    if port.is_floating and not np.isfinite(made):
        raise UsageError(f"'{port.name}' in '{label}' is NaN or infinity", "give a finite number")
    return made


def check_shape(sample: Sequence[int], port: Port, label: str) -> None:
    """Raise UsageError unless the input takes samples of this shape; its first axis is free."""
    dims = None if port.dims is None else port.dims[1:]
    if fits(sample, dims):
        return
    fix = f"save samples of shape {','.join(str(d or '?') for d in dims or ())}"
    if dims is not None and len(sample) == len(dims) == 3:
        channels_last, channels_first = (*sample[1:], sample[0]), (sample[2], *sample[:2])
        if fits(channels_first, dims):
            fix = "the channels come last: save x.transpose(0, 3, 1, 2)"
        elif fits(channels_last, dims):
            fix = "the channels come first: save x.transpose(0, 2, 3, 1)"
    raise UsageError(
        f"a sample in '{label}' is {shape_text(sample)}, "
        f"but the input '{port.name}' is {port.describe()}",
        fix,
    )


def to_type(array: Array, port: Port, label: str) -> Array:
    """The array in the type of the input.

    Raises:
        UsageError: its numbers are of another kind, or too large for the type.
    """
    wanted, kind = port.dtype, array.dtype.kind
    if array.dtype == wanted:
        return array
    if wanted == np.dtype(object) and kind in "US":
        return array.astype(object)
    if port.is_floating and kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(wanted)
        if bool((np.isinf(cast) & ~np.isinf(array)).any()):
            raise _too_large(array, port, label)
        return cast
    if port.is_integer and kind in "iu":
        limits = np.iinfo(wanted)
        if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise _too_large(array, port, label)
        return array.astype(wanted)
    fix = f"save it as {'str' if wanted == np.dtype(object) else wanted}"
    if port.is_floating and kind in "iu" and array.ndim:
        fix = NORMALIZE.format(dtype=wanted)
    raise UsageError(
        f"'{port.name}' in '{label}' is {array.dtype}, but the input is {port.describe()}", fix
    )


def _too_large(array: Array, port: Port, label: str) -> UsageError:
    return UsageError(
        f"'{label}' holds numbers from {array.min()} to {array.max()}, "
        f"more than the input '{port.name}' can hold as {port.dtype}"
    )


def check_count(available: int, samples: int | None, minimum: int, origin: str) -> None:
    """Raise UsageError unless there are, and are asked for, as many samples as are needed."""
    if samples is not None and samples < max(1, minimum):
        raise UsageError(
            f"{samples} samples are too few: at least {max(1, minimum)} are needed",
            "ask for more",
        )
    if available < minimum:
        raise UsageError(
            f"'{origin}' holds {available} samples, but at least {minimum} are needed",
            "give more samples",
        )


def check_labels(labels: Array, count: int, origin: str) -> None:
    """Raise UsageError unless there is a label, or a row of them, for each sample."""
    if labels.dtype.kind not in "iuf":
        raise UsageError(
            f"the labels in '{origin}' are {labels.dtype}",
            "give numbers: of classes as integers, of anything else as floats",
        )
    if labels.shape[:1] != (count,):
        raise UsageError(
            f"the labels in '{origin}' are {shape_text(labels.shape)}, but there are {count} "
            "samples",
            "give one label, or one row of labels, for each sample",
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise UsageError(f"the labels in '{origin}' hold NaN or infinity", "leave those out")
