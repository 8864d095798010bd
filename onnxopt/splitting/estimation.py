"""What the conditions are, from requests that are sent anyway: link and loads."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from onnxopt.splitting.context import Box, Context, Point

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

STEP = math.log(2) / 2
"""Between two round trips, or two rates, that are told apart."""

RTT_STEPS, RATE_STEPS = 6, 24
"""So many steps each may go up or down from where it began: by factors of 8 and 4096."""

RTT_SPREAD = 0.5
"""How far the round trip is likely to be from where it began, in logarithms, if nothing is said."""

RTT_WANDERS, RATE_WANDERS = 0.05, 0.3
"""How likely each is to be a step further, one way or the other, at the next request."""

CHANGES = 0.01
"""How likely the rate is to be any other at the next request, and the round trip what it was."""

TIMES_SCATTER = 0.2
"""By how much times are off, in logarithms; with heavy tails."""

HOPE = 2.0
"""So many deviations better than estimated is what round trip and rate may be."""

LOAD_GAIN = 0.3
"""Weight of the last request in the loads."""

LEAST_S = 1e-6


class LinkEstimate:
    """Round trip and seconds for a byte, from the times of requests of different sizes.

    One time does not tell both apart. What is kept is how likely each pair of both is, on a grid: a
    small request tells of the round trip, a large one of the rate, and what no request told of
    becomes less sure. (Least squares with forgetting, and Kalman filters, wander off along the
    pairs that explain requests of one size equally well.)

    Args:
        rtt_s, seconds_per_byte: to begin with.
        spread: how far the round trip is likely to be from that, in logarithms.
    """

    def __init__(
        self, rtt_s: float, seconds_per_byte: float, *, spread: float = RTT_SPREAD
    ) -> None:
        rtts = np.arange(-RTT_STEPS, RTT_STEPS + 1) * STEP
        rates = np.arange(-RATE_STEPS, RATE_STEPS + 1) * STEP
        self._rtts = (rtts + math.log(max(rtt_s, LEAST_S)))[:, None]
        self._rates = (rates + math.log(seconds_per_byte))[None, :]
        prior = np.exp(-0.5 * (rtts / spread) ** 2)
        first = np.exp(-0.5 * rates**2)
        self._prior: Floats = (prior / prior.sum())[:, None] / len(rates)
        self._likely: Floats = np.outer(prior / prior.sum(), first / first.sum())
        self._wander()

    def _summarize(self) -> None:
        likely, found = self._likely, []
        for grid in (self._rtts, self._rates):
            middle = float((likely * grid).sum())
            spread = math.sqrt(float((likely * (grid - middle) ** 2).sum()))
            found += [math.exp(middle), math.exp(middle - HOPE * spread)]
        self.rtt_s, least_rtt, self.seconds_per_byte, least_rate = found
        self.hopeful = least_rtt, least_rate
        """Round trip and seconds for a byte, as small as they may be by what is known."""

    def _wander(self) -> None:
        wandered = _spread(_spread(self._likely, RTT_WANDERS, 0), RATE_WANDERS, 1)
        anew = wandered.sum(axis=1, keepdims=True) / wandered.shape[1]
        self._likely = (1 - CHANGES) * wandered + CHANGES * (anew + self._prior) / 2
        self._summarize()

    def wait(self) -> None:
        """A request went without the link: what is known of it gets older."""
        self._wander()

    def observe(self, size_bytes: float, wire_s: float) -> None:
        """A request took so long, without the time that the edge computed.

        Args:
            size_bytes: sent and received.
        """
        expected = np.log(np.exp(self._rtts) + np.exp(self._rates) * size_bytes)
        off = (math.log(max(wire_s, LEAST_S)) - expected) / TIMES_SCATTER
        self._likely = self._likely / (1 + off * off / 3) ** 2
        self._likely /= self._likely.sum()
        self._wander()


def _spread(likely: Floats, chance: float, axis: int) -> Floats:
    """One step further or less with this chance; at the ends it stays inside."""
    old = likely if axis == 0 else likely.T
    moved = chance / 2 * old
    found: Floats = (1 - chance) * old
    found[1:] += moved[:-1]
    found[:-1] += moved[1:]
    found[0] += moved[0]
    found[-1] += moved[-1]
    return found if axis == 0 else found.T


class Estimate:
    """All conditions: link, and load of both sides as time measured by time predicted.

    Args:
        context: to begin with.
        box: what the round trip may be is taken from it.
    """

    def __init__(self, context: Context, box: Box | None = None) -> None:
        spread = RTT_SPREAD
        if box is not None:
            trips = [max(LEAST_S, end.rtt_s) for end in (box.least, box.most)]
            spread = max(spread, math.log(max(trips) / min(trips)) / 2)
        self._link = LinkEstimate(context.rtt_s, context.seconds_per_byte, spread=spread)
        self._device, self._edge = math.log(context.device_load), math.log(context.edge_load)

    def observe(
        self,
        point: Point,
        *,
        bytes_sent: float,
        bytes_received: float,
        wall_s: float,
        device_s: float,
        edge_s: float,
    ) -> None:
        """One request; see `Adapter.observe`."""
        self._device = _moved(self._device, device_s, point.device_s)
        if point.is_remote:
            self._edge = _moved(self._edge, edge_s, point.edge_s)
            self._link.observe(bytes_sent + bytes_received, wall_s - edge_s)
        else:
            self._link.wait()

    def probed(self, size_bytes: float, wire_s: float) -> None:
        """See `Adapter.probed`."""
        self._link.observe(size_bytes, wire_s)

    @property
    def context(self) -> Context:
        """The conditions as they most likely are."""
        return self._with(self._link.rtt_s, self._link.seconds_per_byte)

    @property
    def hopeful(self) -> Context:
        """The conditions with the link as fast as it may be."""
        return self._with(*self._link.hopeful)

    def _with(self, rtt_s: float, seconds_per_byte: float) -> Context:
        loads = math.exp(self._device), math.exp(self._edge)
        return Context(8 / seconds_per_byte, rtt_s, *loads)


def _moved(load: float, measured_s: float, predicted_s: float) -> float:
    """The logarithm of a load after one more time; what computes nothing tells nothing of it."""
    if predicted_s < LEAST_S or measured_s <= 0:
        return load
    return load + LOAD_GAIN * (math.log(measured_s / predicted_s) - load)
