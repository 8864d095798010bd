"""When an edge that failed is worth asking again: soon, if asking in vain costs little."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_S = 0.1
LONGEST_CHEAP_S = 1.0
"""The pause doubles with each failure in a row, up to this."""

LONGEST_S = 30.0
TIMES_THE_COST = 10.0
"""But it is so many times what the last failure took: a tenth of the time at most is waited in
vain. Nobody listening is known at once, and a network that swallows everything is not."""


class Availability:
    """What is known of an edge from the last requests.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause_s = 0.0
        self._doubled_s = 0.0
        self._until = 0.0

    def worth_trying(self) -> bool:
        return self._pause_s == 0 or self._clock() >= self._until

    def failed(self, took_s: float) -> None:
        """It was asked in vain, which took so long."""
        self._doubled_s = min(max(FIRST_S, 2 * self._doubled_s), LONGEST_CHEAP_S)
        self._pause_s = min(max(self._doubled_s, TIMES_THE_COST * took_s), LONGEST_S)
        self._until = self._clock() + self._pause_s

    def answered(self) -> None:
        self._pause_s = self._doubled_s = 0.0
