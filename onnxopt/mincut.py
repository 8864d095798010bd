"""Minimum cut of a network: the cheapest way to say yes or no at each of its points."""

from __future__ import annotations

from collections import deque

SOURCE, SINK = 0, 1
INFINITE = 1 << 80


class Network:
    """Points on the side of SOURCE mean no, those on the side of SINK yes.

    An edge from a to b costs its capacity if a is on the side of SOURCE and b on that of SINK.
    Capacities are whole numbers.
    """

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]
        """Of each point, those that start there; edge e and its reverse e ^ 1 are neighbours."""
        self._ends: list[int] = []
        self._room: list[int] = []

    def point(self) -> int:
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, start: int, end: int, capacity: int) -> None:
        if start == end or not capacity:
            return
        self._edges[start].append(len(self._ends))
        self._edges[end].append(len(self._ends) + 1)
        self._ends += [end, start]
        self._room += [capacity, 0]

    def say_yes(self) -> frozenset[int]:
        """The points on the side of SINK in the cheapest cut; of several, that with fewest.

        By Dinic's algorithm: along shortest ways as long as there are any, which get longer each
        time.
        """
        while (levels := self._levels()) is not None:
            self._fill(levels)
        return frozenset(self._reaching_sink())

    def _levels(self) -> list[int] | None:
        """How far each point is from SINK along edges with room; None if SOURCE does not reach it.

        -1 for points that do not reach it, or are further away than SOURCE.
        """
        levels = [-1] * len(self._edges)
        levels[SINK] = 0
        queue = deque([SINK])
        while queue:
            point = queue.popleft()
            if point == SOURCE:
                return levels
            for edge in self._edges[point]:
                other = self._ends[edge]
                if levels[other] < 0 and self._room[edge ^ 1]:
                    levels[other] = levels[point] + 1
                    queue.append(other)
        return None

    def _fill(self, levels: list[int]) -> None:
        """Push along ways that come closer to SINK with each step until all of them are full."""
        edges, ends, room = self._edges, self._ends, self._room
        tried = [0] * len(edges)
        way: list[int] = []
        point = SOURCE
        while True:
            if point == SINK:
                point = self._push(way)
                continue
            while tried[point] < len(edges[point]):
                edge = edges[point][tried[point]]
                if room[edge] and levels[ends[edge]] == levels[point] - 1:
                    break
                tried[point] += 1
            else:
                if not way:
                    return
                point = ends[way.pop() ^ 1]
                tried[point] += 1
                continue
            way.append(edge)
            point = ends[edge]

    def _push(self, way: list[int]) -> int:
        """Push what there is room for, and go back to the start of the first edge that is full."""
        pushed = min([self._room[edge] for edge in way])
        first = len(way)
        for place in range(len(way) - 1, -1, -1):
            edge = way[place]
            self._room[edge] -= pushed
            self._room[edge ^ 1] += pushed
            if not self._room[edge]:
                first = place
        start = self._ends[way[first] ^ 1]
        del way[first:]
        return start

    def _reaching_sink(self) -> set[int]:
        found = {SINK}
        queue = deque([SINK])
        while queue:
            for edge in self._edges[queue.popleft()]:
                other = self._ends[edge]
                if other not in found and self._room[edge ^ 1]:
                    found.add(other)
                    queue.append(other)
        return found
