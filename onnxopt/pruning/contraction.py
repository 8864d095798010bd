"""Products of a value with a stored weight over any axes, as matrices: Einsum and its like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.layer import Layer, Weights, picked
from onnxopt.pruning.moments import Indices


@dataclass(frozen=True)
class Contraction(Layer):
    """A product in Einstein's notation; a letter stands for an axis.

    Letters of the value and the result alone number rows, those of the value and the weight alone
    are summed over, those of the weight and the result alone number outputs. A letter that all
    three have is a batch of products: each index is a group with a matrix of its own.

    Attributes:
        value, stored_as, result: the letters of each.
        dims: the shape of the weight.
    """

    value: str = ""
    stored_as: str = ""
    result: str = ""
    dims: tuple[int, ...] = ()

    @staticmethod
    def fits(value: str, weight: str, result: str) -> bool:
        """It is a product of matrices, with samples along the first axis of the result."""
        if any(len(set(term)) != len(term) for term in (value, weight, result)):
            return False
        rows = [c for c in result if c not in weight]
        summed = [c for c in weight if c not in result]
        return (
            bool(rows and summed)
            and result[0] == rows[0]
            and all(c in value for c in (*rows, *summed))
            and all(c in weight or c in result for c in value)
        )

    @property
    def _rows(self) -> str:
        return "".join(c for c in self.result if c not in self.stored_as)

    @property
    def _batch(self) -> str:
        return "".join(c for c in self.stored_as if c in self.value and c in self.result)

    @property
    def _summed(self) -> str:
        return "".join(c for c in self.stored_as if c not in self.result)

    @property
    def _made(self) -> str:
        return "".join(c for c in self.stored_as if c not in self.value)

    @property
    def bias_letters(self) -> str:
        """The last axes of the result, if a tensor added there has a number for each output."""
        wanted = self._batch + self._made
        return wanted if wanted and self.result.endswith(wanted) else ""

    def matrix(self, weights: Weights) -> Array:
        weight = weights[self.weight].astype(np.float64)
        W = weight.transpose(_order(self.stored_as, self._batch + self._summed + self._made))
        count = len(self._batch), len(self._batch + self._summed)
        sizes = [prod(W.shape[a:b]) for a, b in ((0, count[0]), count, (count[1], None))]
        return self.with_bias(W.reshape(sizes), weights)

    def stored(self, W: Array, weights: Weights) -> dict[str, Array]:
        letters = self._batch + self._summed + self._made
        old = weights[self.weight]
        shape = [old.shape[self.stored_as.index(c)] for c in letters]
        made = W[:, :-1].reshape(shape).transpose(_order(letters, self.stored_as))
        return {self.weight: np.ascontiguousarray(made, old.dtype), **self.stored_bias(W, weights)}

    def positions(self, output_shape: Sequence[int]) -> int:
        return prod(output_shape[self.result.index(c)] for c in self._rows[1:])

    def made_shape(self, data: Sequence[int], example: Sequence[int]) -> tuple[int, ...]:
        sizes = dict(zip(self.value, data, strict=True))
        return tuple(
            sizes[c] if c in self._rows else n for c, n in zip(self.result, example, strict=True)
        )

    def rows(self, x: Array, positions: Indices) -> Array:
        return picked(_flat(x, self.value, self._rows, self._batch + self._summed), positions)

    def outputs(self, y: Array, positions: Indices) -> Array:
        return picked(_flat(y, self.result, self._rows, self._batch + self._made), positions)

    def spread(self, roots: Array, weight: str, axis: int) -> Array:
        """Along one of the axes that are summed over: the others go with it."""
        sizes = [self.dims[self.stored_as.index(c)] for c in self._summed]
        place = self._summed.index(self.stored_as[axis])
        shape = [1] * len(sizes)
        shape[place] = -1
        return np.tile(np.broadcast_to(roots.reshape(shape), sizes).reshape(-1), self.groups)


def _order(letters: str, wanted: str) -> list[int]:
    return [letters.index(c) for c in wanted]


def _flat(array: Array, letters: str, rows: str, columns: str) -> Array:
    """[first axis, other rows, columns]."""
    turned = array.transpose(_order(letters, rows + columns))
    return np.asarray(turned.reshape(len(turned), prod(turned.shape[1 : len(rows)]), -1))
