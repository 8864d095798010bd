"""GADS: move the cut to better neighbours of the last one. Here to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxopt.splitting.candidates import Candidates
from onnxopt.splitting.context import Context, latency_s

NEIGHBOURS = 4


class Gads:
    """Neighbourhood search over a graph of partition states, from the last state.

    After its description: Wang et al., End context-adaptative deep sensing model with edge-end
    collaboration (Journal of Zhejiang University, Engineering Science, 55(4), 2021, pages 626-638),
    and by the same authors Context-aware Adaptive Surgery (2021), which calls it the graph-based
    adaptive DNN surgery: states of a partition are the nodes of a graph, states of similar cost are
    neighbours, and when the context changes the better states are looked for among the neighbours
    of the present one. What the abstracts leave open is ours: each state's neighbours are the four
    nearest by time on the device, time at the edge and bytes, and the states right before and
    after it in the order of the model; the search goes to the best neighbour until none is better.

    Args:
        states: numbers of candidates.
        start: the one to begin with.
        always: states that are neighbours of all others, too: more than the description says.
    """

    def __init__(
        self,
        found: Candidates,
        states: Sequence[int],
        *,
        start: int,
        always: Sequence[int] = (),
    ) -> None:
        assert start in states and set(always) <= set(states)
        self._points = {number: found.point(number) for number in states}
        self._near = {
            state: tuple(dict.fromkeys((*near, *(other for other in always if other != state))))
            for state, near in _neighbours(found, list(states)).items()
        }
        self.state = start
        self.looked_at = 0

    def tune(self, context: Context) -> int:
        """The state that the search ends in, when conditions are these."""
        points, state = self._points, self.state
        best = latency_s(points[state], context)
        while True:
            times = [(latency_s(points[near], context), near) for near in self._near[state]]
            self.looked_at += len(times)
            least, near = min(times, default=(best, state))
            if least >= best:
                self.state = state
                return state
            best, state = least, near


def _neighbours(found: Candidates, states: list[int]) -> dict[int, tuple[int, ...]]:
    """For each state the nearest ones; and the next ones in the order of the model."""
    columns = [found.device_s[states], found.edge_s[states], (found.sent + found.back)[states]]
    places = np.stack([column / (column.max() or 1.0) for column in columns], axis=1)
    order = sorted(
        range(len(states)), key=lambda i: found.cuts.device[found.cut[states[i]]].bit_count()
    )
    near: dict[int, tuple[int, ...]] = {}
    for rank, place in enumerate(order):
        distances = np.square(places - places[place]).sum(axis=1)
        distances[place] = np.inf
        nearest = [int(i) for i in np.argsort(distances, kind="stable")[:NEIGHBOURS]]
        beside = [order[r] for r in (rank - 1, rank + 1) if 0 <= r < len(order)]
        chosen = dict.fromkeys(i for i in (*nearest, *beside) if i != place)
        near[states[place]] = tuple(states[i] for i in chosen)
    return near
