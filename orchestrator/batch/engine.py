"""One batch from its input file to its output files, through every kill.

    validating    read every line; one that is wrong fails the batch, with line numbers
    in_progress   route every line, plan, carry the plan out
    finalizing    write the output and the error file

Where it stands, and every line that is over, is in the journal; whatever else is known here can be found out again. So a batch
may be taken up at any point, by any process that has claimed it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from domain.batch import Batch, BatchError, BatchErrorCode, BatchState, InputLine, LineResult
from domain.errors import Conflict, ConsiliumError, ExpertUnavailable, NotFound, StorageError
from domain.plan import ExpertFailure
from orchestrator.batch.bucket_run import BucketRun
from orchestrator.batch.buckets import Bucket
from orchestrator.batch.ending import BatchFilesOf, close_lines
from orchestrator.batch.input_file import InputFile, InputLost
from orchestrator.batch.ledger import Ledger, writing
from orchestrator.batch.news import BatchNews, OnNews, Phase
from orchestrator.batch.parts import EngineParts
from orchestrator.batch.planning import plan_batch
from orchestrator.batch.ports import BatchJournal, ChatShape, DirectShape
from orchestrator.batch.reading import read_lines
from orchestrator.batch.routes import RouteTableBuilder
from orchestrator.batch.routing import chunks, route_all, tried
from orchestrator.batch.together import together
from orchestrator.batch.turns import Turns
from orchestrator.batch.waves import advance
from orchestrator.batch.work import BatchWork, BudgetSpent, NextCalls, Requests, request_id

log = logging.getLogger(__name__)


class BatchEngine:
    """Runs batches that *owner* has claimed. Keeps nothing of any."""

    def __init__(self, parts: EngineParts, *, owner: str, now: Callable[[], float] = time.time) -> None:
        self._parts, self._owner, self._now = parts, owner, now

    async def run(self, batch: Batch, on_news: OnNews = lambda _news: None) -> Batch:
        """Return when the batch is over. Raises ``Conflict`` when another process has taken it over, ``StorageError`` when the database
        stays away; it can be taken up again later. So it can after this was cancelled."""
        while not batch.state.is_final:
            batch = await self._step(batch, on_news)
        on_news(BatchNews(Phase.DONE, batch.counts))
        return batch

    async def _step(self, batch: Batch, on_news: OnNews) -> Batch:
        """From one state to the next."""
        store, journal = self._parts.store, self._parts.store.journal(batch.id, self._owner)
        try:
            match batch.state:
                case BatchState.VALIDATING:
                    return await self._validated(batch, journal, on_news)
                case BatchState.IN_PROGRESS:
                    return await self._worked(batch, journal, on_news)
                case _:
                    return await self._finished(batch, journal, on_news)
        except (InputLost, NotFound) as error:
            lost = BatchError(BatchErrorCode.INVALID_VALUE, f"the input file cannot be read any more: {error}", param="input_file_id")
            return await self._given_up(batch, lost)
        except Conflict:
            now = await store.renew(batch.id, self._owner, lease_s=self._parts.limits.lease_s)  # raises when it is another's by now
            if now.state is batch.state:
                raise
            return now  # it was asked to cancel in the same moment

    # --- validating ---

    async def _validated(self, batch: Batch, journal: BatchJournal, on_news: OnNews) -> Batch:
        errors: list[BatchError] = []
        on_news(BatchNews(Phase.READING, batch.counts))
        stopped = await self._watched(batch, self._read(batch, journal, errors))
        match stopped:
            case BatchErrorCode.EXPIRED:
                return await self._parts.store.enter(batch.id, BatchState.EXPIRED, owner=self._owner)
            case BatchErrorCode.CANCELLED:
                return await self._parts.store.get(batch.id)
            case _ if errors:
                await journal.drop_lines()  # nothing of it is run, so nothing of it is counted
                return await self._parts.store.enter(batch.id, BatchState.FAILED, owner=self._owner, errors=errors)
            case _:
                return await self._parts.store.enter(batch.id, BatchState.IN_PROGRESS, owner=self._owner)

    async def _read(self, batch: Batch, journal: BatchJournal, errors: list[BatchError]) -> None:
        shape = self._parts.shapes[batch.endpoint]
        check = shape.check if isinstance(shape, DirectShape) else partial(check_chat, shape)
        file = await self._parts.files.open(batch.input_file_id)
        try:
            async for lines, wrong in read_lines(file, batch.endpoint, self._parts.limits, check):
                errors += wrong
                if lines and not errors:
                    await journal.keep_lines(lines)
        finally:
            file.close()

    # --- in progress ---

    async def _worked(self, batch: Batch, journal: BatchJournal, on_news: OnNews) -> Batch:
        try:
            stopped = await self._watched(batch, self._work(batch, journal, on_news))
        except BudgetSpent:
            stopped = BatchErrorCode.BUDGET
        if stopped is BatchErrorCode.CANCELLED:
            return await self._parts.store.get(batch.id)
        if stopped is not None:
            await self._watched(batch, close_lines(batch, journal, self._parts, stopped), may_stop=False)
        else:
            await _require_results(batch, journal)
        return await self._parts.store.enter(batch.id, BatchState.FINALIZING, owner=self._owner)

    async def _work(self, batch: Batch, journal: BatchJournal, on_news: OnNews) -> None:
        limits, shape = self._parts.limits, self._parts.shapes[batch.endpoint]
        counts = batch.counts

        def written(now: Batch) -> None:
            nonlocal counts
            counts = now.counts

        with InputFile(await self._parts.files.open(batch.input_file_id)) as file:
            async with writing(journal, limits, on_written=written, on_lines=self._parts.on_lines) as ledger:
                if isinstance(shape, DirectShape):
                    await self._answer_directly(batch, shape, file, journal, ledger)
                    return
                requests = Requests(
                    batch.id, batch.options, shape, self._parts.lines, self._parts.wire_error, rights=self._parts.rights_of(batch)
                )
                routed = await route_all(
                    requests=requests, file=file, journal=journal, ledger=ledger, limits=limits, options=batch.options,
                    on_routed=lambda num: on_news(BatchNews(Phase.ROUTING, counts, num_routed=num)),
                )  # fmt: skip
                builder, numbers, cascades, num_tokens = routed.builder, routed.numbers, routed.cascades, batch.usage.total_tokens
                known: NextCalls = {}
                while numbers or cascades:
                    climbs = await advance(
                        cascades, known=known, requests=requests, file=file, journal=journal, ledger=ledger, limits=limits
                    )  # fmt: skip
                    for number, calls in climbs.items():
                        builder.add([expert_id for _, expert_id in calls])
                        numbers.append(number)
                    work = BatchWork(
                        builder.build(), numbers,
                        requests=requests, file=file, journal=journal, ledger=ledger, limits=limits, max_tokens=batch.options.max_tokens,
                        positions={number: [position for position, _ in calls] for number, calls in climbs.items()},
                    )  # fmt: skip
                    work.spent(num_tokens)
                    await self._run_calls(work, lambda news: on_news(replace(news, counts=counts)))
                    builder, numbers, num_tokens, known = RouteTableBuilder(), array("I"), work.num_tokens, work.climbing
                    cascades = array("I", known)

    async def _run_calls(self, work: BatchWork, on_news: OnNews) -> None:
        parts, table = self._parts, work.table
        await work.resume()
        await work.finish()
        host = parts.fleet.host(table.expert_ids)
        plan = await asyncio.to_thread(plan_batch, table, host, work.progress)  # seconds, for a large batch
        for expert_id, why in plan.impossible.items():
            failure = ExpertFailure(expert_id, ExpertUnavailable.code, why, expert_at_fault=False)
            await work.fail(work.pending_of(expert_id), failure)
        await work.finish()
        try:
            await Turns(plan, work, parts.fleet, parts.limits, make_run=partial(self._bucket_run, work), on_news=on_news).run()
        finally:
            parts.fleet.expect(())
        await work.finish()

    def _bucket_run(self, work: BatchWork, bucket: Bucket, on_settled: Callable[[], None]) -> BucketRun:
        card = self._parts.directory.snapshot().experts.get(bucket.expert_id)
        return BucketRun(
            bucket, work, self._parts.workers, self._parts.limits,
            max_in_flight=card.max_in_flight if card else 1, on_settled=on_settled,
        )  # fmt: skip

    async def _answer_directly(self, batch: Batch, shape: DirectShape, file: InputFile, journal: BatchJournal, ledger: Ledger) -> None:
        """Lines that call no expert: as many at once as are routed at once elsewhere."""
        wire_error, places = self._parts.wire_error, asyncio.Semaphore(self._parts.limits.route_at_once)
        rights = self._parts.rights_of(batch)

        async def one(line: InputLine) -> None:
            async with places:
                if rights.is_spent:  # the lines that are being answered are paid for: they may end
                    return
                (body,) = await file.bodies([line])
                number, asked_as = line.line.number, request_id(batch.id, line.line.number)
                try:
                    rights.require()
                    answer = await tried(lambda: shape.answer(body, asked_as), self._parts.limits)
                    rights.counted(answer)
                    result = LineResult(number, asked_as, 200, body=answer)
                except ConsiliumError as error:
                    status, told = wire_error(error)
                    result = LineResult(number, asked_as, status, error=told)
            await ledger.line_ended(result)

        async for chunk in chunks(journal.pending(), self._parts.limits.chunk_lines):
            await together(*(one(line.input) for line in chunk))
            if rights.is_spent:
                raise BudgetSpent

    # --- the end ---

    async def _finished(self, batch: Batch, journal: BatchJournal, on_news: OnNews) -> Batch:
        on_news(BatchNews(Phase.WRITING, batch.counts))
        files = BatchFilesOf(batch, journal, self._parts)

        async def write() -> None:
            if batch.state is BatchState.CANCELLING:
                await close_lines(batch, journal, self._parts, BatchErrorCode.CANCELLED)
            await files.write()

        final = BatchState.CANCELLED if batch.state is BatchState.CANCELLING else BatchState.COMPLETED
        async with files:
            await self._watched(batch, write(), may_stop=False)
            if final is BatchState.COMPLETED and BatchErrorCode.EXPIRED in files.codes:
                final = BatchState.EXPIRED
            return await self._entered(batch, final, files)

    async def give_up(self, batch: Batch, why: Exception) -> Batch:
        """End a claimed batch that cannot be carried out: what was answered is written, if that much can be done."""
        message = f"internal error ({type(why).__name__}), the log has the details; lines that were answered before are in the output file"
        return await self._given_up(batch, BatchError(BatchErrorCode.INTERNAL, message))

    async def _given_up(self, batch: Batch, error: BatchError) -> Batch:
        batch = await self._parts.store.get(batch.id)
        if batch.state.is_final:
            return batch
        journal = self._parts.store.journal(batch.id, self._owner)
        final = BatchState.CANCELLED if batch.state is BatchState.CANCELLING else BatchState.FAILED
        async with BatchFilesOf(batch, journal, self._parts) as files:

            async def write() -> None:
                try:
                    await close_lines(batch, journal, self._parts, BatchErrorCode.INTERNAL)
                    await files.write()
                except Exception as another:  # what broke the batch may be what writes its files
                    log.error("batch %s is given up without its files: %s", batch.id, another, exc_info=another)

            await self._watched(batch, write(), may_stop=False)
            return await self._entered(batch, final, files, errors=(error,))

    async def _entered(self, batch: Batch, final: BatchState, files: BatchFilesOf, *, errors: tuple[BatchError, ...] = ()) -> Batch:
        files.may_be_named = True  # a commit whose answer is lost has happened all the same
        try:
            return await self._parts.store.enter(
                batch.id, final, owner=self._owner, errors=errors, output_file_id=files.output_file_id, error_file_id=files.error_file_id
            )
        except Conflict:
            files.may_be_named = False
            raise

    # --- what can come between ---

    async def _watched(self, batch: Batch, work: Coroutine[Any, Any, None], *, may_stop: bool = True) -> BatchErrorCode | None:
        """Run *work*, with the batch kept ours. None when it ended by itself, else why it was stopped; raises what it raised."""
        if may_stop and self._now() >= batch.expires_at:  # whatever keeps it from working does not keep it from ending
            work.close()
            return BatchErrorCode.EXPIRED
        worker, watcher = asyncio.ensure_future(work), asyncio.ensure_future(self._watch(batch, may_stop=may_stop))
        try:
            await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
                return None
            return watcher.result()
        finally:
            for task in (worker, watcher):
                task.cancel()
            await asyncio.gather(worker, watcher, return_exceptions=True)

    async def _watch(self, batch: Batch, *, may_stop: bool) -> BatchErrorCode:
        """Return when the batch has to stop. Raises ``Conflict`` when it is somebody else's. A database that is away for a moment says
        nothing about either; the journal notices when it stays away."""
        limits = self._parts.limits
        while True:
            with suppress(StorageError):
                now = await self._parts.store.renew(batch.id, self._owner, lease_s=limits.lease_s)
                if may_stop and now.state is BatchState.CANCELLING:
                    return BatchErrorCode.CANCELLED
            left_s = batch.expires_at - self._now()
            if may_stop and left_s <= 0:
                return BatchErrorCode.EXPIRED
            await asyncio.sleep(min(limits.watch_s, left_s) if may_stop else limits.watch_s)


async def _require_results(batch: Batch, journal: BatchJournal) -> None:
    """No line may be lost: one that is over for the engine and not for the journal is a bug, and is told as one."""
    async for line in journal.pending():
        raise RuntimeError(f"line {line.input.line.number} of batch {batch.id} has no result, though no call is left")


def check_chat(shape: ChatShape, body: Mapping[str, Any]) -> None:
    """Raise ``RequestError`` for a body that *shape* does not take."""
    shape.request(body, "check")
