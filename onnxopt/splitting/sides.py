"""What some operators of a model cost together: arithmetic, weights, memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onnxopt.splitting.dag import Dag


@dataclass(frozen=True)
class Side:
    """One side of a cut, or one segment.

    Attributes:
        operators: how many.
        macs: multiply-accumulates of one run.
        weight_bytes: of the weights that it holds, shared ones once.
        peak_bytes: activations alive at once as its operators run in order, from the making of each
            to its last use on this side; what is sent, or needed by later segments, and outputs of
            the model that it makes stay to the end.
    """

    operators: int
    macs: int
    weight_bytes: int
    peak_bytes: int


def side_of(dag: Dag, operators: Collection[int], before: Collection[int] = ()) -> Side:
    """Measure some operators of a model, at the sizes that the dag is told for.

    The same as `enumeration.Cuts` has for the device of each cut, and `listing` for both sides.

    Args:
        before: operators that ran elsewhere, or in segments before these; none for a device, which
            holds all inputs of the model, and keeps those that it sends.
    """
    own = sorted(operators)
    weights = {weight for number in own for weight in dag.operators[number].weights}
    return Side(
        len(own),
        sum(dag.operators[number].macs for number in own),
        sum(dag.weight_bytes[weight] for weight in weights),
        _peak_bytes(dag, own, before),
    )


def _peak_bytes(dag: Dag, own: list[int], before: Collection[int]) -> int:
    here = set(own)
    done = here.union(before)
    dying: dict[int, int] = {}
    live = 0
    for described in dag.tensors:
        producer = described.producer
        if producer is not None and producer not in done:
            continue  # made later
        is_made = producer in here
        is_held = is_made or (producer is None and not before)
        later = any(reader not in done for reader in described.readers)
        last = max((reader for reader in described.readers if reader in here), default=None)
        if not is_made and (is_held or later or last is not None):
            live += described.size_bytes
        if last is not None and not later and not (is_held and described.is_output):
            dying[last] = dying.get(last, 0) + described.size_bytes
    peak = live
    for number in own:
        live += sum(dag.tensors[tensor].size_bytes for tensor in dag.operators[number].makes)
        peak = max(peak, live)
        live -= dying.get(number, 0)
    return peak
