"""Random models as cuts see them, and all their cuts by trying every set of operators."""

from __future__ import annotations

import random
from collections.abc import Sequence

from onnxopt.splitting.dag import Dag, Operator, Tensor


def random_dag(seed: int, *, most: int = 8, why_not: float = 0.0) -> Dag:
    """A few operators that read some of what there is: several inputs, outputs, readers."""
    draw = random.Random(seed)
    inputs = draw.randint(1, 3)
    producers: list[int | None] = [None] * inputs
    readers: list[list[int]] = [[] for _ in range(inputs)]
    operators = []
    for number in range(draw.randint(1, most)):
        reads = sorted(draw.sample(range(len(producers)), min(len(producers), draw.randint(1, 3))))
        makes = tuple(range(len(producers), len(producers) + draw.choice((1, 1, 2))))
        for tensor in reads:
            readers[tensor].append(number)
        producers += [number] * len(makes)
        readers += [[] for _ in makes]
        weights = tuple(sorted(draw.sample(range(4), draw.randint(0, 2))))
        operators.append(
            Operator(f"op{number}", "Op", (number,), tuple(reads), makes, weights, macs=number)
        )
    tensors = tuple(
        Tensor(
            f"t{number}",
            draw.choice(("float32", "float32", "int64")),
            (1,),
            draw.randint(1, 1000),
            producer,
            tuple(readers[number]),
            is_output=producer is not None and (not readers[number] or draw.random() < 0.2),
            why_not="a sequence" if producer is not None and draw.random() < why_not else "",
        )
        for number, producer in enumerate(producers)
    )
    return Dag(tuple(operators), tensors, tuple(draw.randint(1, 500) for _ in range(4)))


def all_down_sets(dag: Dag) -> list[frozenset[int]]:
    """Every down-set, by trying every set of operators."""
    count = len(dag.operators)
    sets = [frozenset(v for v in range(count) if bits >> v & 1) for bits in range(1 << count)]
    return [chosen for chosen in sets if _is_down(dag, chosen)]


def _is_down(dag: Dag, chosen: frozenset[int]) -> bool:
    needed = (dag.tensors[t].producer for v in chosen for t in dag.operators[v].reads)
    return all(producer is None or producer in chosen for producer in needed)


def peak_of(dag: Dag, chosen: Sequence[int]) -> int:
    """Activations alive at once as these run in order: what lies beyond the cut stays alive."""
    alive = {t for t, tensor in enumerate(dag.tensors) if tensor.producer is None}
    peak = sum(dag.tensors[t].size_bytes for t in alive)
    done: set[int] = set()
    for operator in chosen:
        alive |= set(dag.operators[operator].makes)
        peak = max(peak, sum(dag.tensors[t].size_bytes for t in alive))
        done.add(operator)
        for tensor in (*dag.operators[operator].reads, *dag.operators[operator].makes):
            entry = dag.tensors[tensor]
            if not entry.is_output and all(reader in done for reader in entry.readers):
                alive.discard(tensor)
    return peak


def from_reads(reads: Sequence[Sequence[int]], sizes: random.Random | None = None) -> Dag:
    """Operators that read these tensors and make one each; tensor 0 is the input.

    Args:
        sizes: draws how large the tensors are, and some more outputs; unless given they have 100
            bytes each, and what nothing reads is an output.
    """
    readers: list[list[int]] = [[] for _ in range(len(reads) + 1)]
    for number, read in enumerate(reads):
        for tensor in read:
            readers[tensor].append(number)
    tensors = tuple(
        Tensor(
            f"t{t}",
            "float32",
            (1, 25),
            100 if sizes is None else sizes.randint(10, 3000),
            t - 1 if t else None,
            tuple(readers[t]),
            is_output=not readers[t] or (t > 0 and sizes is not None and sizes.random() < 0.3),
        )
        for t in range(len(readers))
    )
    operators = tuple(
        Operator(f"op{v}", "Op", (v,), tuple(read), (v + 1,), (v,), macs=1)
        for v, read in enumerate(reads)
    )
    return Dag(operators, tensors, (10,) * len(reads))


def parallel_chains(count: int, length: int, sizes: random.Random | None = None) -> Dag:
    """Chains side by side from one operator to one that joins them: (length + 1)^count cuts."""
    reads = [[0]]
    ends = []
    for _ in range(count):
        last = 1
        for _ in range(length):
            reads.append([last])
            last = len(reads)
        ends.append(last)
    reads.append(ends)
    return from_reads(reads, sizes)
