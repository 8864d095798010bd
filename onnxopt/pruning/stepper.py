"""A model that is run on many samples part by part: what lies between two parts is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.graph import Array
from onnxopt.runtime import DEFAULT_THREADS, Session
from onnxopt.submodel import reads, submodel

Batch = Mapping[str, Array]


class Stepper:
    """The values between the nodes that have run and those that have not, for all batches.

    Args:
        proto: the model. Weights of nodes that have not run yet may be changed meanwhile.
        batches: its inputs.
        threads: of ONNX Runtime; the last bits depend on it.

    Attributes:
        place: of the node that runs next.
        frontier: for each batch the values that are still needed.
        keep: names of values that stay in the frontier though nothing reads them any more.
    """

    def __init__(
        self, proto: onnx.ModelProto, batches: Sequence[Batch], threads: int = DEFAULT_THREADS
    ) -> None:
        self.proto = proto
        self.threads = threads
        self.place = 0
        self.keep: frozenset[str] = frozenset()
        self.frontier: list[dict[str, Array]] = [dict(batch) for batch in batches]
        self._outputs = {info.name for info in proto.graph.output}
        constant = {t.name for t in proto.graph.initializer}
        constant |= {t.values.name for t in proto.graph.sparse_initializer}
        self._reads = [reads(node) - constant for node in proto.graph.node]
        self._last = {name: place for place, names in enumerate(self._reads) for name in names}
        self.made = {n: place for place, node in enumerate(proto.graph.node) for n in node.output}

    def advance(self, place: int) -> None:
        """Run the nodes up to, and without, the one at `place`."""
        if place <= self.place:
            return
        ran = {n for node in self.proto.graph.node[self.place : place] for n in node.output if n}
        held = self._outputs | self.keep
        needed = [n for n in sorted(ran) if self._last.get(n, -1) >= place or n in held]
        made = self._run(needed, self.frontier)
        for values, new in zip(self.frontier, made, strict=True):
            for name in [n for n in values if self._last.get(n, -1) < place]:
                if name not in held:
                    del values[name]
            values.update(new)
        self.place = place

    def halted(self) -> Stepper:
        """One that stays here while this one goes on."""
        other = copy(self)
        other.frontier = [dict(values) for values in self.frontier]
        return other

    def finish(
        self, batches: int | None = None, changed: Mapping[str, Array] = MappingProxyType({})
    ) -> list[dict[str, Array]]:
        """The outputs of the model, from here on; the frontier stays.

        Args:
            changed: other data for some initializers, this time.
        """
        names = [info.name for info in self.proto.graph.output]
        return self._run(names, self.frontier[:batches], changed)

    def _run(
        self,
        names: Sequence[str],
        feeds: Iterable[Batch],
        changed: Mapping[str, Array] = MappingProxyType({}),
    ) -> list[dict[str, Array]]:
        feeds = list(feeds)
        if not names:
            return [{} for _ in feeds]
        given = {name: _type_of([feed[name] for feed in feeds]) for name in feeds[0]}
        part = submodel(self.proto, [n for n in names if n not in feeds[0]], given)
        if not part.graph.output:
            return [{n: feed[n] for n in names} for feed in feeds]
        set_weights(part, changed)
        session = Session(part, optimized=True, threads=self.threads)
        wanted = {info.name for info in part.graph.input}
        found = []
        for feed in feeds:
            made = session.run({n: v for n, v in feed.items() if n in wanted})
            found.append({n: made[n] if n in made else feed[n] for n in names})
        return found


def _type_of(values: Sequence[Any]) -> onnx.TypeProto:
    """The type of what several runs gave, with the dimensions in which they agree."""
    if isinstance(values[0], list):
        inner = [item for items in values for item in items] or [np.float32(0)]
        return onnx.helper.make_sequence_type_proto(_type_of(inner))
    arrays = [np.asarray(value) for value in values]
    dims = None
    if len({array.ndim for array in arrays}) == 1:
        sizes = (set(size) for size in zip(*(array.shape for array in arrays), strict=True))
        dims = [size.pop() if len(size) == 1 else None for size in sizes]
    kind = int(onnx.helper.np_dtype_to_tensor_dtype(arrays[0].dtype))
    return onnx.helper.make_tensor_type_proto(kind, dims)


def set_weights(proto: onnx.ModelProto, arrays: Mapping[str, Array]) -> None:
    """Put other data under the names of initializers."""
    for tensor in proto.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(onnx.numpy_helper.from_array(arrays[tensor.name], tensor.name))


def weights_of(proto: onnx.ModelProto, names: Iterable[str]) -> dict[str, Array]:
    wanted = set(names)
    return {
        t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in wanted
    }
