"""How long kernels take by a profile: as measured, or between and beyond what was measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from enum import Enum
from math import prod
from typing import TypeAlias

from onnxopt.profiling.document import Fit, Profile
from onnxopt.profiling.events import Kernel
from onnxopt.profiling.fitting import fit, fitted
from onnxopt.profiling.tensors import bytes_of, dims_of

Key: TypeAlias = "tuple[str, tuple[str, ...], tuple[str, ...]]"
Family: TypeAlias = "tuple[object, ...]"

NEAREST = 3
"""Measured widths that correct a fit, each the less the further away it is."""

MOST_RATIO = 1.5
"""By so much times in the model may differ from times alone; beyond that it is noise."""

STARTUP_US = 1.0
"""What is taken to be left of a kernel at no size, where one size only was measured."""


class Source(str, Enum):
    """Where a kernel's time comes from, the best one first."""

    in_model = "measured in the model"
    alone = "measured alone"
    between = "fitted between widths"
    operator = "by size, from the same operator"
    unknown = "by size, from all operators"


class KernelTimes:
    """The times of a profile, asked for kernel by kernel.

    What was measured alone is multiplied by what layers took in the model by what they took
    alone, all together: there weights and values are not in the nearest cache. One factor for all,
    for that of a single layer is mostly noise.
    """

    def __init__(self, profile: Profile, *, in_model: bool = True) -> None:
        self._block = profile.machine.channel_block
        inside: dict[Key, list[float]] = defaultdict(list)
        for entry in profile.kernels:
            inside[entry.op, entry.inputs, entry.outputs].append(entry.us)
        means = {key: sum(us) / len(us) for key, us in inside.items()}
        alone: dict[Key, float] = {}
        self._layers: set[Key] = set()
        for layer in profile.layers:
            for width in layer.widths:
                key = (width.kernel_op, width.kernel_inputs, width.kernel_outputs)
                alone.setdefault(key, width.us)
                self._layers.add(key)
        self._ratio = _ratio(inside, alone) if in_model else 1.0
        self._moved = sum(_bytes((k.op, k.inputs, k.outputs)) for k in profile.kernels)
        self._alone, self._families = alone, _families(alone, self._block)
        self._samples = {(s.op, s.inputs, s.outputs): s.us for s in profile.samples}
        self._inside = {k: us for k, us in means.items() if in_model or k not in self._layers}
        self._operators = _operators({**self._samples, **alone, **means})
        self._fits: dict[Family, Fit | None] = {}

    def time_us(self, kernel: Kernel) -> tuple[float, Source]:
        """Microseconds of one run of it, and where they come from."""
        key = (kernel.op, kernel.inputs, kernel.outputs)
        if key in self._inside:
            return self._inside[key], Source.in_model
        if key in self._alone:
            return self._alone[key] * self._ratio, Source.alone
        if key in self._samples:
            return self._samples[key], Source.alone
        family = _family(key, self._block)
        for near in (family, family[:-1]):
            if (found := self._between(near, key)) is not None:
                return found * self._ratio, Source.between
        for op, source in ((kernel.op, Source.operator), ("", Source.unknown)):
            members = self._operators.get(op, {})
            if members:
                return self._by_size(op, members, key), source
        return STARTUP_US, Source.unknown

    def smaller(self, kernels: Sequence[Kernel]) -> float:
        """By what the times of a smaller model are to be multiplied.

        What makes kernels slower in the model than alone is what lies in no near cache. It is
        taken to shrink as the bytes do that all kernels read and write.
        """
        if not self._moved:
            return 1.0
        moved = sum(_bytes((k.op, k.inputs, k.outputs)) for k in kernels)
        left = min(1.0, moved / self._moved)
        return (1 + max(0.0, self._ratio - 1) * left) / max(1.0, self._ratio)

    def _between(self, family: Family, key: Key) -> float | None:
        """The fit of kernels that differ in channels only, corrected by the nearest of them."""
        members = self._families.get(family, {})
        found = self._fit(family, members)
        if found is None:
            return None
        return _corrected(found, members, key, {k: _distance(key, k) for k in members})

    def _by_size(self, op: str, members: dict[Key, float], key: Key) -> float:
        """The fit of one operator, corrected by kernels of similar size.

        Where they are too few for a fit: from the nearest one, in proportion but for its start-up.
        """
        size = _size(key)
        distances = {k: abs(math.log(_size(k) / size)) for k in members}
        found = self._fit((op,), members)
        if found is not None:
            return _corrected(found, members, key, distances)
        nearest = min(members, key=lambda k: (distances[k], k))
        startup = min(STARTUP_US, members[nearest])
        return startup + (members[nearest] - startup) * size / _size(nearest)

    def _fit(self, name: Family, members: dict[Key, float]) -> Fit | None:
        if name not in self._fits:
            keys = list(members)
            self._fits[name] = (
                fit([_macs(k) for k in keys], [_bytes(k) for k in keys], list(members.values()))
                if keys
                else None
            )
        return self._fits[name]


