"""Cut a sequence into parts of bounded size, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def parts(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Consecutive items whose sizes add up to no more than `limit`; a larger one comes alone."""
    part: list[T] = []
    total = 0
    for item in items:
        own = size(item)
        if part and total + own > limit:
            yield part
            part, total = [], 0
        part.append(item)
        total += own
    if part:
        yield part
