"""Which nodes of the file a kernel does the work of, as far as the names that fusions give tell.

ONNX Runtime gives a fused kernel the name of one of its nodes with something around it, or that of
the value it makes: `fused conv1`, `relu_out_nchwc`, `mul_3/QuickGeluFusion/`. From that node on
backwards, nodes that no other kernel is named after belong to the kernel too: what was folded or
fused into it. What a kernel does that has no node (reordering blocks of channels) stays unmapped.
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
    order = {node.name: number for number, node in enumerate(nodes)}
    found = []
    for kernel, end in zip(kernels, ends, strict=True):
        members: set[str] = set()
        if end is not None:
            members = {end.name}
            wanted = kernel.op.removesuffix(".nchwc").removeprefix("Fused")
            if end.op != wanted:
                members |= _before(end, by_output, taken)
            taken |= members
        found.append(tuple(sorted(members, key=order.__getitem__)))
    return found


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


def _before(end: NodeName, by_output: Mapping[str, NodeName], taken: set[str]) -> set[str]:
    """The nodes that it reads from, and so on, up to those that other kernels are named after."""
    found: set[str] = set()
    waiting = [end]
    while waiting:
        for value in waiting.pop().inputs:
            node = by_output.get(value)
            if node is not None and node.name not in taken and node.name not in found:
                found.add(node.name)
                waiting.append(node)
    return found