def _corrected(
    found: Fit, members: dict[Key, float], key: Key, distances: dict[Key, float]
) -> float:
    """What the fit says, times what it misses at the nearest, the less the further away it is."""
    correction = 0.0
    ranked = sorted(members, key=lambda k: (distances[k], k))[:NEAREST]
    weights = [1 / (distances[k] ** 2 + 1e-6) for k in ranked]
    for weight, near in zip(weights, ranked, strict=True):
        miss = math.log(members[near] / _fitted(found, near))
        correction += weight * miss / (sum(weights) * (1 + distances[near]))
    return _fitted(found, key) * math.exp(correction)


def _ratio(inside: dict[Key, list[float]], alone: dict[Key, float]) -> float:
    both = [key for key in alone if key in inside]
    apart = sum(len(inside[key]) * alone[key] for key in both)
    if not apart:
        return 1.0
    return min(max(sum(sum(inside[key]) for key in both) / apart, 1 / MOST_RATIO), MOST_RATIO)


def _families(times: dict[Key, float], block: int) -> dict[Family, dict[Key, float]]:
    """By what they have in common but channels; once more without regard to what is added."""
    found: dict[Family, dict[Key, float]] = defaultdict(dict)
    for key, us in times.items():
        family = _family(key, block)
        found[family][key] = us
        found[family[:-1]][key] = us
    return found


def _family(key: Key, block: int) -> Family:
    """What kernels have in common that differ in channels only.

    Blocked convolutions with less than a block of input channels work in another way.
    """
    op, inputs, outputs = key
    if not inputs or not outputs:
        return (op, len(inputs))
    data, made = dims_of(inputs[0]), dims_of(outputs[0])
    if "Conv" in op:
        weight = _weight(key)
        depthwise = weight[1:2] == (1,) and data[1:2] != (1,)
        kind = (depthwise, op.endswith(".nchwc") and data[1:2] < (block,))
        return (op, weight[2:], data[:1], data[2:], made[2:], *kind, len(inputs))
    return (op, data[:-1], made[:-1], len(inputs))


def _weight(key: Key) -> tuple[int, ...]:
    """Of a convolution; empty where ONNX Runtime packed it, and shows no shape of it."""
    weight = dims_of(key[1][1]) if len(key[1]) > 1 else ()
    return weight if len(weight) == len(dims_of(key[1][0])) else ()


def _operators(times: dict[Key, float]) -> dict[str, dict[Key, float]]:
    found: dict[str, dict[Key, float]] = defaultdict(dict)
    for key, us in times.items():
        if us > 0:
            found[key[0]][key] = us
            found[""][key] = us
    return dict(found)


def _fitted(found: Fit, key: Key) -> float:
    return max(1e-3, fitted(found, _macs(key), _bytes(key)))


def _macs(key: Key) -> int:
    """Multiply-accumulates of a convolution or product; 0 for what multiplies nothing.

    Where the weight of a transposed convolution was packed, its kernel counts as one element:
    such numbers are only compared with each other.
    """
    op, inputs, outputs = key
    if not inputs or not outputs:
        return 0
    data, made = dims_of(inputs[0]), dims_of(outputs[0])
    if "ConvTranspose" in op:
        return prod(data) * (prod(_weight(key)[1:]) if _weight(key) else prod(made[1:2]))
    if "Conv" in op:
        return prod(made) * prod(_weight(key)[1:])
    if "Gemm" in op or "MatMul" in op:
        return prod(made) * (data[-1] if data else 1)
    return 0


def _bytes(key: Key) -> int:
    return sum(map(bytes_of, (*key[1], *key[2])))


def _size(key: Key) -> float:
    """What the time of kernels of one operator is taken to be in proportion to."""
    return float(_macs(key) or max(1, _bytes(key)))


def _distance(left: Key, right: Key) -> float:
    """How far apart two kernels of one family are, in channels or features."""
    return math.dist(_channels(left), _channels(right))


def _channels(key: Key) -> list[float]:
    op, inputs, outputs = key
    if not inputs or not outputs:
        return [0.0, 0.0]
    data, made = dims_of(inputs[0]), dims_of(outputs[0])
    axis = 1 if "Conv" in op else -1
    found = [dims[axis] if len(dims) > 1 else 1 for dims in (data, made)]
    return [math.log(max(1, size)) for size in found]
