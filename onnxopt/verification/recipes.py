"""What the parameters of each operator may be: shapes, axes, counts, scales, lengths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Values: TypeAlias = Sequence[float]


@dataclass(frozen=True)
class Surroundings:
    """What a node that reads a parameter has around it.

    Attributes:
        data: shape of its first input; None if unknown.
        out: shapes of its outputs; None where unknown.
        count: number of elements that the parameter must have; None if free.
        axis: value of its attribute `axis` (or of the one that stands for it), default 0.
    """

    data: tuple[int, ...] | None
    out: tuple[tuple[int, ...] | None, ...]
    count: int | None
    axis: int

    @property
    def rank(self) -> int:
        return len(self.data) if self.data is not None else 2


def _first_out(around: Surroundings) -> tuple[int, ...] | None:
    return around.out[0] if around.out else None


def _target_shape(around: Surroundings) -> Iterator[Values]:
    """For Reshape and Expand: the declared result, the data's own shape, something degenerate."""
    n = around.count
    for shape in (_first_out(around), around.data):
        if shape is not None and n in (None, len(shape)):
            yield shape
    if around.data is not None and n is not None and n > 0:
        yield [1] * (n - 1) + [math.prod(around.data)]
        if n >= len(around.data):
            yield [1] * (n - len(around.data)) + list(around.data)
        else:
            head = list(around.data[: n - 1])
            yield [*head, math.prod(around.data[n - 1 :])]
    yield [-1, *[1] * ((n or 1) - 1)]
    yield [1] * (n or around.rank)


def _free_shape(around: Surroundings) -> Iterator[Values]:
    shape = _first_out(around)
    if shape is not None and around.count in (None, len(shape)):
        yield shape
    n = 2 if around.count is None else around.count
    yield [(2, 3, 4, 5)[i % 4] for i in range(n)]
    yield [1] * n


