"""Signs of progress for one who waits for a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from domain.deadline import Clock
from workers.residency.manager import OnProgress
from workers.residency.state import Progress


@asynccontextmanager
async def told(
    expert_id: str, tell: Callable[[str], None] | None, every_s: float, clock: Clock = time.monotonic
) -> AsyncIterator[OnProgress | None]:
    """What ``Residency.hold`` is to call while it waits for the server of *expert_id*: tells each stage when it begins, and how far it
    is every *every_s* seconds after that. Under the expert's name: the server's may be another expert's, which is nobody's business."""
    if tell is None:
        yield None
        return
    ticker: asyncio.Task[None] | None = None

    def note(progress: Progress) -> None:
        nonlocal ticker
        if ticker is not None:
            ticker.cancel()
        tell(str(replace(progress, server_id=expert_id)))
        ticker = asyncio.create_task(tick(progress, clock()))

    async def tick(progress: Progress, since: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            tell(str(replace(progress, server_id=expert_id, elapsed_s=progress.elapsed_s + clock() - since)))

    try:
        yield note
    finally:
        if ticker is not None:
            ticker.cancel()
