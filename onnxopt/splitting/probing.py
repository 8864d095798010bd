"""Learn how the link is from a few thousand bytes, sent beside requests that do not use it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from onnxopt.splitting.availability import Availability
from onnxopt.splitting.edge import EdgeFailed

SIZE_BYTES = 8000
"""Of a probe. It leaves in one go; a line that HTTP servers take is about half as long."""

EVERY = 10
"""Of the requests that are computed on the device alone each tenth has a probe beside it."""

TIMES_THE_COST = 10.0
"""And none before so many times what the last one took: the link is busy a tenth of the time."""

LONGEST_S = 2.0
"""So long a probe is waited for: a link that takes longer is not worth more."""


class Probed(Protocol):
    """What can be probed; not for several threads at once."""

    def probe(self, size_bytes: int, *, within_s: float) -> float:
        """Send so many bytes, and wait for a word: the seconds of that, without connecting.

        Raises:
            EdgeFailed: it does not answer.
        """

    def close(self) -> None:
        """Hang up."""


class Prober:
    """Probes an edge in a thread of its own, one probe at a time, seldom.

    Args:
        edge: a connection that nothing else uses; it is closed with the prober.
        clock: seconds.
    """

    def __init__(self, edge: Probed, clock: Callable[[], float] = time.monotonic) -> None:
        self._edge, self._clock = edge, clock
        self._availability = Availability(clock)
        self._thread: threading.Thread | None = None
        self._found: deque[float] = deque()
        self._requests, self._not_before = 0, 0.0

    def beside(self) -> None:
        """A request that does not use the link begins; a probe may leave now. Returns at once."""
        self._requests += 1
        busy = self._thread is not None and self._thread.is_alive()
        if busy or self._requests < EVERY or self._clock() < self._not_before:
            return
        if self._availability.worth_trying():
            self._requests = 0
            self._thread = threading.Thread(target=self._probe, name="probe", daemon=True)
            self._thread.start()

    def results(self) -> list[tuple[int, float]]:
        """Bytes and seconds of the probes that came back since this was asked last."""
        count = len(self._found)  # the thread may add to them meanwhile
        return [(SIZE_BYTES, self._found.popleft()) for _ in range(count)]

    def close(self) -> None:
        """Wait for a probe under way, `LONGEST_S` at most, and hang up."""
        if self._thread is not None:
            self._thread.join()
        self._edge.close()

    def _probe(self) -> None:
        began = self._clock()
        try:
            seconds = self._edge.probe(SIZE_BYTES, within_s=LONGEST_S)
        except EdgeFailed:  # the next request that uses the link tells what there is to tell
            self._availability.failed(self._clock() - began)
            return
        self._availability.answered()
        self._not_before = self._clock() + TIMES_THE_COST * (self._clock() - began)
        self._found.append(seconds)
