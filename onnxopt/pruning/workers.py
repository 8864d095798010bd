"""Independent pieces of work, mapped over threads: the same results however many there are.

Threads and not processes: ONNX Runtime, LAPACK and the loops of numpy release the lock of Python,
while processes would have to be sent the model, which may be larger than what can be sent.
A piece never depends on the number of workers, nor do the threads of the sessions that it runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from onnxopt.runtime import DEFAULT_THREADS

DEFAULT_WORKERS = DEFAULT_THREADS
"""As many as there are cores, but at most four: each may take its share of memory."""

P = TypeVar("P")
R = TypeVar("R")


def in_order(function: Callable[[P], R], pieces: Iterable[P], workers: int) -> Iterator[R]:
    """What the function makes of each piece, in the order of the pieces.

    No more than `workers` pieces are begun and not yet taken, so memory is bounded by as many;
    `pieces` is gone through in the calling thread. The caller keeps linear algebra on one thread
    (`threads.py`). When it goes away early, by an error or an interrupt, no other piece begins and
    it does not wait for those that have begun.
    """
    if workers == 1:
        yield from map(function, pieces)
        return
    errors = np.geterr()

    def carried_out(piece: P) -> R:
        with np.errstate(**errors):  # which threads do not inherit
            return function(piece)

    pool = ThreadPoolExecutor(workers, "worker", threadpool_limits, (1, "blas"))
    try:
        left = iter(pieces)
        begun: deque[Future[R]] = deque(pool.submit(carried_out, p) for p in islice(left, workers))
        while begun:
            yield begun.popleft().result()
            begun.extend(pool.submit(carried_out, p) for p in islice(left, 1))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
