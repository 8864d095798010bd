"""When to change the cut while running: rent or buy, so that it follows and cannot flap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from onnxopt.splitting.context import Box, Context, Point
from onnxopt.splitting.estimation import Estimate

PATIENCE = 0.25
"""A cut is left once what it lost to the best one adds up to this share of a request."""

TRIALS = 0.03
"""So large a share of the time may go into trying cuts that would be better if the link were."""

FEWER = 0.5
FEWEST = 1 / 16
"""After a trial that changed nothing the share is half of what it was, down to a sixteenth."""

EAGER_AGAIN = 1.003
"""By this it grows with each request: after 230 of them it is twice as large."""

FIRST_BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 30.0


class Adapter:
    """Chooses the cut of each request, from the requests before it.

    What a request loses by its cut, against the best one in the conditions as they are estimated,
    is added up (and made good where the cut is the best one, but not below zero). Once that is
    `patience` of a request, the cut changes and the sum starts from zero. So a loss of a quarter of
    the time changes it at once, one of a hundredth after 25 requests; and there is never more than
    one change for each `patience` of a request that was lost.

    A small request tells little of the rate, and no request nothing of the link. So a cut that
    would be the best one, if the link were as good as it may be by now, is tried for one request
    when what that may lose has been saved up: a share `trials` of the time of each request.

    Not thread-safe: one for each client.

    Args:
        points: for each cut what it costs, see `plan_file.Plan.points`; the number of a cut is its
            place here.
        context: the conditions to begin with.
        allowed: cuts that may be chosen; all unless given. The one that sends nothing is used when
            the edge fails, allowed or not.
        start: the cut to begin with; the best one unless given.
        box: conditions are taken to be inside of it.
        clock: seconds.
    """

    def __init__(
        self,
        points: Sequence[Point],
        context: Context,
        *,
        allowed: Sequence[int] | None = None,
        start: int | None = None,
        box: Box | None = None,
        patience: float = PATIENCE,
        trials: float = TRIALS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.points = tuple(points)
        self.allowed: Sequence[int] = tuple(range(len(points)) if allowed is None else allowed)
        self.switches = 0
        self._box, self._patience, self._trials, self._clock = box, patience, trials, clock
        self._estimate = Estimate(context, box)
        self._local = next((i for i, point in enumerate(points) if not point.is_remote), None)
        self._regret, self._saved, self._eager = 0.0, 0.0, 1.0
        self._down_until, self._back_off = 0.0, 0.0
        self._costs = tuple(
            (p.device_s, p.edge_s, p.sent_bytes + p.back_bytes, float(p.is_remote)) for p in points
        )
        self._learn()
        self.cut = self.best() if start is None else start

    @property
    def context(self) -> Context:
        """The conditions as they are estimated."""
        return self._context

    def _learn(self) -> None:
        self._context = self._clipped(self._estimate.context)
        self._hopeful = self._clipped(self._estimate.hopeful)

    def _clipped(self, context: Context) -> Context:
        return context if self._box is None else self._box.clipped(context)

    def times(self, context: Context | None = None) -> list[float]:
        """Predicted seconds of each cut, in the estimated conditions unless others are given."""
        # As `context.latency_s` says, written out: this runs before each request.
        asked = context or self._context
        device, edge, trip = asked.device_load, asked.edge_load, asked.rtt_s
        rate = 8 / asked.bandwidth_bits
        return [device * d + edge * e + rate * b + trip * r for d, e, b, r in self._costs]

    def best(self, context: Context | None = None) -> int:
        """The allowed cut that takes least time."""
        times = self.times(context)
        return min(self.allowed, key=times.__getitem__)

    def choose(self) -> int:
        """The cut of the next request; to be asked once for each."""
        if self._back_off and self._clock() < self._down_until:
            assert self._local is not None
            return self._local
        times = self.times()
        best = min(self.allowed, key=times.__getitem__)
        lost = times[self.cut] - times[best] if best != self.cut else self._lead(times)
        self._regret = max(0.0, self._regret + lost)
        if best != self.cut and self._regret >= self._patience * times[best]:
            self.cut, self._regret, self._saved, self._eager = best, 0.0, 0.0, 1.0
            self.switches += 1
        return self._trial(times)

    def _lead(self, times: Sequence[float]) -> float:
        """What the best cut takes less than the second best, as a negative number."""
        others = [times[cut] for cut in self.allowed if cut != self.cut]
        return times[self.cut] - min(others, default=times[self.cut])

    def _trial(self, times: Sequence[float]) -> int:
        """The cut of this request: the present one, or one that is tried."""
        self._eager = min(1.0, EAGER_AGAIN * self._eager)
        self._saved += self._trials * self._eager * times[self.cut]
        hopeful = self.times(self._hopeful)
        better = [cut for cut in self.allowed if hopeful[cut] < hopeful[self.cut]]
        tried = min(better, key=times.__getitem__, default=self.cut)
        if tried == self.cut or self._saved < times[tried] - times[self.cut]:
            return self.cut
        self._saved, self._eager = 0.0, max(FEWEST, FEWER * self._eager)
        return tried

    def observe(
        self,
        *,
        bytes_sent: float,
        bytes_received: float,
        wall_s: float,
        device_s: float,
        edge_s: float,
        cut: int,
    ) -> None:
        """Tell how a request went.

        Args:
            bytes_sent, bytes_received: on the wire; 0 where nothing was sent.
            wall_s: from the first byte sent to the last one received, the edge's time included;
                without that of the device.
            device_s: computing on the device, encoding included.
            edge_s: computing at the edge, as the response says; decoding included.
            cut: that it was done with.
        """
        point = self.points[cut]
        self._estimate.observe(
            point,
            bytes_sent=bytes_sent,
            bytes_received=bytes_received,
            wall_s=wall_s,
            device_s=device_s,
            edge_s=edge_s,
        )
        self._learn()
        if point.is_remote:
            self._back_off = 0.0

    def probed(self, size_bytes: float, wire_s: float) -> None:
        """Tell how something else went over the link, beside the requests.

        A client that computes all on the device learns nothing of the link. A few thousand bytes
        sent now and then, while it computes, tell it when the link is good again.
        """
        self._estimate.probed(size_bytes, wire_s)
        self._learn()

    def failed(self) -> None:
        """The edge did not answer, or not in time: leave it alone for a while, twice as long as
        the last time.

        Until then `choose` gives the cut that sends nothing, if there is one.
        """
        if self._local is None:
            return
        self._back_off = min(max(FIRST_BACK_OFF_S, 2 * self._back_off), LONGEST_BACK_OFF_S)
        self._down_until = self._clock() + self._back_off
