"""Traces in the database, written behind the requests' backs."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Conflict, ConsiliumError, InvalidRequest, NotFound
from domain.routing import RoutingDecision
from domain.trace import Trace
from experts_registry import trace_rows, traffic
from experts_registry.database import Database
from experts_registry.tables import trace_experts, trace_vectors, traces
from experts_registry.trace_privacy import hashed, without_texts
from experts_registry.whole_connection import to_the_end

logger = logging.getLogger(__name__)

_MAX_BATCH = 1024
"""Traces in one transaction, which do not wait for others to join. Beside busy requests a transaction takes a fifth of a second, however
few it writes, in which requests take longer."""
_MAX_BATCH_BYTES = 4 * 2**20
"""Their size together: what is written holds the database, and the batch is in memory twice."""
_MAX_DELETED = 500
"""Traces that are forgotten in one transaction."""
_MAX_RETRY_S = 30.0
"""Longest pause after a failed write; the pause doubles up to this."""
_NEWEST_TIMEOUT_S = 5.0
"""Longest wait for a trace that is on its way to the database."""
_OTHERS_WRITE_S = 0.3
"""How long another process of the service may take to write what it has gathered, when it was the one that answered."""
_RETRY_AT_END_S = 0.1
"""Pause after a failed write while the service ends."""
_AT_ONCE_BYTES = 4096
"""A smaller trace, of a request that nothing had to be weighed for, becomes a row when it is emitted. That takes 13 us, all that is in the
processor's reach by then; in a thread, which fights with the event loop for the interpreter and has it fetched from another processor, it
took 85 us of both at 64 connections."""

_Row = tuple[dict[str, Any], list[dict[str, Any]]]
"""The columns of a trace, and those of its calls."""


class _Queued:
    """A trace that waits, or its row, and about how many bytes it holds."""

    __slots__ = ("_row", "is_new", "request_id", "size", "trace")

    def __init__(self, trace: Trace) -> None:
        self.request_id, self.size = trace.request_id, trace_rows.size_of(trace)
        self.is_new = True
        """Nobody has tried to write it."""
        self.trace: Trace | None = trace
        self._row: _Row | None = None
        if self.size <= _AT_ONCE_BYTES and _is_plain(trace.decision):
            self._row, self.trace = _row_of(trace), None  # the row is one piece of memory, a trace fifty that would all be let go of cold

    @property
    def row(self) -> _Row:
        """Made now, where it was not made at once."""
        return _row_of(self.trace) if self.trace is not None else self._row or ({}, [])


class TraceStore:
    """Satisfies ``orchestrator.ports.TraceSink``: ``emit`` puts into memory, a task of its own writes batches.

    A batch takes what comes within *gather_s*. While the database cannot be written, traces wait; when *max_queued* wait, or
    *max_queued_bytes*, the oldest are dropped and counted in ``num_dropped``. A failed write is tried again after *first_retry_s*,
    then less and less often. ``close`` writes what waits, for at most *close_timeout_s*.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_queued: int = 10_000,
        max_queued_bytes: int = 64 * 2**20,
        close_timeout_s: float = 5.0,
        first_retry_s: float = 0.5,
        gather_s: float = 1.0,
        encoder_id: Callable[[], str] | None = None,
        content_key: bytes | None = None,
    ) -> None:
        """*encoder_id*: whose vectors the decisions carry; None: vectors are not kept. *content_key*: texts are kept hashed with it;
        None: as they come."""
        self._database = database
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._close_timeout_s = close_timeout_s
        self._first_retry_s = first_retry_s
        self._gather_s = gather_s
        self._encoder_id = encoder_id
        self._content_key = content_key
        self._failing = False
        self._arrived = asyncio.Event()
        self._hurry = asyncio.Event()
        self._num_waiting = 0
        """Who waits until everything is written."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self.num_dropped = 0
        """Traces that were never written, since the start."""

    @property
    def num_queued(self) -> int:
        """Traces that wait to be written."""
        return len(self._queue)

    def emit(self, trace: Trace) -> None:
        """Take *trace*; never blocks, never raises. To be called on the event loop."""
        kept = trace_rows.compact(self._readable(trace))
        queued = _Queued(kept)
        self._queue.append(queued)
        self._queued_bytes += queued.size
        self._drop_oldest_over_limit()
        self._idle.clear()
        self._arrived.set()
        if self._has_a_batch:
            self._hurry.set()

    @property
    def _has_a_batch(self) -> bool:
        """Whether as much waits as one transaction takes."""
        return len(self._queue) >= _MAX_BATCH or self._queued_bytes >= _MAX_BATCH_BYTES

    def _readable(self, trace: Trace) -> Trace:
        """*trace* with those of its texts that may be kept."""
        if self._content_key is not None:
            return hashed(trace, self._content_key)
        return trace if trace.messages is not None else without_texts(trace)

    async def start(self) -> None:
        """Begin to write."""
        if self._writer is None:
            self._closing.clear()
            self._writer = asyncio.create_task(self._write_forever(), name="trace writer")

    async def flush(self) -> None:
        """Return when everything emitted so far is written or dropped. Wants a limit of the caller's when the database is down."""
        await asyncio.sleep(0)  # what is handed over when this turn of the loop ends was emitted before
        self._num_waiting += 1
        try:
            self._hurry.set()
            await self._idle.wait()
        finally:
            self._num_waiting -= 1

    async def close(self) -> None:
        """Write what waits and stop. What cannot be written in time is counted as dropped."""
        if self._writer is None:
            return
        self._closing.set()
        self._hurry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_timeout_s):
                await self._idle.wait()
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._writer = None
        if self._queue:
            logger.warning("%d traces could not be written before the end", len(self._queue))
            self.num_dropped += len(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            self._idle.set()

    async def list(
        self,
        *,
        request_id: str | None = None,
        model: str | None = None,
        strategy: str | None = None,
        expert_id: str | None = None,
        status: str | None = None,
        error_code: str | None = None,
        judged: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> builtins.list[Trace]:
        """Traces that meet every filter given, newest first; the page after the one that ended with the trace *after*.

        *judged* is ``good`` or ``bad``. *since* and *until* are seconds since the epoch, the latter exclusive. Raises ``NotFound``
        when there is no trace *after* (any more).
        """
        conditions = [
            column == wanted
            for column, wanted in (
                (traces.c.request_id, request_id),
                (traces.c.model, model),
                (traces.c.strategy, strategy),
                (traces.c.status, status),
                (traces.c.error_code, error_code),
                (traces.c.judged, judged),
            )
            if wanted is not None
        ]
        async with self._database.reading() as connection:
            last = None if after is None else await _one(connection, after)
            if expert_id is None:
                conditions += _within(traces.c.started_at, traces.c.id, since, until, last)
                return await trace_rows.select(connection, conditions, limit=limit)
            # One index of the calls has an expert's in their order: the newest are read from it, not chosen from all that it ever made.
            called = trace_experts.c
            of_expert = [called.expert_id == expert_id, *_within(called.started_at, called.trace_id, since, until, last)]
            return await trace_rows.select_called(connection, of_expert, conditions, limit=limit)

    async def get(self, trace_id: str) -> Trace:
        """Raises ``NotFound``."""
        async with self._database.reading() as connection:
            return await _one(connection, trace_id)

    async def newest(self, request_id: str) -> Trace:
        """The newest trace of the requests with that id, as soon as it is written. Raises ``NotFound``."""
        if found := await self.list(request_id=request_id, limit=1):
            return found[0]
        if not self._idle.is_set():  # the answer may have been given a moment ago
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.flush(), _NEWEST_TIMEOUT_S)
            if found := await self.list(request_id=request_id, limit=1):
                return found[0]
        await asyncio.sleep(self._gather_s + _OTHERS_WRITE_S)
        if found := await self.list(request_id=request_id, limit=1):
            return found[0]
        raise NotFound(f"there is no trace of a request {request_id!r} (any more)", param="request_id")

    async def vector(self, trace_id: str) -> tuple[str, bytes] | None:
        """The encoder, and what it made of the text that was routed; None where that was not kept."""
        async with self._database.reading() as connection:
            statement = sa.select(trace_vectors.c.encoder_id, trace_vectors.c.vector).where(trace_vectors.c.trace_id == trace_id)
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else (row.encoder_id, row.vector)

    async def delete(self, trace_id: str) -> None:
        """Forget one request. Raises ``NotFound``."""
        async with self._database.session() as connection:
            await _one(connection, trace_id)
            await connection.execute(traces.delete().where(traces.c.id == trace_id))

    async def delete_before(self, timestamp: float) -> int:
        """Forget the traces of requests that began before *timestamp* (seconds since the epoch); returns how many."""
        num_deleted = 0
        oldest = sa.select(traces.c.id).where(traces.c.started_at < timestamp).order_by(traces.c.started_at, traces.c.id)
        while True:  # a transaction each: none holds the database for long, and what is deleted stays so whatever becomes of the rest
            async with self._database.session() as connection:
                ids = (await connection.scalars(oldest.limit(_MAX_DELETED))).all()
                await connection.execute(traces.delete().where(traces.c.id.in_(ids)))
            num_deleted += len(ids)
            if len(ids) < _MAX_DELETED:
                break
        async with self._database.session() as connection:
            await traffic.forget(connection, timestamp)
        return num_deleted

    async def _write_forever(self) -> None:
        retry_s = self._first_retry_s
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self._gathered()
            while self._queue:
                if await self._write_batch():
                    retry_s = self._first_retry_s
                    if self._queue:
                        await self._gathered()
                else:
                    await self._pause(retry_s)
                    retry_s = min(retry_s * 2, _MAX_RETRY_S)
            self._idle.set()

    async def _gathered(self) -> None:
        """A moment for others to join, unless somebody waits or enough have: one transaction costs as much as fifty traces, and requests
        that come while it is made take longer."""
        if not (self._num_waiting or self._closing.is_set() or self._has_a_batch):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._gather_s):
                    await self._hurry.wait()
        self._hurry.clear()

    async def _write_batch(self) -> bool:
        """Write the oldest traces that wait; False when they have to wait longer."""
        batch = self._next_batch()
        written = asyncio.ensure_future(self._write(batch))
        try:
            await to_the_end(written)
        except (InvalidRequest, Conflict):  # what none can hold, or one that is there already
            await self._write_one_by_one(batch)
        except ConsiliumError as error:
            if not self._failing:
                logger.warning("traces cannot be written, they wait in memory: %s", error)
            self._failing = True
            self._put_back(batch)
            return False
        except asyncio.CancelledError:
            if written.cancelled() or written.exception() is not None:  # else it was written nevertheless
                self._put_back(batch)
            raise
        except Exception:
            # A fault of ours with these traces: the ones to come must not suffer from it.
            logger.exception("%d traces could not be written", len(batch))
            self.num_dropped += len(batch)
        self._failing = False
        return True

    def _next_batch(self) -> builtins.list[_Queued]:
        """The oldest that wait, as many as fit, at least one."""
        batch: builtins.list[_Queued] = []
        size = 0
        while self._queue and len(batch) < _MAX_BATCH and (not batch or size + self._queue[0].size <= _MAX_BATCH_BYTES):
            size += self._queue[0].size
            batch.append(self._queue.popleft())
        self._queued_bytes -= size
        return batch

    async def _write_one_by_one(self, batch: Sequence[_Queued]) -> None:
        """One trace holds what the database refuses: keep the others."""
        for queued in batch:
            try:
                await self._write([queued])
            except ConsiliumError as error:
                logger.warning("the trace of request %r could not be written: %s", queued.request_id, error)
                self.num_dropped += 1

    async def _write(self, batch: Sequence[_Queued]) -> None:
        vectors, is_new = self._vectors_of(batch), all(queued.is_new for queued in batch)
        for queued in batch:
            queued.is_new = False

        def write(connection: sa.Connection, rows: builtins.list[_Row]) -> None:
            again = trace_rows.write(connection, rows, vectors, is_new=is_new)
            traffic.add(connection, [(row, calls) for row, calls in rows if row["id"] not in again])

        await self._database.made_and_written(partial(_rows_of, batch), write)

    def _vectors_of(self, batch: Sequence[_Queued]) -> trace_rows.Vectors:
        if self._encoder_id is None:
            return {}
        whole = (queued.trace for queued in batch if queued.trace is not None)
        found = {trace.id: vector for trace in whole if (vector := trace_rows.vector_of(trace)) is not None}
        encoder_id = self._encoder_id() if found else ""  # not known before a first vector was made
        return {trace_id: (encoder_id, vector) for trace_id, vector in found.items()}

    def _put_back(self, batch: Sequence[_Queued]) -> None:
        self._queue.extendleft(reversed(batch))
        self._queued_bytes += sum(queued.size for queued in batch)
        self._drop_oldest_over_limit()

    def _drop_oldest_over_limit(self) -> None:
        while len(self._queue) > self._max_queued or self._queued_bytes > self._max_queued_bytes:
            self._queued_bytes -= self._queue.popleft().size
            self.num_dropped += 1

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try. The end of the service cuts a long wait short."""
        if self._closing.is_set():
            await asyncio.sleep(_RETRY_AT_END_S)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)


def _rows_of(batch: Sequence[_Queued]) -> list[_Row]:
    return [queued.row for queued in batch]


def _row_of(trace: Trace) -> _Row:
    return trace_rows.to_row(trace), trace_rows.calls_of(trace)


def _is_plain(decision: RoutingDecision | None) -> bool:
    """Whether nobody was compared with others, and nothing is put into words only when it is read: it was clear who is asked."""
    return decision is None or (len(decision.considered) <= 1 and decision.vector is None and decision.is_detailed)


def _within(
    at: sa.ColumnElement[float], trace_id: sa.ColumnElement[str], since: float | None, until: float | None, last: Trace | None
) -> list[sa.ColumnElement[bool]]:
    """From *since* on, before *until*, and behind *last* in a list that begins with the newest."""
    conditions: list[sa.ColumnElement[bool]] = []
    if since is not None:
        conditions.append(at >= since)
    if until is not None:
        conditions.append(at < until)
    if last is not None:
        conditions.append(sa.tuple_(at, trace_id) < sa.tuple_(sa.literal(last.started_at), sa.literal(last.id)))
    return conditions


async def _one(connection: AsyncConnection, trace_id: str) -> Trace:
    found = await trace_rows.select(connection, [traces.c.id == trace_id], limit=1)
    if not found:
        raise NotFound(f"there is no trace {trace_id!r} (any more)", param="trace_id")
    return found[0]
