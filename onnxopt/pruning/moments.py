"""Second moments of what a layer multiplies and of what it should give: all that refits need.

For a layer that computes W'x, x is the row of inputs of one output position: channels x taps,
channel by channel (index = channel * taps + tap), then 1 for the bias. t is its target, one number
for each output. H = E[x x'], C = E[x t'] and T = diag E[t t'] say everything about the squared
error of every W, so activations are never stored (He et al., ICCV 2017; Frantar and Alistarh,
"Optimal Brain Compression", NeurIPS 2022, section 3). Values have the model's own units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]

CHUNK_ROWS = 4096
"""Rows multiplied in float32 at once; what comes out is summed in float64."""

_FIELDS = ("xx", "x", "xt", "t", "tt")
_TARGETS = ("xt", "t", "tt")


@dataclass(frozen=True, eq=False)
class Products:
    """What some rows add to sums of moments: for each chunk of them, by name. count: rows."""

    count: int
    sums: Sequence[Mapping[str, Array]]


class NotFiniteError(ArithmeticError):
    """Values are infinite, not numbers, or too large to be squared: they teach nothing."""


@dataclass(eq=False)
class Moments:
    """Running sums over rows x [rows, groups * k] and targets t [rows, groups * m].

    groups > 1 is for grouped convolutions: each group has its own k inputs and m outputs, and the
    sums are kept for each alone. Depthwise: groups = channels, k = taps. With one group H, C and T
    have no axis for it.
    """

    k: int
    m: int
    groups: int = 1
    count: int = 0
    """Rows seen."""
    sums: dict[str, Floats] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        g, k, m = self.groups, self.k, self.m
        shapes = ((g, k, k), (g, k), (g, k, m), (g, m), (g, m))
        for name, shape in zip(_FIELDS, shapes, strict=True):
            self.sums.setdefault(name, np.zeros(shape))
            assert self.sums[name].shape == shape, (name, self.sums[name].shape, shape)

    def add(self, x: Array, t: Array) -> None:
        """Take in rows x [rows, groups * k], without the 1 of the bias, and t [rows, groups * m].

        Raises NotFiniteError for values that are not finite or too large to be squared.
        """
        self.take(self.products(x, t))

    def without_targets(self) -> Moments:
        """The moments of the same rows; their targets are still to come."""
        kept = {name: self.sums[name] for name in _FIELDS if name not in _TARGETS}
        return Moments(self.k, self.m, self.groups, self.count, kept)

    def take(self, found: Products) -> None:
        """Take in what `products` has made, here or elsewhere."""
        self.count += found.count
        for sums in found.sums:
            for name, value in sums.items():
                self.sums[name] += value

    def products(self, x: Array, t: Array, *, aim: bool = False) -> Products:
        """What rows x [rows, groups * k] and targets t [rows, groups * m] add to the sums.

        Args:
            aim: the rows have been taken in already; only their targets are new.

        Raises NotFiniteError as `add` does.
        """
        assert x.shape == (len(t), self.groups * self.k), (x.shape, self.groups, self.k)
        assert t.shape == (len(x), self.groups * self.m), (t.shape, self.groups, self.m)
        fields, found = _TARGETS if aim else _FIELDS, []
        for start in range(0, len(x), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            with np.errstate(all="ignore"):
                sums = self._products(x[part], t[part], fields, np.float32)
                if not _are_finite(sums):
                    sums = self._products(x[part], t[part], fields, np.float64)
            if not _are_finite(sums):
                raise NotFiniteError(
                    "activations are infinite, not numbers, or too large to be squared"
                )
            found.append(sums)
        return Products(0 if aim else len(x), found)

    def _products(
        self, x: Array, t: Array, fields: Sequence[str], dtype: npt.DTypeLike
    ) -> dict[str, Array]:
        """The sums of one chunk of rows."""
        x = x.reshape(len(x), self.groups, self.k).transpose(1, 0, 2).astype(dtype, order="C")
        t = t.reshape(len(t), self.groups, self.m).transpose(1, 0, 2).astype(dtype, order="C")
        turned = x.transpose(0, 2, 1)
        made: dict[str, Callable[[], Array]] = {
            "xx": lambda: (x[0].T @ x[0])[None] if self.groups == 1 else turned @ x,
            "x": lambda: np.asarray(np.sum(x, axis=1, dtype=np.float64)),
            "xt": lambda: turned @ t,
            "t": lambda: np.asarray(np.sum(t, axis=1, dtype=np.float64)),
            "tt": lambda: np.einsum("grm,grm->gm", t, t, dtype=np.float64),
        }
        return {name: made[name]() for name in fields}

    def merge(self, other: Moments) -> Moments:
        """The moments of the rows of both."""
        assert (self.k, self.m, self.groups) == (other.k, other.m, other.groups)
        sums = {name: self.sums[name] + other.sums[name] for name in _FIELDS}
        return Moments(self.k, self.m, self.groups, self.count + other.count, sums)

    def group(self, index: int) -> Moments:
        """The moments of one group, as a layer of its own."""
        sums = {name: self.sums[name][index : index + 1] for name in _FIELDS}
        return Moments(self.k, self.m, 1, self.count, sums)

    @property
    def H(self) -> Floats:
        """E[x x'], [k + 1, k + 1], or [groups, k + 1, k + 1] if there are several; last: bias."""
        full = np.ones((self.groups, self.k + 1, self.k + 1))
        full[:, :-1, :-1] = self.sums["xx"] / self._rows
        full[:, :-1, -1] = full[:, -1, :-1] = self.sums["x"] / self._rows
        return self._shown(full)

    @property
    def C(self) -> Floats:
        """E[x t'], [k + 1, m], or [groups, k + 1, m] if there are several; the last row E[t]."""
        return self._shown(
            np.concatenate([self.sums["xt"], self.sums["t"][:, None]], axis=1) / self._rows
        )

    @property
    def T(self) -> Floats:
        """diag E[t t'], [m], or [groups, m] if there are several."""
        return self._shown(self.sums["tt"] / self._rows)

    @property
    def _rows(self) -> int:
        return max(self.count, 1)

    def _shown(self, value: Floats) -> Floats:
        return value[0] if self.groups == 1 else value


def _are_finite(sums: Mapping[str, Array]) -> bool:
    return all(np.isfinite(s).all() for s in sums.values())


def output_spatial(
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> tuple[int, ...]:
    """The spatial shape that a convolution gives; pads as in ONNX: all begins, then all ends."""
    axes = zip(spatial, kernel, strides, dilations, _pairs(pads), strict=True)
    return tuple((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, d, p in axes)


def transposed_spatial(
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    output_padding: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The spatial shape that a transposed convolution gives."""
    extra = output_padding or [0] * len(spatial)
    axes = zip(spatial, kernel, strides, dilations, _pairs(pads), extra, strict=True)
    return tuple((n - 1) * s + d * (k - 1) + 1 + e - sum(p) for n, k, s, d, p, e in axes)


def im2col(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    positions: Indices | None = None,
) -> Array:
    """The rows that a convolution multiplies, [N * positions, C * taps], for chosen positions.

    x is [N, C, *spatial]; positions [N, P] are row-major indices into the output's spatial shape,
    all of them if None. Taps count row-major over the kernel; in padding they are zero.
    """
    shape = output_spatial(x.shape[2:], kernel, strides, dilations, pads)

    def source(o: Indices, tap: Indices, axis: int) -> tuple[Indices, npt.NDArray[np.bool_]]:
        at = o * strides[axis] + tap * dilations[axis] - pads[axis]
        return at, (at >= 0) & (at < x.shape[2 + axis])

    return _gathered(x, shape, kernel, positions, source)


def im2col_transposed(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    positions: Indices | None = None,
    output_padding: Sequence[int] | None = None,
) -> Array:
    """The rows of a transposed convolution, [N * positions, C * taps], as in im2col.

    Tap k of output position o reads the input at (o + pad - k * dilation) / stride where that is
    whole and inside, and zero elsewhere. The weights [C, m, *kernel] belong to the rows as
    moveaxis(weights, 1, -1).reshape(C * taps, m).
    """
    shape = transposed_spatial(x.shape[2:], kernel, strides, dilations, pads, output_padding)

    def source(o: Indices, tap: Indices, axis: int) -> tuple[Indices, npt.NDArray[np.bool_]]:
        at, rest = np.divmod(o + pads[axis] - tap * dilations[axis], strides[axis])
        return at, (rest == 0) & (at >= 0) & (at < x.shape[2 + axis])

    return _gathered(x, shape, kernel, positions, source)


def _gathered(
    x: Array, shape: tuple[int, ...], kernel: Sequence[int], positions: Indices | None, source: Any
) -> Array:
    """The rows of the wanted positions, given where each tap of a position reads on each axis."""
    samples, channels, *spatial = x.shape
    size = math.prod(spatial)
    taps = np.array(list(itertools.product(*map(range, kernel))), np.int64).T
    wanted = np.arange(math.prod(shape))[None] if positions is None else positions
    at = np.zeros((*wanted.shape, taps.shape[1]), np.int64)
    inside = np.ones(at.shape, np.bool_)
    for axis, o in enumerate(np.unravel_index(wanted, shape)):
        index, valid = source(o[..., None], taps[axis], axis)
        at = at * spatial[axis] + np.where(valid, index, 0)
        inside &= valid
    at[~inside] = size  # a column of zeros stands there
    flat = np.zeros((samples, channels, size + 1), x.dtype)
    flat[:, :, :size] = x.reshape(samples, channels, size)
    rows = np.empty((samples, *at.shape[1:2], channels, taps.shape[1]), x.dtype)
    for sample in range(samples):  # with one row of positions they are the same for all
        rows[sample] = flat[sample].take(at[min(sample, len(at) - 1)], 1).transpose(1, 0, 2)
    return rows.reshape(-1, channels * taps.shape[1])


def _pairs(pads: Sequence[int]) -> list[tuple[int, int]]:
    half = len(pads) // 2
    return list(zip(pads[:half], pads[half:], strict=True))
