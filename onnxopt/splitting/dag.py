"""A model as cuts see it: operators, the tensors between them, and how large these are."""

from __future__ import annotations

from dataclasses import dataclass

from onnxopt.signature import Dim


@dataclass(frozen=True)
class Tensor:
    """A value that may lie between device and edge.

    Attributes:
        producer: number of the operator that makes it; None for an input of the model.
        readers: numbers of the operators that read it, ascending, each once; an operator with
            bodies reads what these capture.
        size_bytes: at the sizes that the cost of the model is told for.
        is_output: the model gives it to its user. It need not cross for that: what the device
            makes, the device has.
        why_not: why it cannot cross (a sequence, a string, ...); empty if it can.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...] | None
    size_bytes: int
    producer: int | None
    readers: tuple[int, ...]
    is_output: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Operator:
    """One node of the main graph, or several that stay together.

    Attributes:
        name: of the node, or its first output, for people.
        nodes: places in `graph.node` of the model, ascending.
        reads, makes: numbers of tensors, ascending. Constants are no tensors.
        weights: initializers that it reads, bodies included: indices into `Dag.weight_bytes`, so
            that what both sides read is counted on both and what one side shares once.
        macs: multiply-accumulate operations, of one run of each body.
    """

    name: str
    op: str
    nodes: tuple[int, ...]
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    weights: tuple[int, ...] = ()
    macs: int = 0


@dataclass(frozen=True)
class Dag:
    """Operators in topological order, and the tensors between them.

    A cut is a down-set of operators: with each operator all those whose results it reads. These run
    on the device, the others at the edge.
    """

    operators: tuple[Operator, ...]
    tensors: tuple[Tensor, ...]
    weight_bytes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for number, operator in enumerate(self.operators):
            for tensor in operator.reads:
                producer = self.tensors[tensor].producer
                assert producer is None or producer < number, operator.name

    @property
    def stuck(self) -> tuple[Tensor, ...]:
        """Outputs that the edge could not send back, as they are no tensors of numbers."""
        return tuple(
            t for t in self.tensors if t.is_output and t.producer is not None and t.why_not
        )

    def unsent(self, device: frozenset[int] | set[int]) -> tuple[Tensor, ...]:
        """Outputs that a cut leaves to the edge, which cannot send them back."""
        return tuple(tensor for tensor in self.stuck if tensor.producer not in device)

    def crossing(self, device: frozenset[int] | set[int]) -> tuple[int, ...]:
        """Tensors that a cut sends, ascending: made on the device or fed to it, read at the edge.

        Args:
            device: numbers of the operators on the device, a down-set.
        """
        return tuple(
            number
            for number, tensor in enumerate(self.tensors)
            if (tensor.producer is None or tensor.producer in device)
            and any(reader not in device for reader in tensor.readers)
        )
