"""A progress bar on stderr, for what takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_S = 2.0


class Bar:
    """Shows the stage that a long computation is in; a context manager that is called with it.

    Nothing is shown where stderr is no terminal, nor before two seconds have passed.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._wanted = sys.stderr.isatty() and not quiet
        self._stage, self._done = "", 0.0
        self._lock = threading.Lock()
        self._shown: Progress | None = None
        self._timer = threading.Timer(PATIENCE_S, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Bar:
        if self._wanted:
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._wanted = False
            if self._shown is not None:
                self._shown.stop()

    def __call__(self, stage: str, done: float) -> None:
        """Say what is being done, and how much of it is done, 0 to 1 (0: nobody knows)."""
        with self._lock:
            self._stage, self._done = stage, done
            self._update()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        with self._lock:
            if not self._wanted:
                return
            self._shown = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._shown.add_task("", total=None)
            self._update()
            self._shown.start()

    def _update(self) -> None:
        if self._shown is not None:
            task = self._shown.task_ids[0]
            total = 1.0 if self._done > 0 else None
            self._shown.update(task, description=self._stage, completed=self._done, total=total)
