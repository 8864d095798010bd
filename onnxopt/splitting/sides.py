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
            to its last use on this side; what is sent and outputs of the model stay to the end.
    """

    operators: int
    macs: int
    weight_bytes: int
    peak_bytes: int


def side_of(dag: Dag, operators: Collection[int]) -> Side:
    """Measure some operators of a model, at the sizes that the dag is told for."""
    own = sorted(operators)
    weights = {weight for number in own for weight in dag.operators[number].weights}
    return Side(
        len(own),
        sum(dag.operators[number].macs for number in own),
        sum(dag.weight_bytes[weight] for weight in weights),
        _peak_bytes(dag, own),
    )


def _peak_bytes(dag: Dag, own: list[int]) -> int:
    here = set(own)
    last: dict[int, int] = {}
    for number in own:
        operator = dag.operators[number]
        last.update((tensor, number) for tensor in (*operator.makes, *operator.reads))
    dying: dict[int, int] = {}
    live = 0
    for tensor, number in last.items():
        described = dag.tensors[tensor]
        is_made = described.producer in here
        if not is_made:
            live += described.size_bytes
        leaves = is_made and (described.is_output or not here.issuperset(described.readers))
        if not leaves:
            dying[number] = dying.get(number, 0) + described.size_bytes
    peak = live
    for number in own:
        live += sum(dag.tensors[tensor].size_bytes for tensor in dag.operators[number].makes)
        peak = max(peak, live)
        live -= dying.get(number, 0)
    return peak
