"""The criteria that put units of channels into an order, by name; block OBS is the default.

Some look at the weights of the producers alone (l1, l2, fpgm), one at the scales of a
BatchNormalization (bn-scale), two at the consumers and their inputs (obs, admm).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from onnxopt.pruning.admm import admm_order
from onnxopt.pruning.moments import Array, Floats
from onnxopt.pruning.obs import joint_order
from onnxopt.pruning.problem import Order, Problem
from onnxopt.pruning.ridge import STRENGTH

Criterion: TypeAlias = Literal["obs", "admm", "l1", "l2", "fpgm", "bn-scale", "random"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)


def order(
    criterion: Criterion,
    producers: Sequence[Array] = (),
    problems: Sequence[Problem] = (),
    *,
    scales: Array | None = None,
    strength: float = STRENGTH,
    widths: Sequence[int] | None = None,
    units: int | None = None,
    seed: int = 0,
) -> Order:
    """The order in which units go by one criterion, and each unit's score.

    producers: the weights that make the units, each [units, ...]. problems: the layers that read
    them, for obs and admm. scales: what a BatchNormalization multiplies each unit with, [units] or
    [units, members]. widths: for admm the numbers of units that must be chosen well, all about
    equally if None. units: how many there are, where nothing else tells it (random).

    Raises ValueError where a criterion lacks what it looks at.
    """
    if criterion in ("obs", "admm"):
        if not problems:
            raise ValueError(f"{criterion} needs what the layers that read the channels get")
        if criterion == "obs":
            return joint_order(problems, strength=strength)
        return admm_order(problems, strength=strength, widths=widths)
    if criterion == "bn-scale":
        if scales is None:
            raise ValueError("bn-scale needs a BatchNormalization after the layer; there is none")
        scores = np.abs(np.asarray(scales, np.float64)).reshape(len(scales), -1).sum(axis=1)
    elif criterion == "random":
        scores = np.random.default_rng(seed).permutation(_count(producers, problems, units)) + 1.0
    elif criterion in ("l1", "l2", "fpgm"):
        if not len(producers):
            raise ValueError(f"{criterion} needs the weights of a layer that makes the channels")
        scores = _magnitude(criterion, _filters(producers))
    else:
        raise ValueError(f"{criterion} is no criterion; there are {', '.join(CRITERIA)}")
    return Order(np.argsort(scores, kind="stable"), scores)


def _count(producers: Sequence[Array], problems: Sequence[Problem], units: int | None) -> int:
    if units is not None:
        return units
    if len(producers):
        return len(producers[0])
    if problems:
        return len(problems[0].rows)
    raise ValueError("random needs to know how many units there are")


def _filters(producers: Sequence[Array]) -> Floats:
    """All that makes each unit, side by side: [units, numbers]."""
    parts = [np.asarray(p, np.float64).reshape(len(p), -1) for p in producers]
    return np.concatenate(parts, axis=1)


def _magnitude(criterion: Criterion, filters: Floats) -> Floats:
    """The score of each filter [units, numbers]; several producers count together, raw.

    l1 and l2: the norm (Li et al., "Pruning filters for efficient convnets", ICLR 2017). fpgm: the
    sum of distances to all other filters, which is least at the geometric median, where a filter
    says least of its own (He et al., CVPR 2019, section 3.3).
    """
    if criterion == "l1":
        return np.asarray(np.abs(filters).sum(axis=1))
    if criterion == "l2":
        return np.asarray(np.sqrt(np.square(filters).sum(axis=1)))
    squares = np.square(filters).sum(axis=1)
    between = squares[:, None] + squares[None] - 2 * (filters @ filters.T)
    np.fill_diagonal(between, 0)
    return np.asarray(np.sqrt(np.maximum(between, 0)).sum(axis=1))
