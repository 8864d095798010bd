"""What each residual block takes in a model, and how much of its layers' time is start-up."""

from __future__ import annotations

from collections.abc import Sequence

from onnxopt.profiling.document import BlockTimes, KernelTime, LayerTimes
from onnxopt.profiling.kit import KitBlock


def block_times(
    blocks: Sequence[KitBlock], kernels: Sequence[KernelTime], layers: Sequence[LayerTimes]
) -> tuple[BlockTimes, ...]:
    """The blocks with their times, from those of the kernels and the layers of their nodes."""
    layer_of = {node: layer for layer in layers for node in layer.nodes}
    return tuple(_block(block, kernels, layer_of) for block in blocks)


def _block(
    block: KitBlock, kernels: Sequence[KernelTime], layer_of: dict[str, LayerTimes]
) -> BlockTimes:
    """One block.

    A kernel belongs to where its first node is: the sum may be fused behind a layer outside of
    the block, as that of a shortcut, and what follows the sum behind one inside.
    """
    nodes = set(block.nodes)
    inside = [kernel.us for kernel in kernels if kernel.nodes and kernel.nodes[0] in nodes]
    own = [layer_of[node] for node in block.nodes if node in layer_of]
    alone = startup = 0.0
    fitted = 0
    for layer in own:
        if layer.startup_share is not None:
            fitted += 1
            alone += layer.widths[0].us
            startup += layer.startup_share * layer.widths[0].us
    return BlockTimes(
        name=block.name,
        kind=block.kind,
        nodes=block.nodes,
        in_model_us=sum(inside) if inside else None,
        layers=len(own),
        fitted=fitted,
        alone_us=alone if fitted else None,
        startup_us=startup if fitted else None,
        startup_share=startup / alone if fitted else None,
    )