def _repeats(around: Surroundings) -> Iterator[Values]:
    out, n = _first_out(around), around.count or around.rank
    if out is not None and around.data is not None and len(out) == len(around.data) == n:
        yield [max(o // max(d, 1), 1) for o, d in zip(out, around.data, strict=True)]
    yield from ([1] * n, [2] * n)


def _zeros(around: Surroundings) -> Iterator[Values]:
    yield from ([0] * (around.count or 1), [1] * (around.count or 1))


def _ones(around: Surroundings) -> Iterator[Values]:
    yield from ([1] * (around.count or 1), [-1] * (around.count or 1), [2] * (around.count or 1))


def _ends(around: Surroundings) -> Iterator[Values]:
    n = around.count or 1
    out = _first_out(around)
    if out is not None and len(out) >= n:
        yield out[:n]
    if around.data is not None and len(around.data) >= n:
        yield around.data[:n]
        yield [max(d - 1, 1) for d in around.data[:n]]
    yield from ([2] * n, [-1] * n, [1000] * n)


def _axes(around: Surroundings) -> Iterator[Values]:
    n = around.count or 1
    yield range(n)
    yield [around.rank - n + i for i in range(n)]
    yield from itertools.combinations(range(around.rank), n)


def _squeezed(around: Surroundings) -> Iterator[Values]:
    """Axes of length 1; as many as the ranks differ, or as the input has elements."""
    data, out = around.data, _first_out(around)
    if data is not None:
        ones = [i for i, size in enumerate(data) if size == 1]
        lost = around.count if out is None else len(data) - len(out)
        for n in dict.fromkeys((lost, around.count, len(ones))):
            if n is not None and 0 < n <= len(ones):
                yield from itertools.combinations(ones, n)
    yield from _axes(around)


def _unsqueezed(around: Surroundings) -> Iterator[Values]:
    data, out = around.data, _first_out(around)
    if data is not None and out is not None and len(out) > len(data):
        ones = [i for i, size in enumerate(out) if size == 1]
        n = len(out) - len(data)
        for axes in itertools.combinations(ones, n):
            if [d for i, d in enumerate(out) if i not in axes] == list(data):
                yield axes
    yield from _axes(around)


def _reduced(around: Surroundings) -> Iterator[Values]:
    data, out = around.data, _first_out(around)
    if data is not None and out is not None:
        if len(out) == len(data):
            yield [i for i, (d, o) in enumerate(zip(data, out, strict=True)) if d != o] or [0]
        for axes in itertools.combinations(range(len(data)), len(data) - len(out)):
            if [d for i, d in enumerate(data) if i not in axes] == list(out):
                yield axes
    yield from _axes(around)


def _padding(around: Surroundings) -> Iterator[Values]:
    n, data, out = around.count or 2 * around.rank, around.data, _first_out(around)
    if data is not None and out is not None and len(data) == len(out) and n == 2 * len(data):
        more = [max(o - d, 0) for o, d in zip(out, data, strict=True)]
        yield [m // 2 for m in more] + [m - m // 2 for m in more]
    yield from ([0] * (n - n // 2) + [1] * (n // 2), [0] * n, [1] * n)


def _scales(around: Surroundings) -> Iterator[Values]:
    n, data, out = around.count or around.rank, around.data, _first_out(around)
    if data is not None and out is not None and len(data) == len(out) == n:
        yield [o / max(d, 1) for o, d in zip(out, data, strict=True)]
    yield from ([1.0] * max(n - 2, 0) + [2.0] * min(n, 2), [1.0] * n, [0.5] * n)


def _sizes(around: Surroundings) -> Iterator[Values]:
    n = around.count or around.rank
    for shape in (_first_out(around), around.data):
        if shape is not None and len(shape) >= n:
            yield shape[len(shape) - n :]
    yield [4] * n


def _along_axis(around: Surroundings) -> Iterator[Values]:
    """A count along the axis of the node: TopK's k, OneHot's depth."""
    out = _first_out(around)
    if out and -len(out) <= around.axis < len(out):
        yield [out[around.axis]]
    yield from ([2], [1], [5])


def _parts(around: Surroundings) -> Iterator[Values]:
    data, axis = around.data, around.axis
    outs = [out for out in around.out if out is not None]
    if outs and len(outs) == len(around.out) and all(-len(o) <= axis < len(o) for o in outs):
        yield [out[axis] for out in outs]
    n = around.count or len(around.out)
    if data and -len(data) <= axis < len(data):
        whole = data[axis]
        yield [whole // n] * (n - 1) + [whole - whole // n * (n - 1)]
        yield [1] * (n - 1) + [whole - n + 1]
    yield [1] * n


def _lengths(around: Surroundings) -> Iterator[Values]:
    """Lengths of the sequences of a batch: all whole, then one whole and the others shorter."""
    data = around.data or (1, 1)
    longest = data[around.axis] if -len(data) <= around.axis < len(data) else data[0]
    n = around.count or (data[1] if len(data) > 1 else 1)
    yield [longest] * n
    yield [max(longest - i, 1) for i in range(n)]
    yield [1] * n


def _numbers(*numbers: float) -> Callable[[Surroundings], Iterator[Values]]:
    def propose(around: Surroundings) -> Iterator[Values]:
        yield from ([n] * (around.count if around.count is not None else 1) for n in numbers)

    return propose


def _blocks(around: Surroundings) -> Iterator[Values]:
    """Col2Im: blocks with as many elements as the input has channels for each of the output."""
    data, out, n = around.data, _first_out(around), around.count or 2
    if data is not None and out is not None and len(data) > 1 and len(out) > 1:
        wanted = data[1] // max(out[1], 1)
        for block in itertools.product(range(1, 6), repeat=min(n, 3)):
            if math.prod(block) == wanted:
                yield block
    yield from ([1] * n, [2] * n)


def _image_size(around: Surroundings) -> Iterator[Values]:
    batch = around.data[0] if around.data else 1
    n = around.count or 4
    out = _first_out(around)
    if out is not None and len(out) == n:
        yield [batch, 3, *out[1 : n - 1]]
    yield [batch, 3, *(4, 5, 6)[: max(n - 2, 0)]]
    yield [4] * n


Recipe: TypeAlias = Callable[[Surroundings], Iterator[Values]]

RECIPES: dict[tuple[str, int], Recipe] = {
    ("Reshape", 1): _target_shape,
    ("Expand", 1): _target_shape,
    ("Tile", 1): _repeats,
    ("ConstantOfShape", 0): _free_shape,
    ("Slice", 1): _zeros,
    ("Slice", 2): _ends,
    ("Slice", 3): _axes,
    ("Slice", 4): _ones,
    ("Pad", 1): _padding,
    ("Pad", 3): _axes,
    ("Squeeze", 1): _squeezed,
    ("Unsqueeze", 1): _unsqueezed,
    ("Resize", 2): _scales,
    ("Resize", 3): _sizes,
    ("Upsample", 1): _scales,
    ("Range", 0): _numbers(0, 1),
    ("Range", 1): _numbers(5, 8),
    ("Range", 2): _numbers(1, 2),
    ("TopK", 1): _along_axis,
    ("OneHot", 1): _along_axis,
    ("Split", 1): _parts,
    ("SplitToSequence", 1): _parts,
    ("Loop", 0): _numbers(3, 1, 5, 2, 0),
    ("CumSum", 1): _numbers(0, 1, -1),
    ("LSTM", 4): _lengths,
    ("GRU", 4): _lengths,
    ("RNN", 4): _lengths,
    ("ReverseSequence", 1): _lengths,
    ("NonMaxSuppression", 2): _numbers(3, 10, 1),
    ("NonMaxSuppression", 3): _numbers(0.5, 0.2),
    ("NonMaxSuppression", 4): _numbers(0.0, 0.3),
    ("AffineGrid", 1): _image_size,
    ("CenterCropPad", 1): _sizes,
    ("Col2Im", 1): _sizes,
    ("Col2Im", 2): _blocks,
    ("MaxUnpool", 2): _target_shape,
    ("MelWeightMatrix", 0): _numbers(8),
    ("MelWeightMatrix", 1): _numbers(16),
    ("MelWeightMatrix", 2): _numbers(8192),
    ("MelWeightMatrix", 3): _numbers(0),
    ("MelWeightMatrix", 4): _numbers(4000),
    ("DFT", 1): _numbers(8, 4, 5),
    ("DFT", 2): _numbers(1, -2, 0),
    ("STFT", 1): _numbers(8, 4, 1),
    ("STFT", 3): _numbers(16, 8, 4),
    ("BlackmanWindow", 0): _numbers(10, 8),
    ("HannWindow", 0): _numbers(10, 8),
    ("HammingWindow", 0): _numbers(10, 8),
    ("Dropout", 1): _numbers(0.25, 0.0),
    ("Dropout", 2): _numbers(0, 1),
    ("Trilu", 1): _numbers(0, 1, -1),
    ("SequenceAt", 1): _numbers(0, 1, -1),
    ("SequenceErase", 1): _numbers(0, 1, -1),
    ("SequenceInsert", 2): _numbers(0, 1, -1),
    **{
        (op, 1): _reduced
        for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1")
    },
    **{
        (op, 1): _reduced
        for op in ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
    },
}
"""By operator and number of its input; see `Surroundings` for what they look at."""
