"""One layer with a stored weight, as a matrix: what it multiplies, and what it makes of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.moments import (
    Indices,
    im2col,
    im2col_transposed,
    output_spatial,
    transposed_spatial,
)
from onnxopt.pruning.operator import Operator
from onnxopt.pruning.quantized import Quantized

Weights = Mapping[str, Array]
Values = Mapping[str, Array]

Kept = Mapping[tuple[str, int], Array]
"""For an axis of a value, by name, whether each of the original's indices is still there."""


@dataclass(frozen=True)
class Layer:
    """Something that computes W'x + b for every output position.

    Attributes:
        name: of the node.
        kind: "conv", "transposed" or "linear".
        node: name of the value that the node itself makes, the first if there are several.
        input, output: names of what it reads, and of what it makes with its bias added.
        weight, bias: names of the stored values; bias "" if there is none.
        groups: how many parts of the input have a matrix of their own.
        flipped: a linear weight is stored [outputs, inputs].
        kernel, strides, dilations, pads, extra: of a convolution, as in ONNX.
        gain, bias_gain: what the operator multiplies the weight and the bias with.
        inner: what it makes is no value of the graph, the operator goes on with it; `output` is
            then what the operator makes of it.
        rectified: of an inner layer: the operator goes on with a Relu.
        share: what its error counts, where a node is several layers.
        quantized: the weight and the bias, as far as they are stored as integers.
        others: layers that share its weight.
    """

    name: str
    kind: str
    node: str
    input: str
    output: str
    weight: str
    bias: str
    groups: int = 1
    flipped: bool = False
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    extra: tuple[int, ...] = field(default=())
    gain: float = 1.0
    bias_gain: float = 1.0
    inner: bool = False
    rectified: bool = False
    share: float = 1.0
    quantized: tuple[Quantized, ...] = ()
    others: tuple[Layer, ...] = ()

    @property
    def places(self) -> tuple[Layer, ...]:
        """All layers of its weight, itself first."""
        return (self, *self.others)

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def spatial(self) -> bool:
        return self.kind in ("conv", "transposed")

    @property
    def out_axis(self) -> int:
        return {"conv": 0, "transposed": 1}.get(self.kind, 0 if self.flipped else 1)

    @property
    def weights(self) -> tuple[str, ...]:
        """The stored values whose axes it contracts."""
        return (self.weight,)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The initializers that its matrix comes from."""
        integers = {q.name: q.parameters for q in self.quantized}
        names = (name for name in (self.weight, self.bias) if name)
        return tuple(p for name in names for p in integers.get(name, (name,)))

    @property
    def reads(self) -> tuple[str, ...]:
        """The values of the graph that `gathered` looks at."""
        return (self.input,)

    def completed(self, values: Values, weights: Weights) -> Values:
        """The values with what `gathered` would have to compute of them, for all that share it."""
        return values

    def gathered(self, values: Values, weights: Weights) -> Array:
        """What `rows` takes its rows from."""
        return values[self.input]

    def matrix(self, weights: Weights) -> Array:
        """W [groups, k + 1, m] in float64, the bias in its last row (zero without one)."""
        weight = self._number(self.weight, weights) * self.gain
        if self.kind == "conv":
            per_group = weight.reshape(self.groups, -1, prod(weight.shape[1:]))
            W = per_group.transpose(0, 2, 1)
        elif self.kind == "transposed":
            parts = weight.reshape(self.groups, -1, *weight.shape[1:])
            W = np.moveaxis(parts, 2, -1).reshape(self.groups, -1, weight.shape[1])
        else:
            W = (weight.T if self.flipped else weight)[None]
        return self.with_bias(W, weights)

    def with_bias(self, W: Array, weights: Weights) -> Array:
        bias = np.zeros((len(W), 1, W.shape[2]))
        if self.bias:
            bias += (self._number(self.bias, weights) * self.bias_gain).reshape(bias.shape)
        return np.concatenate([W, bias], axis=1)

    def _number(self, name: str, weights: Weights) -> Array:
        """A stored value, in float64."""
        for quantized in self.quantized:
            if quantized.name == name:
                return quantized.dequantized(weights)
        return weights[name].astype(np.float64)

    def stored(self, W: Array, weights: Weights) -> dict[str, Array]:
        """The initializers that hold a matrix as `matrix` gives it, as nearly as they can."""
        old = self._number(self.weight, weights) if self.quantized else weights[self.weight]
        body = W[:, :-1] / self.gain
        if self.kind == "conv":
            made = body.transpose(0, 2, 1).reshape(old.shape)
        elif self.kind == "transposed":
            channels, outputs, *kernel = old.shape
            parts = body.reshape(self.groups, channels // self.groups, *kernel, outputs)
            made = np.moveaxis(parts, -1, 2).reshape(old.shape)
        else:
            made = body[0].T if self.flipped else body[0]
        return {**self._as_stored(self.weight, made, weights), **self.stored_bias(W, weights)}

    def stored_bias(self, W: Array, weights: Weights) -> dict[str, Array]:
        if not self.bias:
            return {}
        return self._as_stored(self.bias, W[:, -1] / self.bias_gain, weights)

    def _as_stored(self, name: str, made: Array, weights: Weights) -> dict[str, Array]:
        for quantized in self.quantized:
            if quantized.name == name:
                return quantized.stored(made, weights)
        old = weights[name]
        return {name: np.ascontiguousarray(made.reshape(old.shape), old.dtype)}

    def output_shape(self, data: Sequence[int], outputs: int) -> tuple[int, ...]:
        """The shape of the output of a convolution, without the batch, for an input's shape."""
        sizes = (data[2:], self.kernel, self.strides, self.dilations, self.pads)
        if self.kind == "conv":
            return (outputs, *output_spatial(*sizes))
        return (outputs, *transposed_spatial(*sizes, self.extra or None))

    def made_shape(self, data: Sequence[int], example: Sequence[int]) -> tuple[int, ...]:
        """The shape of what it makes for an input's shape, given what that is for another one."""
        if self.spatial:
            return (data[0], *self.output_shape(data, example[1]))
        return (*data[:-1], example[-1])

    def positions(self, output_shape: Sequence[int]) -> int:
        """Output positions of one sample (of one row of the batch)."""
        return prod(output_shape[2:]) if self.spatial else prod(output_shape[1:-1])

    def rows(self, x: Array, positions: Indices) -> Array:
        """What it multiplies at [N, P] positions: [N P, channels taps]."""
        if not self.spatial:
            return picked(x.reshape(len(x), -1, x.shape[-1]), positions)
        if self.kind == "conv":
            return im2col(x, self.kernel, self.strides, self.dilations, self.pads, positions)
        return im2col_transposed(
            x, self.kernel, self.strides, self.dilations, self.pads, positions, self.extra or None
        )

    def outputs(self, y: Array, positions: Indices) -> Array:
        """What it gives at these positions: [N P, outputs]."""
        if not self.spatial:
            return picked(y.reshape(len(y), -1, y.shape[-1]), positions)
        return picked(np.moveaxis(y.reshape(*y.shape[:2], -1), 1, 2), positions)

    def target(self, values: Values, weights: Weights, kept: Kept) -> Array:
        """What an inner layer should make: what it made of the original's values and weights.

        Args:
            values, weights: of the original model.
            kept: which of the original's channels are still there.
        """
        x, mask = self.gathered(values, weights), self._kept_outputs(kept)
        if not self.spatial:
            W = self.matrix(weights)[0].astype(x.dtype)
            made = x @ W[:-1] + W[-1]
            return made if mask is None else np.compress(mask, made, -1)
        attributes = {"kernel_shape": self.kernel, "strides": self.strides, "pads": self.pads}
        conv = Operator("Conv", (("dilations", self.dilations), *attributes.items()), 13)
        bias = weights[self.bias] if self.bias else None
        groups = x.shape[1] // weights[self.weight].shape[1]  # some may have gone since
        made = conv.run([x, weights[self.weight], bias], group=groups)
        return made if mask is None else np.compress(mask, made, 1)

    def _kept_outputs(self, kept: Kept) -> Array | None:
        """For each output of the original's layer whether it is still there; None if all are."""
        return kept.get((self.weight, self.out_axis))

    def spread(self, roots: Array, weight: str, axis: int) -> Array:
        """The root of each channel that it multiplies, -1 for none.

        Args:
            roots: those along an axis of one of its weights.
        """
        return roots

    def unit_rows(self, roots: Array, units: Iterable[int]) -> list[list[Indices]]:
        """For each group of the layer the rows of x that each unit takes.

        Args:
            roots: the root of each input channel [channels].
        """
        width = len(roots) // self.groups
        found = []
        for group in range(self.groups):
            part = roots[group * width : (group + 1) * width]
            found.append([self._rows_of(np.flatnonzero(part == unit)) for unit in units])
        return found

    def _rows_of(self, channels: Indices) -> Indices:
        taps = np.arange(self.taps)
        return (channels[:, None] * self.taps + taps).reshape(-1).astype(np.int64)


def picked(rows: Array, positions: Indices) -> Array:
    """[N, all, k] at [N, P] or, all of them, at [1, P]: [N P, k]."""
    if positions.shape == (1, rows.shape[1]):
        return rows.reshape(-1, rows.shape[-1])
    found = np.take_along_axis(rows, positions[:, :, None], axis=1)
    return found.reshape(-1, rows.shape[-1])
