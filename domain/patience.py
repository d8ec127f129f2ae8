"""Many waits in a row, each with a limit, and one timer for them all."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Patience:
    """``with patience.for_(seconds): await …`` raises ``TimeoutError`` as ``asyncio.timeout`` does.

    For what waits again and again, as a stream does for every token: there a timer for each wait costs more than the token. The timer
    that is set stays when a wait ends early, and is set anew only if it rings while a later wait has time left. One wait at a time;
    whoever made it has to ``close`` it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._task: asyncio.Task[object] | None = None
        """Who waits now."""
        self._until = self._seconds = 0.0
        self._cancelling = 0
        self._is_over = False

    def for_(self, seconds: float) -> Self:
        """The limit of the wait that begins now."""
        self._seconds = seconds
        return self

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a wait with a limit needs a task")
        self._task, self._cancelling = task, task.cancelling()
        self._until = self._loop.time() + self._seconds
        if self._timer is None or self._until < self._rings_at:
            self._set(self._until)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        task, self._task = self._task, None
        if not self._is_over or task is None:
            return
        self._is_over = False
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:  # else somebody else cancels us as well
            raise TimeoutError from error

    def close(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = self._loop.call_at(at, self._ring), at

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # nobody waits: the next wait sets it
        if self._loop.time() < self._until:
            self._set(self._until)
            return
        self._is_over = True
        self._task.cancel()
