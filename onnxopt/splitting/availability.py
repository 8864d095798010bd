"""When an edge that failed is worth asking again: after a while that doubles with each failure."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_S = 0.1
LONGEST_S = 10.0


class Availability:
    """What is known of an edge from the last requests.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause_s = 0.0
        self._until = 0.0

    def worth_trying(self) -> bool:
        return self._pause_s == 0 or self._clock() >= self._until

    def failed(self) -> None:
        self._pause_s = min(max(FIRST_S, 2 * self._pause_s), LONGEST_S)
        self._until = self._clock() + self._pause_s

    def answered(self) -> None:
        self._pause_s = 0.0
