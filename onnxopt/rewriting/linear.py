"""Fold a gain and an offset for each output channel into Conv, ConvTranspose, Gemm or MatMul."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxopt.graph import Array, Node
from onnxopt.rewriting.rule import Op, Operand, Skip, attr, op
from onnxopt.rewriting.words import copy_needed, is_float, narrowed, rank_of

GEMM_TYPES = frozenset((np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)))
"""What Gemm computes everywhere; MatMul knows more types."""


@dataclass(frozen=True)
class Affine:
    """y = gain * c + offset, each float64: one number, or one for each channel."""

    gain: Array
    offset: Array


def batchnorm(y: Node, scale: Array, shift: Array, mean: Array, var: Array) -> Affine | Skip:
    """What a BatchNormalization does at inference: scale * (c - mean) / sqrt(var + eps) + shift."""
    if y.opset < 7 or attr(y, "training_mode") or any(not v.omitted for v in y.outputs[1:]):
        return Skip("BatchNormalization may be in training mode")
    if attr(y, "spatial") == 0:
        return Skip("BatchNormalization has statistics for each element")
    with np.errstate(all="ignore"):
        gain = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + attr(y, "epsilon"))
        offset = shift.astype(np.float64) - gain * mean.astype(np.float64)
    if not np.isfinite(gain).all() or not np.isfinite(offset).all():
        return Skip("BatchNormalization divides by zero or by the root of a negative variance")
    return Affine(gain, offset)


def arithmetic(y: Node, k: Array, *, constant_first: bool) -> Affine | Skip:
    """What Mul, Div, Add or Sub with the constant `k` does, in the shape of `k`."""
    exact = k.astype(np.float64)
    one, zero = np.ones_like(exact), np.zeros_like(exact)
    if y.op == "Mul":
        return Affine(exact, zero)
    if y.op == "Add":
        return Affine(one, exact)
    if y.op == "Sub":
        return Affine(-one, exact) if constant_first else Affine(one, -exact)
    if constant_first or (exact == 0).any():
        return Skip("the result of a division is not linear, or infinite")
    return Affine(1 / exact, zero)


def output_rank(c: Node) -> int | None:
    """Rank of what a linear operator makes; None if unknown."""
    if c.op == "Gemm":
        return 2
    rank = rank_of(c.inputs[1])
    if c.op == "MatMul":
        return rank_of(c.inputs[0]) if rank == 2 else None
    return rank


def by_channel(k: Array, rank: int | None, axis: int) -> Array | None:
    """`k` as one number for each channel, or one for all; None if it varies along other axes.

    Args:
        rank: of what it is broadcast with; None if unknown.
        axis: of the channels, counted from the end (negative).
    """
    if k.ndim == 0:
        return k
    if rank is None:
        return k if axis == -1 and k.ndim == 1 else None
    if k.ndim > rank:
        return None
    if k.size == 1:
        return k.reshape(())
    if any(d != 1 for i, d in enumerate(k.shape) if i - k.ndim != axis):
        return None
    return k.reshape(-1)


def channel_axis(c: Node) -> int | None:
    """Axis of the channels of what a linear operator makes, counted from the end."""
    if c.op in ("Gemm", "MatMul"):
        return -1
    rank = output_rank(c)
    return None if rank is None or rank < 3 else 1 - rank


def absorb(c: Node, affine: Affine) -> Op | Skip:
    """`c`, a linear operator with constant weights, followed by `affine` on its channels."""
    weight = c.inputs[1].array
    assert weight is not None
    if not is_float(weight.dtype):
        return Skip("the weights are not floating-point numbers")
    count = _channels(c, weight)
    if count is None or affine.gain.size not in (1, count) or affine.offset.size not in (1, count):
        return Skip("the channels do not fit the weights")
    gain = np.broadcast_to(affine.gain.reshape(-1), (count,))
    offset = np.broadcast_to(affine.offset.reshape(-1), (count,))
    scaled = _scaled(c, weight, gain)
    if isinstance(scaled, Skip):
        return scaled
    if c.op == "MatMul" and not offset.any():
        return op("MatMul", c.inputs[0], scaled)
    bias = _bias(c, gain, offset, weight.dtype)
    if isinstance(bias, Skip):
        return bias
    attrs = dict(c.attrs)
    if c.op in ("Gemm", "MatMul"):
        if weight.dtype not in GEMM_TYPES or output_rank(c) != 2:
            return Skip("MatMul with a bias is a Gemm only for two-dimensional float tensors")
        attrs.pop("beta", None)
        return op("Gemm", c.inputs[0], scaled, bias, **attrs)
    return op(c.op, c.inputs[0], scaled, bias, **attrs)


def _channels(c: Node, weight: Array) -> int | None:
    if c.op == "Conv":
        return int(weight.shape[0]) if weight.ndim > 2 else None
    if c.op == "ConvTranspose":
        return int(weight.shape[1] * attr(c, "group")) if weight.ndim > 2 else None
    if weight.ndim != 2:
        return None
    return int(weight.shape[0 if c.op == "Gemm" and attr(c, "transB") else 1])


def _scaled(c: Node, weight: Array, gain: Array) -> Operand | Skip:
    """The weights times `gain` along the output channels; the very same value for a gain of 1."""
    if (gain == 1).all():
        return c.inputs[1]
    if (reason := copy_needed(c, 1)) is not None:
        return reason
    exact = weight.astype(np.float64)
    axis = 0
    if c.op == "Conv":
        exact = exact * gain.reshape((-1,) + (1,) * (weight.ndim - 1))
    elif c.op == "ConvTranspose":
        return _scaled_transposed(c, exact, gain, weight.dtype)
    elif c.op == "Gemm" and attr(c, "transB"):
        exact = exact * gain[:, None]
    else:
        exact, axis = exact * gain, 1
    return _stored(exact, weight.dtype, axis)


def _scaled_transposed(c: Node, exact: Array, gain: Array, dtype: np.dtype[Any]) -> Operand | Skip:
    """ConvTranspose: [I, O / group, *kernel]; the inputs of one group see its outputs only."""
    group = attr(c, "group")
    if group < 1 or exact.shape[0] % group:
        return Skip("the groups do not divide the input channels")
    parts = exact.reshape((group, exact.shape[0] // group, *exact.shape[1:]))
    gains = gain.reshape((group, 1, exact.shape[1]) + (1,) * (exact.ndim - 2))
    return _stored((parts * gains).reshape(exact.shape), dtype, 1)


def _bias(c: Node, gain: Array, offset: Array, dtype: np.dtype[Any]) -> Operand | Skip:
    """The old bias times `gain` plus `offset`; none if there was none and it would be zero."""
    old = c.input(2)
    exact: Array = np.zeros(gain.shape)
    if old is not None:
        array = old.array
        if array is None:
            return Skip(f"the bias '{old.name}' is not a constant")
        channels = by_channel(array, output_rank(c) if c.op == "Gemm" else 1, -1)
        if channels is None or channels.size not in (1, gain.size):
            return Skip(f"the bias '{old.name}' is not one number for each channel")
        beta = attr(c, "beta") if c.op == "Gemm" else 1
        if beta:
            exact = exact + channels.astype(np.float64) * beta
        if (gain == 1).all() and not offset.any() and beta == 1:
            return old
        if (reason := copy_needed(c, 2)) is not None:
            return reason
    exact = exact * gain + offset
    if old is None and not exact.any() and c.opset >= 11:
        return None
    return _stored(exact, dtype, None)


def _stored(exact: Array, dtype: np.dtype[Any], axis: int | None) -> Operand | Skip:
    made = narrowed(exact, dtype, axis)
    return Skip(f"the new weights are too large or too small for {dtype}") if made is None else made


def rescaled(n: Node, affine: Affine) -> Op | Skip:
    """`n`, a BatchNormalization with constant parameters, followed by `affine` on its channels."""
    scale, shift = n.inputs[1].array, n.inputs[2].array
    assert scale is not None and shift is not None
    statistics = [v.array for v in n.inputs[3:5]]
    own = batchnorm(n, scale, shift, *(a for a in statistics if a is not None))
    if isinstance(own, Skip):
        return own
    if affine.gain.size not in (1, scale.size) or affine.offset.size not in (1, scale.size):
        return Skip("the channels do not fit the parameters")
    for index in (1, 2):
        if (reason := copy_needed(n, index)) is not None:
            return reason
    gain, offset = affine.gain.reshape(-1), affine.offset.reshape(-1)
    new_scale = _stored(scale.astype(np.float64) * gain, scale.dtype, 0)
    new_shift = _stored(shift.astype(np.float64) * gain + offset, shift.dtype, 0)
    if isinstance(new_scale, Skip) or isinstance(new_shift, Skip):
        return new_scale if isinstance(new_scale, Skip) else Skip("the new parameters overflow")
    return op("BatchNormalization", n.inputs[0], new_scale, new_shift, *n.inputs[3:5], **n.attrs)
