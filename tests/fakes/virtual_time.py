"""An event loop that does not wait: where all are waiting, its clock goes on to the next thing that is due."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any


class _Impatient(selectors.DefaultSelector):
    """Looks for what is ready, and lets *skipped_s* pass instead of waiting for it."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.skipped_s += timeout
        # Without a timer there is only the wait for another thread.
        return ready if ready or timeout is not None else super().select(None)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """For ``asyncio.Runner(loop_factory=VirtualTimeLoop)``. ``time()`` counts the waits that were skipped."""

    def __init__(self) -> None:
        self._impatient: Any = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return super().time() + float(self._impatient.skipped_s)


def in_virtual_time(work: Callable[[], Awaitable[None]]) -> None:
    """Run *work* on a ``VirtualTimeLoop`` of its own."""

    async def main() -> None:
        await work()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
