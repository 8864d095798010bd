"""Which nodes of the file a kernel does the work of, as far as the names that fusions give tell.

ONNX Runtime gives a fused kernel the name of one of its nodes with something around it, or that of
the value it makes: `fused conv1`, `relu_out_nchwc`, `mul_3/QuickGeluFusion/`. From that node on
backwards, as far as the operator that the kernel is called after, nodes that no other kernel is
named after belong to it too; and behind a layer the additions and activations that no kernel is
named after. What a kernel does that has no node (reordering blocks of channels) stays unmapped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxopt.profiling.events import Kernel


@dataclass(frozen=True)
class NodeName:
    """A node of the model as names: its own, its operator's, and those of its values."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


_LAYERS = ("Conv", "Gemm", "MatMul")
_FUSED_BEHIND = frozenset(
    ("Add", "Sum", "BatchNormalization", "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid")
    + ("Tanh", "Mul")
)

_AROUND = (
    re.compile(r"^fused "),
    re.compile(r"(?:_token_\d+)+$"),
    re.compile(r"_nchwc$"),
    re.compile(r"/\w*Fusion\w*/?.*$"),
    re.compile(r"_(?:transformed|quant|new|nhwc)$"),
)


def nodes_of(kernels: Sequence[Kernel], nodes: Sequence[NodeName]) -> list[tuple[str, ...]]:
    """For each kernel the names of its nodes, in the order of the model; empty if unknown."""
    by_name = {node.name: node for node in nodes if node.name}
    by_output = {output: node for node in nodes for output in node.outputs if output}
    ends = [_named(kernel.name, by_name, by_output) for kernel in kernels]
    taken = {node.name for node in ends if node is not None}
    found: list[set[str]] = []
    for kernel, end in zip(kernels, ends, strict=True):
        members = set() if end is None else {end.name}
        wanted = kernel.op.removesuffix(".nchwc").removeprefix("Fused")
        if end is not None and end.op != wanted:
            members |= _before(end, wanted, by_output, taken)
        taken |= members
        found.append(members)
    _add_what_follows(found, kernels, nodes)
    order = {node.name: number for number, node in enumerate(nodes)}
    return [tuple(sorted(members, key=order.__getitem__)) for members in found]


def _add_what_follows(
    found: list[set[str]], kernels: Sequence[Kernel], nodes: Sequence[NodeName]
) -> None:
    """Give a layer's kernel the activations behind it that are nobody's, and what is added."""
    owner = {name: number for number, members in enumerate(found) for name in members}
    makers = {output: node.name for node in nodes for output in node.outputs if output}
    for node in nodes:
        if node.name not in owner and node.op in _FUSED_BEHIND:
            before = [owner[makers[v]] for v in node.inputs if makers.get(v) in owner]
            if before and any(op in kernels[max(before)].op for op in _LAYERS):
                owner[node.name] = max(before)
                found[max(before)].add(node.name)


def _named(
    name: str, by_name: Mapping[str, NodeName], by_output: Mapping[str, NodeName]
) -> NodeName | None:
    """The node whose name, or whose value's name, is left when what fusions add is taken off."""
    candidates = [name]
    for pattern in _AROUND:
        stripped = pattern.sub("", candidates[-1])
        if stripped != candidates[-1]:
            candidates.append(stripped)
    for candidate in candidates:
        node = by_name.get(candidate) or by_output.get(candidate)
        if node is not None:
            return node
    return None


def _before(
    end: NodeName, wanted: str, by_output: Mapping[str, NodeName], taken: set[str]
) -> set[str]:
    """The nodes that it reads from, and so on, up to the operator that is wanted."""
    found: set[str] = set()
    waiting = [end]
    while waiting:
        for value in waiting.pop().inputs:
            node = by_output.get(value)
            if node is not None and node.name not in taken and node.name not in found:
                found.add(node.name)
                if node.op != wanted:
                    waiting.append(node)
    return found
