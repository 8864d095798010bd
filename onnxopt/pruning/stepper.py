"""A model that is run on many samples part by part: what lies between two parts is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from copy import copy
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.graph import RANDOM_OPERATORS, Array
from onnxopt.runtime import DEFAULT_THREADS, Session
from onnxopt.submodel import reads, submodel

Batch = Mapping[str, Array]

LARGEST_FRONTIER_BYTES = 256 * 2**20
FEWEST_BATCHES = 10


class Stepper:
    """The values between the nodes that have run and those that have not.

    For all batches where that takes no more than LARGEST_FRONTIER_BYTES, else for the first of
    them: where values are large, a few samples have many positions. Where they are smaller again
    more batches are run from the start.

    Args:
        proto: the model. Weights of nodes that have not run yet may be changed meanwhile.
        batches: its inputs.
        threads: of ONNX Runtime; the last bits depend on it.

    Attributes:
        size: samples in the first batch.
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
        self.batches = batches
        self.size = _samples(batches[0]) if len(batches) else 0
        self.frontier: list[dict[str, Array]] = []
        if len(batches):
            room = min(_room(batches[0]), len(batches))
            self.frontier = [dict(batches[number]) for number in range(room)]
        self._outputs = {info.name for info in proto.graph.output}
        constant = {t.name for t in proto.graph.initializer}
        constant |= {t.values.name for t in proto.graph.sparse_initializer}
        self._of_weights = _of_weights(proto.graph, constant)
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
        run = self._runner(needed, self.frontier)
        for number, values in enumerate(self.frontier):
            new = run(values)
            for name in [n for n in values if self._last.get(n, -1) < place]:
                if name not in held:
                    del values[name]
            values.update(new)
            if number + 1 >= _room(self.frontier[0]):
                del self.frontier[number + 1 :]
        self.place = place
        self._extend()

    def _extend(self) -> None:
        """Run more batches from the start, if there is room for twice as many, or for all."""
        if not self.frontier or len(self.frontier) == len(self.batches):
            return
        room = min(_room(self.frontier[0]), len(self.batches))
        if room < min(2 * len(self.frontier), len(self.batches)):
            return
        first = self.batches[0]
        made = [name for name in self.frontier[0] if name not in first]
        run = self._runner(made, [first])
        for number in range(len(self.frontier), room):
            batch = self.batches[number]
            given = {name: batch[name] for name in self.frontier[0] if name in first}
            self.frontier.append({**given, **run(batch)})

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
        feeds = self.frontier[:batches]
        run = self._runner(names, feeds, changed)
        return [run(feed) for feed in feeds]

    def _runner(
        self,
        names: Sequence[str],
        feeds: Sequence[Batch],
        changed: Mapping[str, Array] = MappingProxyType({}),
    ) -> Callable[[Batch], dict[str, Array]]:
        """What makes the values of these names from such feeds."""
        if not names or not feeds:
            return lambda feed: {}
        known = [name for name in feeds[0] if name not in self._of_weights]
        given = {name: type_of([feed[name] for feed in feeds]) for name in known}
        part = submodel(self.proto, [n for n in names if n not in given], given)
        if not part.graph.output:
            return lambda feed: {n: feed[n] for n in names}
        set_weights(part, changed)
        session = Session(part, optimized=True, threads=self.threads)
        wanted = {info.name for info in part.graph.input}

        def run(feed: Batch) -> dict[str, Array]:
            made = session.run({n: v for n, v in feed.items() if n in wanted})
            return {n: made[n] if n in made else feed[n] for n in names}

        return run


def _of_weights(graph: onnx.GraphProto, stored: Set[str]) -> set[str]:
    """What nodes make of stored weights alone, as dequantization does.

    It is made anew in each part, since weights may have been changed after it was made.
    """
    found: set[str] = set()
    for node in graph.node:
        if node.op_type not in RANDOM_OPERATORS and reads(node) <= stored | found | {""}:
            found.update(name for name in node.output if name)
    return found


def _samples(batch: Batch) -> int:
    first = next(iter(batch.values()))
    return len(first) if np.ndim(first) else 1


def _room(values: Batch) -> int:
    """How many batches like this one are held at most."""
    size = sum(array.nbytes for array in values.values() if isinstance(array, np.ndarray))
    return max(LARGEST_FRONTIER_BYTES // max(size, 1), FEWEST_BATCHES)


def type_of(values: Sequence[Any]) -> onnx.TypeProto:
    """The type of what several runs gave, with the dimensions in which they agree."""
    if isinstance(values[0], list):
        inner = [item for items in values for item in items] or [np.float32(0)]
        return onnx.helper.make_sequence_type_proto(type_of(inner))
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
