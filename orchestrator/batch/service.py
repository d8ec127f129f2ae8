"""Takes up batches as they come, and those that a killed process has left."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from domain.batch import Batch, BatchRunner
from domain.errors import Conflict, ConsiliumError, NotFound, NotReady, StorageError
from orchestrator.batch.engine import BatchEngine
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.news import BatchNews
from orchestrator.batch.ports import BatchStore
from orchestrator.batch.retries import Retries

log = logging.getLogger(__name__)

_MAY_PASS = (StorageError, NotReady)
"""What breaks a batch through no fault of the service's: the database is away, a disk is full. It is tried for as long as it takes."""


class BatchService:
    """The batches of one process. ``run`` until cancelled.

    A batch that breaks off rests while others have their turn. One that breaks again and again by a bug is given up.
    """

    def __init__(
        self,
        engine: BatchEngine,
        store: BatchStore,
        *,
        owner: str,
        limits: BatchLimits,
        clock: Callable[[], float] = time.monotonic,
        obstacle: Callable[[], str | None] = lambda: None,
    ) -> None:
        """*obstacle* says why this process could not carry a batch out for now, None when it can. While there is one no batch is
        taken up, so that another process may; those that only have to be ended are."""
        self._obstacle, self._told_obstacle = obstacle, ""
        self._engine, self._store, self._owner, self._limits, self._clock = engine, store, owner, limits, clock
        self._retries = Retries(limits)
        self._woken = [asyncio.Event() for _ in range(limits.max_batches + 1)]
        """One a lane: each finds out for itself whether there is something."""
        self._working: set[str] = set()
        self._news: dict[str, BatchNews] = {}

    @property
    def num_working(self) -> int:
        """Batches that this process works on now."""
        return len(self._working)

    def wake(self) -> None:
        """There may be a batch to take up, or to end."""
        for woken in self._woken:
            woken.set()

    def news(self, batch_id: str) -> BatchNews | None:
        """How a batch that this process works on is getting on; None when it does not."""
        return self._news.get(batch_id)

    async def run(self) -> None:
        """Take up one batch after the other, as many at once as may be. Cancelled, it gives up what it has, to be taken up again.

        One lane more is for batches that only have to be ended: who cancels one that has not begun need not wait for those before it.
        """
        last = len(self._woken) - 1
        lanes = [
            asyncio.create_task(self._lane(woken, ending=number == last), name=f"batches {number}")
            for number, woken in enumerate(self._woken)
        ]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                if not lane.cancelling():  # a second time would break off what the first makes it do: giving its batch up
                    lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _lane(self, woken: asyncio.Event, *, ending: bool) -> None:
        while True:
            woken.clear()
            try:
                found = await self._next(ending=ending)
            except ConsiliumError as error:
                log.warning("batches cannot be looked for: %s", error)
                found = False
            except Exception:  # whatever it is: without this lane no batch would be taken up any more
                log.exception("batches cannot be looked for")
                found = False
            if not found:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.poll_s):
                        await woken.wait()

    async def _next(self, *, ending: bool) -> bool:
        """Whether there was a batch."""
        if not ending and self._is_hindered():
            return False
        # What another lane works on is left to it even when the lease has run out, while the database was away.
        besides = self._working | self._retries.resting(self._clock())
        # What only has to be ended may be a command's, which nobody goes on with.
        runner = None if ending else BatchRunner.SERVICE
        batch = await self._store.claim(self._owner, lease_s=self._limits.lease_s, runner=runner, besides=besides, ending=ending)
        if batch is None:
            return False
        self._working.add(batch.id)
        try:
            await self._carry_out(batch)
        finally:
            self._working.discard(batch.id)
            self._news.pop(batch.id, None)
        return True

    def _is_hindered(self) -> bool:
        """Whether batches are left to others, or for later; the log says so once."""
        why = self._obstacle() or ""
        if why != self._told_obstacle:
            log.warning("%s", f"no batch is taken up: {why}" if why else "batches are taken up again")
            self._told_obstacle = why
        return bool(why)

    async def _carry_out(self, batch: Batch) -> None:
        try:
            over = await self._engine.run(batch, lambda news: self._news.__setitem__(batch.id, news))
            self._retries.forget(batch.id)
            log.info("batch %s is %s: %d answered, %d failed", batch.id, over.state, over.counts.completed, over.counts.failed)
        except Exception as error:  # whatever it is: others have their turn, then it is tried again
            log.error("batch %s broke off: %s", batch.id, error, exc_info=None if isinstance(error, ConsiliumError) else error)
            await self._broke_off(batch, error)
        except asyncio.CancelledError:
            await self._released(batch)
            raise

    async def _broke_off(self, batch: Batch, error: Exception) -> None:
        if isinstance(error, (Conflict, NotFound)) and not await self._is_ours(batch):
            self._retries.forget(batch.id)  # another process has taken it over
            return
        if self._retries.broke_off(batch.id, self._clock(), by_a_bug=not isinstance(error, _MAY_PASS)):
            try:
                over = await self._engine.give_up(batch, error)
                self._retries.forget(batch.id)
                log.error("batch %s is given up after %d attempts: it is %s", batch.id, self._limits.max_breaks, over.state)
            except Exception as again:  # it is tried once more when it has rested
                log.error("batch %s cannot be given up: %s", batch.id, again, exc_info=again)
        await self._released(batch)

    async def _is_ours(self, batch: Batch) -> bool:
        try:
            await self._store.renew(batch.id, self._owner, lease_s=self._limits.lease_s)
        except (Conflict, NotFound):
            return False
        except ConsiliumError:
            return True
        return True

    async def _released(self, batch: Batch) -> None:
        """Another may take it up now; without a database its lease runs out."""
        with suppress(ConsiliumError, TimeoutError):
            async with asyncio.timeout(self._limits.last_write_s):
                await self._store.release(batch.id, self._owner)
