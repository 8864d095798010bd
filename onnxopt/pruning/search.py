"""Search the largest cut whose score on labelled samples stays within a drop."""

from __future__ import annotations

from collections.abc import Callable

from onnxopt.errors import CheckError, UsageError
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.results import Pruned

STEPS = 6
SMALLEST_SHARE = 0.05
"""What a search leaves at least, as a share of the original, if no budget says otherwise."""


def largest_cut(
    at: Callable[[Budget], Pruned],
    score: Callable[[Pruned], float],
    wanted: float,
    mode: Mode,
    lowest: float | None,
    tell: Tell,
) -> Pruned:
    """Bisection over what remains; a budget that cannot be met counts as too small.

    Args:
        at: prunes to a budget.
        score: of a pruned model; higher is better.
        wanted: the score that must be kept.
        lowest: share of the cost that is the most to ask for, tried first.

    Raises:
        CheckError: not even the smallest cut that is tried keeps the score.
    """
    tried: list[str] = []

    def attempt(share: float) -> Pruned | None:
        try:
            made = at(Budget(mode, share))
        except UsageError as error:
            tried.append(f"{share:.1%}: {error.what}")
            return None
        reached = score(made)
        tried.append(f"{share:.1%}: {reached:.4g}")
        return made if reached >= wanted else None

    if lowest is not None:
        tell("searching the largest cut", 0.0)
        if (found := attempt(lowest)) is not None:
            return found
    low, high = SMALLEST_SHARE if lowest is None else lowest, 1.0
    best: Pruned | None = None
    for step in range(STEPS):
        tell("searching the largest cut", step / STEPS)
        middle = (low + high) / 2
        found = attempt(middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    if best is None:
        raise CheckError(
            f"no cut stays within the drop; tried: {'; '.join(tried)}",
            "nothing was written; allow a larger --max-drop",
        )
    return best
