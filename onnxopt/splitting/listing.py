"""Every cut of a model, with what crosses and what each side costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxopt.errors import OnnxoptError
from onnxopt.runtime import Session
from onnxopt.splitting.codecs import encoded_bytes
from onnxopt.splitting.dag import Tensor
from onnxopt.splitting.enumeration import Cuts, enumerate_cuts
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.sides import Side


@dataclass(frozen=True)
class ListedCut:
    """One cut.

    Attributes:
        id: its place in the list, from 1 on.
        tensors: what crosses.
        size_bytes: of these, each counted once; fp16_bytes, uint8_bytes: with a codec.
        device, edge: what the operators on either side cost.
        is_useful: no other cut sends as little with as little work on the device.
    """

    id: int
    tensors: tuple[Tensor, ...]
    size_bytes: int
    fp16_bytes: int
    uint8_bytes: int
    device: Side
    edge: Side
    is_useful: bool


@dataclass(frozen=True)
class Listing:
    """All cuts with operators on both sides, in topological order.

    Attributes:
        cuts: one for each set of tensors that crosses.
        inputs: what is sent where everything runs at the edge.
        whole: what the whole model costs.
        refused: tensors that cannot cross, and why, in words.
        stuck: outputs that the edge could not send back, likewise: cuts that leave them to it are
            not listed.
        is_complete: these are all cuts; else operators lie beside each other in so many ways that
            only some of their cuts are listed.
        sizes: the sizes that symbolic dimensions were counted at: `N = 1`.
        random: operators whose results differ from run to run.
        unloadable: why ONNX Runtime does not load the model here; empty if it does.
    """

    cuts: tuple[ListedCut, ...]
    inputs: tuple[Tensor, ...]
    whole: Side
    refused: tuple[str, ...]
    stuck: tuple[str, ...]
    is_complete: bool
    sizes: tuple[str, ...]
    random: tuple[str, ...]
    unloadable: str


def list_cuts(subject: Subject) -> Listing:
    """All cuts of a model."""
    dag = subject.dag
    cuts = enumerate_cuts(dag)
    sides = _Sides(cuts)
    inner = cuts.inner()
    useful = _useful(cuts, inner, [operator.macs for operator in dag.operators])
    listed = []
    for number, cut in enumerate(inner, start=1):
        tensors = tuple(dag.tensors[tensor] for tensor in cuts.crossing[cut])
        listed.append(
            ListedCut(
                number,
                tensors,
                sum(tensor.size_bytes for tensor in tensors),
                sum(encoded_bytes(tensor, "fp16") for tensor in tensors),
                sum(encoded_bytes(tensor, "uint8") for tensor in tensors),
                sides.device(cut),
                sides.edge(cut),
                cut in useful,
            )
        )
    return Listing(
        tuple(listed),
        tuple(dag.tensors[tensor] for tensor in cuts.crossing[0]),
        sides.device(cuts.whole),
        tuple(f"'{t.name}': {t.why_not}" for t in dag.tensors if t.why_not and t.readers),
        tuple(f"'{t.name}': {t.why_not}" for t in dag.stuck),
        cuts.is_complete,
        subject.sizes,
        subject.random,
        why_unloadable(subject.proto),
    )


def why_unloadable(proto: onnx.ModelProto) -> str:
    """Why ONNX Runtime does not load a model here; empty if it does."""
    try:
        Session(proto)
    except OnnxoptError as error:
        return error.what
    return ""


def _useful(cuts: Cuts, inner: list[int], macs: list[int]) -> set[int]:
    """The cuts that send less than all others with as much work on the device, or less."""
    work = cuts.sums([float(m) for m in macs])
    sent = cuts.sent([float(tensor.size_bytes) for tensor in cuts.dag.tensors])
    found: set[int] = set()
    least = float("inf")
    for cut in sorted(inner, key=lambda c: (work[c], sent[c], cuts.device[c].bit_count(), c)):
        if sent[cut] < least:
            least = float(sent[cut])
            found.add(cut)
    return found


class _Sides:
    """What both sides of each cut cost."""

    def __init__(self, cuts: Cuts) -> None:
        self._cuts = cuts
        dag = cuts.dag
        self._macs = cuts.sums([float(operator.macs) for operator in dag.operators])
        self._total = sum(operator.macs for operator in dag.operators)
        self._edge_weights = _edge_weights(cuts)
        tensors = dag.tensors
        self._made = np.array(
            [sum(tensors[t].size_bytes for t in op.makes) for op in dag.operators], np.int64
        )
        self._freed = np.zeros(len(dag.operators), np.int64)
        for tensor in tensors:
            if tensor.readers and not tensor.is_output:
                self._freed[tensor.readers[-1]] += tensor.size_bytes

    def device(self, cut: int) -> Side:
        cuts = self._cuts
        count = cuts.device[cut].bit_count()
        return Side(count, int(self._macs[cut]), cuts.weight_bytes[cut], cuts.peak_bytes[cut])

    def edge(self, cut: int) -> Side:
        device = self._cuts.device[cut]
        count = len(self._cuts.dag.operators) - device.bit_count()
        macs = self._total - int(self._macs[cut])
        return Side(count, macs, self._edge_weights[cut], self._edge_peak(cut))

    def _edge_peak(self, cut: int) -> int:
        """Activations alive at once; see `sides.Side`."""
        dag, device = self._cuts.dag, self._cuts.device[cut]
        there = _mask(device, len(dag.operators))
        made = np.where(there, 0, self._made)
        freed = np.where(there, 0, self._freed)
        crossing = [dag.tensors[tensor] for tensor in self._cuts.crossing[cut]]
        for tensor in crossing:
            last = max(reader for reader in tensor.readers if not device >> reader & 1)
            if tensor.is_output or last != tensor.readers[-1]:
                freed[last] += tensor.size_bytes
        live = sum(tensor.size_bytes for tensor in crossing)
        grown = np.cumsum(made)
        grown[1:] -= np.cumsum(freed)[:-1]
        return live + int(max(0, grown.max(initial=0)))


def _mask(device: int, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which operators a device has, as flags."""
    raw = np.frombuffer(device.to_bytes((count + 7) // 8, "little"), np.uint8)
    return np.unpackbits(raw, bitorder="little")[:count].astype(bool)


def _edge_weights(cuts: Cuts) -> list[int]:
    """For each cut the bytes of weights that the edge reads."""
    dag = cuts.dag
    readers = [0] * len(dag.weight_bytes)
    for number, operator in enumerate(dag.operators):
        for weight in operator.weights:
            readers[weight] |= 1 << number
    found = [sum(size for size, who in zip(dag.weight_bytes, readers, strict=True) if who)]
    for cut in range(1, len(cuts)):
        device = cuts.device[cut]
        gone = [w for w in dag.operators[cuts.added[cut]].weights if not readers[w] & ~device]
        found.append(found[cuts.parent[cut]] - sum(dag.weight_bytes[w] for w in gone))
    return found
