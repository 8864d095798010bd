"""Linear algebra on one thread: the matrices are small, and the results are the same everywhere.

On several threads OpenBLAS spins between calls, which makes thousands of small factorizations many
times slower where cores are shared, and its sums depend on how many cores a machine has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """The function with the linear algebra in it on one thread."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
