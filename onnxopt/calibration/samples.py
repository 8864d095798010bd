"""Chosen samples for the inputs of a model: which they are, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxopt.arrays import LABELS, by_input, sample_count
from onnxopt.calibration.fitting import (
    check_count,
    check_inputs,
    check_labels,
    check_shape,
    given_once,
)
from onnxopt.calibration.sources import Source, Stacked, chunks
from onnxopt.calibration.survey import survey
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Port


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples of a model's inputs, in a fixed order. They are read when they are needed.

    Make it with `load_calibration` or `Calibration.from_arrays`.

    Attributes:
        name: of the file or folder they are from.
        sources: where the samples of each input lie, by name of input.
        indices: which of the samples there, in order.
        once: what inputs without axes get with every batch, by name.
        seed: of the choice of samples, and of `split`.
        labels: what is right for each chosen sample, where that is known.
        notes: what is suspicious about the samples, for a person.
    """

    name: str
    sources: Mapping[str, Source]
    indices: npt.NDArray[np.intp]
    seed: int = 0
    labels: Array | None = None
    notes: tuple[str, ...] = ()
    once: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Array],
        inputs: Sequence[Port],
        *,
        samples: int | None = None,
        seed: int = 0,
        minimum: int = 1,
        name: str = "arrays",
    ) -> Calibration:
        """Samples from arrays as `load_calibration` finds them in FILE.npz: one for each input,
        samples along the first axis, already preprocessed; and maybe "labels". They are not copied.
        A scalar input gets its number with every batch.

        Raises:
            UsageError: as for `load_calibration`.
        """
        check_inputs(inputs)
        named = by_input(arrays, inputs, name)
        once = {p.name: given_once(named[p.name], p, name) for p in inputs if p.dims == ()}
        sampled = [port for port in inputs if port.name not in once]
        count = sample_count({port.name: named[port.name] for port in sampled}, name)
        for port in sampled:
            check_shape(named[port.name].shape[1:], port, name)
        is_label = LABELS in arrays and LABELS not in (port.name for port in inputs)
        labels = arrays[LABELS] if is_label else None
        if labels is not None:
            check_labels(labels, count, name)
        sources = {port.name: Stacked(named[port.name], port, name) for port in sampled}
        chosen = cls.choose(
            name, sources, samples=samples, seed=seed, minimum=minimum, labels=labels
        )
        return replace(chosen, once=once)

    @classmethod
    def choose(
        cls,
        name: str,
        sources: Mapping[str, Source],
        *,
        samples: int | None = None,
        seed: int = 0,
        minimum: int = 1,
        labels: Array | None = None,
        notes: tuple[str, ...] = (),
    ) -> Calibration:
        """Draw samples without replacement, or take all, and go through them once to check them.

        Raises:
            UsageError: too few, or worthless.
        """
        if seed < 0:
            raise UsageError(f"the seed {seed} is negative", "give 0 or more")
        available = min(map(len, sources.values()))
        check_count(available, samples, minimum, name)
        indices = np.arange(available)
        if samples is not None and samples < available:
            drawn = np.random.default_rng(seed).choice(available, samples, replace=False)
            indices = np.sort(drawn)
        elif samples is not None and samples > available:
            notes += (f"{samples} samples were asked for, but '{name}' holds {available}",)
        chosen = None if labels is None else labels[indices]
        notes += survey(sources, indices, name)
        return cls(name, sources, indices, seed, chosen, notes)

    @property
    def count(self) -> int:
        return len(self.indices)

    @property
    def origin(self) -> str:
        """Where the samples are from and which they are, for a person."""
        available = min(map(len, self.sources.values()))
        if self.count == available:
            return f"{self.name}: all {available} samples"
        return f"{self.name}: {self.count} of {available} samples, seed {self.seed}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the model gets from these samples, in hex: names, types, shapes, bytes.
        Labels, the names of files and the size of batches do not count."""
        total = hashlib.sha256()
        for name, source in self.sources.items():
            total.update(f"{name!r} {self.count}".encode())
            for _, batch in chunks(source, self.indices):
                for index in range(len(batch)):
                    total.update(f"{batch.dtype} {batch.shape[1:]}".encode())
                    total.update(_bytes(batch[index : index + 1]))
        for name, array in self.once.items():
            total.update(f"{name!r} {array.dtype}".encode() + _bytes(array))
        return total.hexdigest()

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """All samples in order: feeds by name of input, `size` samples along the first axis, fewer
        in the last one; then what is given once. A model with a fixed batch size takes batches of
        that size only."""
        assert size >= 1, size
        for start in range(0, self.count, size):
            part = self.indices[start : start + size]
            yield {name: s.read(part) for name, s in self.sources.items()} | dict(self.once)

    def take(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Calibration:
        """The samples at these places among the chosen ones, in this order."""
        places = np.asarray(indices, dtype=np.intp)
        labels = None if self.labels is None else self.labels[places]
        return replace(self, indices=self.indices[places], labels=labels)

    def split(self, held_out: float) -> tuple[Calibration, Calibration]:
        """Two parts without a common sample, drawn with the seed: most, and the fraction held out.

        Raises:
            UsageError: it is no fraction between 0 and 1, or there are fewer than two samples.
        """
        if not 0 < held_out < 1:
            raise UsageError(f"{held_out:g} of the samples cannot be held out", "give 0.1 or so")
        if self.count < 2:
            raise UsageError(f"'{self.name}' holds too few samples to hold any out")
        order = np.random.default_rng([self.seed, self.count]).permutation(self.count)
        held = min(max(1, round(held_out * self.count)), self.count - 1)
        return self.take(np.sort(order[held:])), self.take(np.sort(order[:held]))


def _bytes(array: Array) -> bytes:
    return repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
