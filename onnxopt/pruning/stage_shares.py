"""Strategy `slr`: how much of the way channels go before residual blocks do, by measured error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnxopt.errors import UsageError
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.cache import Pieces
from onnxopt.pruning.dropping import second_stage
from onnxopt.pruning.meters import Meter
from onnxopt.pruning.rounds import Rounds
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.sensitivity import output_change, some
from onnxopt.pruning.stepper import Stepper
from onnxopt.pruning.two_stages import HALF, SHARES, first_target

JUDGING = 4
"""One of so many batches only judges."""


def both_stages(rounds: Rounds, meter: Meter, first: float, target: float) -> None:
    """Channels until the model costs `first`, then blocks; what is missing is for a last round."""
    if rounds.analysis().groups:
        rounds.choose_and_cut(meter, first)
    second_stage(rounds, meter, target)


def best_share(
    rounds_on: Callable[[Sequence[Batch], Tell], Rounds],
    batches: Sequence[Batch],
    meter: Meter,
    ends: tuple[float, float, float],
    saved: Pieces,
    tell: Tell,
) -> float:
    """The share of the way that channels go first: of some, the one that leaves the least error.

    Each is pruned with some of the samples, and judged by others.

    Args:
        rounds_on: the model as it is, to be pruned with these batches.
        ends: what the model costs, how far channels alone go at most, and what it may cost.
        saved: where errors are kept.
    """
    start, aim, target = ends
    fitted, judging = _apart(batches)
    errors: dict[float, float] = {}
    for share in SHARES:

        def told(
            stage: str, done: float, said: str = f"{share:.0%} of the way by channels"
        ) -> None:
            tell(f"trying {said}: {stage}", done)

        piece = saved.get(f"{share:g}")
        if piece is None:
            rounds = rounds_on(fitted, told)
            first = first_target(start, aim, share)
            piece = {"error": _error(rounds, meter, first, target, judging)}
            saved.put(f"{share:g}", piece)
        errors[share] = math.inf if piece["error"] is None else piece["error"]
    return min(errors, key=lambda share: (errors[share], abs(share - HALF)))


def _error(
    rounds: Rounds, meter: Meter, first: float, target: float, judging: Sequence[Batch]
) -> float | None:
    """Change of the outputs on batches that only judge; None if nothing tells."""
    try:
        both_stages(rounds, meter, first, target)
        rounds.choose_and_cut(meter, target)
    except UsageError:
        return None
    reference = Stepper(rounds.base, judging, threads=1).finish()
    found = Stepper(rounds.pruned, judging, threads=1).finish()
    both = min(len(reference), len(found))  # not all are held where values are large
    return output_change(reference[:both], found[:both])


def _apart(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Some batches to prune with, and others to judge by; the same where there is only one."""
    count = len(batches) - -(-len(batches) // JUDGING) if len(batches) > 1 else 1
    return some(batches[:count]), some(batches[count:] or batches)
