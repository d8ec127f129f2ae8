"""Takes up batches as they come, and those that a killed process has left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from domain.batch import Batch, BatchRunner
from domain.errors import Conflict, ConsiliumError
from orchestrator.batch.engine import BatchEngine
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.news import BatchNews
from orchestrator.batch.ports import BatchStore

Sleep = Callable[[float], Awaitable[None]]

log = logging.getLogger(__name__)

_FAILED_PAUSE_S = 5.0
"""After a batch that broke: whatever broke it may pass, and must not be tried a thousand times a second."""


class BatchService:
    """The batches of one process. ``run`` until cancelled."""

    def __init__(
        self,
        engine: BatchEngine,
        store: BatchStore,
        *,
        owner: str,
        limits: BatchLimits,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine, self._store, self._owner, self._limits, self._sleep = engine, store, owner, limits, sleep
        self._woken = asyncio.Event()
        self._news: dict[str, BatchNews] = {}

    def wake(self) -> None:
        """There may be a batch to take up."""
        self._woken.set()

    def news(self, batch_id: str) -> BatchNews | None:
        """How a batch that this process works on is getting on; None when it does not."""
        return self._news.get(batch_id)

    async def run(self) -> None:
        """Take up one batch after the other, as many at once as may be. Cancelled, it gives up what it has, to be taken up again."""
        lanes = [asyncio.create_task(self._lane(), name=f"batches {number}") for number in range(self._limits.max_batches)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _lane(self) -> None:
        while True:
            self._woken.clear()
            if not await self._next():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.poll_s):
                        await self._woken.wait()

    async def _next(self) -> bool:
        """Whether there was a batch."""
        try:
            batch = await self._store.claim(self._owner, lease_s=self._limits.lease_s, runner=BatchRunner.SERVICE)
        except ConsiliumError as error:
            log.warning("batches cannot be looked for: %s", error)
            return False
        if batch is None:
            return False
        await self._carry_out(batch)
        return True

    async def _carry_out(self, batch: Batch) -> None:
        try:
            over = await self._engine.run(batch, lambda news: self._news.__setitem__(batch.id, news))
            log.info("batch %s is %s: %d answered, %d failed", batch.id, over.state, over.counts.completed, over.counts.failed)
        except Conflict as error:
            log.info("batch %s is worked on elsewhere: %s", batch.id, error)
        except Exception as error:  # whatever it is: the batch is taken up again, and others have their turn
            expected = isinstance(error, ConsiliumError)
            log.error("batch %s broke off and is tried again: %s", batch.id, error, exc_info=None if expected else error)
            await self._given_up(batch)
            await self._sleep(_FAILED_PAUSE_S)
        except asyncio.CancelledError:
            await self._given_up(batch)
            raise
        finally:
            self._news.pop(batch.id, None)

    async def _given_up(self, batch: Batch) -> None:
        """Let another take it up now; without a database its lease runs out."""
        with suppress(ConsiliumError, TimeoutError):
            async with asyncio.timeout(self._limits.last_write_s):
                await self._store.release(batch.id, self._owner)
