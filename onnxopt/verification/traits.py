"""What the graph of a model says about how its outputs can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxopt.signature import FLOAT_TYPES
from onnxopt.verification.comparison import distance, is_floating, leaves, structural_difference
from onnxopt.verification.element_types import element_types, ulp
from onnxopt.verification.reach import random_values, reached
from onnxopt.verification.skeleton import skeleton


@dataclass(frozen=True)
class Traits:
    """How the outputs of a model can be compared.

    Attributes:
        outputs: their names, in order.
        random: names of outputs that random operators reach.
        constant: names of outputs that the inputs do not reach, not even by their shapes.
        ulps: unit in the last place of the coarsest floating type in the model, by output.
        is_half: the model computes in float16 or bfloat16. ONNX Runtime lacks kernels for them and
            computes neighbouring operators in float32 without rounding between: which ones are
            neighbours depends on operators that do nothing (seen: Exp after LayerNormalization,
            with an Identity between or not), so bit for bit means nothing there.
    """

    outputs: tuple[str, ...]
    random: frozenset[str]
    constant: frozenset[str]
    ulps: dict[str, float]
    is_half: bool


def traits_of(proto: onnx.ModelProto) -> Traits:
    """Read the traits off the graph."""
    flat = skeleton(proto)
    graph = flat.graph
    outputs = tuple(value.name for value in proto.graph.output)
    random = random_values(graph)
    inputs = {value.name for value in proto.graph.input}
    fed = reached(graph, inputs, shapes=True)
    opsets = {entry.domain: entry.version for entry in flat.opset_import}
    types = element_types(graph, opsets)
    coarsest = max((ulp(kind) for kind in set(types.values()) & FLOAT_TYPES), default=0.0)
    return Traits(
        outputs=outputs,
        random=frozenset(name for name in outputs if name in random),
        constant=frozenset(name for name in outputs if inputs and name not in fed),
        ulps={name: max(coarsest, ulp(types.get(name, 0))) for name in outputs},
        is_half=coarsest > ulp(onnx.TensorProto.FLOAT),
    )


def weaknesses(traits: Traits, runs: list[dict[str, Any]], has_inputs: bool) -> Iterator[str]:
    """What these runs of the reference cannot show, one line each.

    Args:
        runs: the outputs on each draw.
    """
    for name in traits.outputs:
        values = [run[name] for run in runs]
        if name in traits.random:
            yield f"'{name}' is random: compared by type and shape only"
        elif name in traits.constant:
            yield f"'{name}' does not depend on the inputs"
        elif _all_nan(values):
            yield f"'{name}' is NaN everywhere on all draws"
        elif has_inputs and len(values) > 1 and _never_changes(values):
            yield f"'{name}' came out the same on all draws: weakly tested"


def _all_nan(values: list[Any]) -> bool:
    arrays = [a for value in values for _, a in leaves(value) if a is not None and is_floating(a)]
    return any(a.size for a in arrays) and all(
        np.isnan(a if a.dtype.kind in "fc" else a.astype(np.float32)).all() for a in arrays
    )


def _never_changes(values: list[Any]) -> bool:
    first = values[0]
    for value in values[1:]:
        if structural_difference(first, value).what:
            return False
        for (_, a), (_, b) in zip(leaves(first), leaves(value), strict=True):
            if a is not None and b is not None and distance(a, b).any():
                return False
    return True
