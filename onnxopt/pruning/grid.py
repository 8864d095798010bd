"""The widths that a group of channels may take: a grid that kernels like, and limits."""

from __future__ import annotations

from onnxopt.errors import UsageError


def legal_widths(
    units: int,
    *,
    multiple_of: int,
    min_channels: int,
    max_per_group: float,
    quantum: int = 1,
    fixed: int = 0,
    fewest: int = 1,
) -> tuple[int, ...]:
    """How many units of a group may stay, ascending; the last is all of them.

    Kernels work on blocks of channels, so the size of the axis should be a multiple of their block.
    Where that leaves too little choice, smaller powers of two are tried (8, 4, 2, 1): a narrow
    group is better cut to half a block than never. All units may stay even if they are no multiple.

    Args:
        units: units of the group now, at least 1.
        multiple_of: what the size of the axis, fixed + units kept, should be a multiple of.
        min_channels: units that must stay; one always does.
        max_per_group: largest fraction of the units that may leave, from 0 to 1.
        quantum: units leave this many at a time, one for each group of a grouped Conv.
        fixed: indices on the same axis that no group can cut.
        fewest: widths below all units that there should be at least.

    Raises:
        UsageError: multiple_of or max_per_group is out of range.
    """
    if multiple_of < 1:
        raise UsageError(f"channels cannot be a multiple of {multiple_of}", "ask for at least 1")
    if not 0 <= max_per_group <= 1:
        raise UsageError(
            f"{max_per_group:g} is no fraction of the channels of a group",
            "write a number from 0 to 1, such as 0.8",
        )
    assert units >= 1 and quantum >= 1 and fixed >= 0
    leaving = int(units * max_per_group + 1e-9)  # 0.7 * 10 is 7, whatever binary fractions say
    least = max(1, min_channels, units - leaving)
    reachable = sorted(range(units - quantum, least - 1, -quantum))
    multiple = multiple_of
    while True:
        kept = [n for n in reachable if (fixed + n) % multiple == 0]
        if len(kept) >= fewest or multiple == 1:
            return (*kept, units)
        multiple = 1 << ((multiple - 1).bit_length() - 1)
