"""What has ended and is not durable yet: collected, and written together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from domain.batch import Batch, KeptCall, LineResult
from domain.errors import Conflict, ConsiliumError, StorageError
from orchestrator.batch.limits import BatchLimits
from orchestrator.batch.ports import BatchJournal

log = logging.getLogger(__name__)

T = TypeVar("T")

OnLines = Callable[[int, int], None]
"""Hears how many lines were answered, and how many were not, that have just become durable."""


def uncounted(_num_completed: int, _num_failed: int) -> None:
    """For who does not want to know."""


def tell_lines(on_lines: OnLines, results: Sequence[LineResult]) -> None:
    """Tell *on_lines* what became of *results*, which are durable."""
    if results:
        num_failed = sum(result.error is not None for result in results)
        on_lines(len(results) - num_failed, num_failed)


async def patiently(attempt: Callable[[], Awaitable[T]], limits: BatchLimits) -> T:
    """What *attempt* comes to; while the database is away it is made again. Raises ``StorageError`` when it stays away.

    For what happens while calls run: a batch that broke off would have to make them again.
    """
    pause_s, give_up_at = 0.1, time.monotonic() + limits.storage_patience_s
    while True:
        try:
            return await attempt()
        except StorageError as error:
            if time.monotonic() + pause_s > give_up_at:
                raise
            log.warning("a batch's journal cannot be reached and is tried again in %.1f s: %s", pause_s, error)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, 5.0)


@asynccontextmanager
async def writing(
    journal: BatchJournal,
    limits: BatchLimits,
    *,
    on_written: Callable[[Batch], None] = lambda _batch: None,
    on_lines: OnLines = uncounted,
) -> AsyncIterator[Ledger]:
    """A ledger that writes for as long as the block lasts, and at its end what is left, as far as there is time."""
    ledger = Ledger(journal, limits, on_written=on_written, on_lines=on_lines)
    writer = asyncio.create_task(ledger.run(), name="journal of a batch")
    try:
        yield ledger
    finally:
        with suppress(TimeoutError, ConsiliumError, JournalBroken):  # what cannot be written now is done again
            async with asyncio.timeout(limits.last_write_s):
                await ledger.flush()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


class JournalBroken(Exception):
    """The journal refuses what it is given: trying again would not help."""


class Ledger:
    """One batch's way to its journal. One commit takes what has come in meanwhile (group commit), since a commit costs as much
    for one line as for a hundred. A database that is away is tried again; what ends meanwhile waits, within a bound.

    ``run`` writes until it is cancelled; whoever uses the ledger must see to it that it runs.
    """

    def __init__(
        self, journal: BatchJournal, limits: BatchLimits, *, on_written: Callable[[Batch], None], on_lines: OnLines = uncounted
    ) -> None:
        self._journal, self._limits, self._on_written, self._on_lines = journal, limits, on_written, on_lines
        self._calls: dict[tuple[int, int], KeptCall] = {}
        self._results: dict[int, LineResult] = {}
        self._num_calls = 0
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._written = asyncio.Condition()
        self._num_entered = self._num_written = 0
        self._failure: BaseException | None = None

    async def call_ended(self, call: KeptCall) -> None:
        """Keep it. Returns at once, unless too much is unwritten. Raises what writing has failed with for good."""
        self._calls[call.number, call.position] = call
        await self._entered()

    async def line_ended(self, result: LineResult) -> None:
        """The same for a whole line."""
        self._results[result.number] = result
        await self._entered()

    def count_calls(self, num_calls: int) -> None:
        """Calls that were made, whatever came of them; told with the next write."""
        self._num_calls += num_calls

    async def flush(self) -> None:
        """Return when everything that was entered until now is durable. Raises what writing has failed with for good."""
        if self._num_calls:
            self._num_entered += 1
            self._work.set()
        entered = self._num_entered
        self._hurry.set()
        await self._until(lambda: self._num_written >= entered)

    async def run(self) -> None:
        """Write, until cancelled. Raises when writing fails for good."""
        try:
            while True:
                await self._work.wait()
                await self._gathered()
                await self._write()
        except BaseException as error:
            self._failure = error
            async with self._written:
                self._written.notify_all()
            raise

    async def _entered(self) -> None:
        self._num_entered += 1
        self._work.set()
        if self._num_entered - self._num_written > self._limits.max_unwritten:
            await self._until(lambda: self._num_entered - self._num_written <= self._limits.max_unwritten)

    async def _until(self, done: Callable[[], bool]) -> None:
        async with self._written:
            await self._written.wait_for(lambda: done() or self._failure is not None)
        if not done() and self._failure is not None:
            raise self._closed(self._failure) from self._failure

    @staticmethod
    def _closed(failure: BaseException) -> Exception:
        """What *failure* means for whoever has something to write: the database is away, the batch is another's, or there is a bug."""
        match failure:
            case Conflict():
                return Conflict(failure.message)
            case StorageError():
                return StorageError(failure.message, public=failure.public)
            case Exception():
                return JournalBroken(f"the batch's journal cannot be written: {failure}")
            case _:
                return StorageError("the batch's journal is closed")

    async def _gathered(self) -> None:
        """A moment for others to join, unless somebody waits."""
        try:
            async with asyncio.timeout(self._limits.write_every_s):
                await self._hurry.wait()
        except TimeoutError:
            pass
        self._hurry.clear()

    async def _write(self) -> None:
        self._work.clear()
        calls, results, num_calls, num = tuple(self._calls.values()), tuple(self._results.values()), self._num_calls, self._num_entered
        self._calls, self._results, self._num_calls = {}, {}, 0
        batch = await self._kept(calls, results, num_calls)
        self._on_written(batch)
        tell_lines(self._on_lines, results)
        async with self._written:
            self._num_written = num
            self._written.notify_all()

    async def _kept(self, calls: tuple[KeptCall, ...], results: tuple[LineResult, ...], num_calls: int) -> Batch:
        return await patiently(lambda: self._journal.keep(calls, results, num_calls=num_calls), self._limits)
