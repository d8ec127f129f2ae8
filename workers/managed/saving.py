"""Writes what was measured to disk, off the event loop, once for many changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from workers.managed.measurements import Measurements


class Saver:
    """One write at a time; changes that come meanwhile lead to one more."""

    def __init__(self, measurements: Measurements, collect: Callable[[], None]) -> None:
        self._measurements = measurements
        self._collect = collect
        self._task: asyncio.Task[None] | None = None
        self._is_stale = False

    def soon(self) -> None:
        """There is something new."""
        self._is_stale = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._save(), name="managed servers: save what was measured")

    async def close(self) -> None:
        """Return when all is written."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _save(self) -> None:
        while self._is_stale:
            self._is_stale = False
            self._collect()
            await asyncio.to_thread(self._measurements.write, self._measurements.document())
