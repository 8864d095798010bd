"""Minimum cut of a small network: the cheapest way to say yes or no at each of its points."""

from __future__ import annotations

from collections import deque

SOURCE, SINK = 0, 1
INFINITE = 1 << 80


class Network:
    """Points on the side of SOURCE mean no, those on the side of SINK yes.

    An edge from a to b costs its capacity if a is on the side of SOURCE and b on that of SINK.
    """

    def __init__(self) -> None:
        self.room: list[dict[int, int]] = [{}, {}]

    def point(self) -> int:
        self.room.append({})
        return len(self.room) - 1

    def edge(self, start: int, end: int, capacity: int) -> None:
        if start != end:
            self.room[start][end] = self.room[start].get(end, 0) + capacity
            self.room[end].setdefault(start, 0)

    def say_yes(self) -> frozenset[int]:
        """The points on the side of SINK in the cheapest cut; of several, that with fewest."""
        while (path := self._path()) is not None:
            pushed = min(self.room[a][b] for a, b in path)
            for a, b in path:
                self.room[a][b] -= pushed
                self.room[b][a] += pushed
        return frozenset(self._reaching_sink())

    def _path(self) -> list[tuple[int, int]] | None:
        """A shortest path from SOURCE to SINK that still has room."""
        before: dict[int, int] = {SOURCE: SOURCE}
        queue = deque([SOURCE])
        while queue:
            point = queue.popleft()
            if point == SINK:
                break
            for following, room in self.room[point].items():
                if room > 0 and following not in before:
                    before[following] = point
                    queue.append(following)
        if SINK not in before:
            return None
        path = []
        point = SINK
        while point != SOURCE:
            path.append((before[point], point))
            point = before[point]
        return path

    def _reaching_sink(self) -> set[int]:
        found = {SINK}
        queue = deque([SINK])
        while queue:
            point = queue.popleft()
            for other in self.room[point]:
                if other not in found and self.room[other].get(point, 0) > 0:
                    found.add(other)
                    queue.append(other)
        return found
