"""What each key used: counted in memory as requests end, added to the database in groups."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from domain.errors import ConsiliumError
from domain.experts import ExpertCard
from domain.spending import NOTHING, Spent, cost, day_of
from domain.trace import Trace
from experts_registry.database import Database
from experts_registry.questions import chunks
from experts_registry.tables import key_usage

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
"""How often what was counted is written, and what other processes have written is read."""
FORGET_S = 600.0
"""A key that nobody has used for so long has its sums read anew when it comes again."""
CLOSE_TIMEOUT_S = 5.0
"""Longest time for the last write: under what orchestrators leave after SIGTERM."""
_MAX_ASKED = 10_000
"""Sums that wait to be read: as many as keys that are likely to be used in one second."""
_REQUESTS = ""
"""The expert under which requests stand, as apart from calls."""
_COUNTS = ("num_requests", "num_calls", "num_failed", "prompt_tokens", "completion_tokens", "nano_usd")

Row = tuple[str, str, str]
"""Key, day and expert."""


@dataclass(slots=True)
class UsageCount:
    """What one key used of one expert on one day."""

    num_requests: int = 0
    num_calls: int = 0
    num_failed: int = 0
    """Requests, or calls, that gave no answer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    nano_usd: int = 0
    last_at: float = 0.0

    def add(self, other: UsageCount) -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_at = max(self.last_at, other.last_at)


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """One row of what was used."""

    key_id: str
    day: str
    expert_id: str | None
    """None: the key's requests; a call belongs to its expert."""
    count: UsageCount


@dataclass(slots=True)
class _Sums:
    """What one key has spent by period, as far as it was asked for."""

    used_at: float
    stored: dict[str, Spent] = field(default_factory=dict)


class UsageLedger:
    """Satisfies ``orchestrator.ports.TraceSink`` and ``orchestrator.admission.ports.Ledger``.

    Counts wait in memory while the database cannot be written: they add up, so they take no more room with time. ``close`` writes what
    waits. *card_of* tells what a call costs.
    """

    def __init__(
        self,
        database: Database,
        card_of: Callable[[str], ExpertCard | None],
        *,
        now: Callable[[], float] = time.time,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._database, self._card_of, self._now, self._flush_s = database, card_of, now, flush_s
        self._pending: dict[Row, UsageCount] = {}
        self._writing: dict[Row, UsageCount] = {}
        self._sums: dict[str, _Sums] = {}
        self._asked: set[tuple[str, str]] = set()
        """What was asked for and is not known, to be read next."""
        self._lock = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._flushing: set[asyncio.Task[None]] = set()
        self._is_failing = False

    def emit(self, trace: Trace) -> None:
        """Count the calls of *trace*, if it came with a key."""
        if trace.key_id is None:
            return
        day, ended_at = day_of(trace.started_at), self._now()
        for call in trace.calls:
            if call.status == "skipped":
                continue
            usage, card = call.usage, self._card_of(call.expert_id)
            counted = UsageCount(
                num_calls=1,
                num_failed=int(call.status != "ok"),
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                nano_usd=0 if card is None else cost(card.price, usage),
                last_at=ended_at,
            )
            self._add((trace.key_id, day, call.expert_id[:64]), counted)
        self._add((trace.key_id, day, _REQUESTS), UsageCount(num_requests=1, num_failed=int(trace.status != "ok"), last_at=ended_at))

    def count(self, key_id: str, expert_id: str, prompt_tokens: int, *, started_at: float) -> None:
        """Count a request that leaves no trace, and its one call."""
        day, ended_at = day_of(started_at), self._now()
        self._add((key_id, day, expert_id[:64]), UsageCount(num_calls=1, prompt_tokens=prompt_tokens, last_at=ended_at))
        self._add((key_id, day, _REQUESTS), UsageCount(num_requests=1, last_at=ended_at))

    def _add(self, row: Row, counted: UsageCount) -> None:
        known = self._pending.get(row)
        if known is None:
            self._pending[row] = counted
        else:
            known.add(counted)

    # --- sums, for budgets ---

    def spent(self, key_id: str, period: str) -> Spent | None:
        """What the key has spent in *period* (a day or a month), by every process as last read and by this one up to now; None when it
        was not read yet: ``load`` does at once, and the next flush if nobody does."""
        sums = self._sums.get(key_id)
        if sums is None or (stored := sums.stored.get(period)) is None:
            if len(self._asked) < _MAX_ASKED:
                self._asked.add((key_id, period))
            return None
        sums.used_at = self._now()
        total = stored
        for unwritten in (self._pending, self._writing):
            for (key, day, _), counted in unwritten.items():
                if key == key_id and day.startswith(period):
                    total += Spent(counted.prompt_tokens + counted.completion_tokens, counted.nano_usd)
        return total

    async def load(self, key_id: str, period: str) -> Spent:
        """``spent``, read from the database. Raises ``StorageError``."""
        async with self._lock:
            stored = await self._read([key_id], [period])
            sums = self._sums.setdefault(key_id, _Sums(self._now()))
            sums.stored[period] = stored.get((key_id, period), NOTHING)
        return self.spent(key_id, period) or NOTHING

    async def _read(self, key_ids: Sequence[str], periods: Sequence[str]) -> dict[tuple[str, str], Spent]:
        found: dict[tuple[str, str], Spent] = {}
        tokens = sa.func.sum(key_usage.c.prompt_tokens + key_usage.c.completion_tokens)
        async with self._database.reading() as connection:
            for period in periods:
                for some in chunks(list(key_ids)):
                    statement = (
                        sa.select(key_usage.c.key_id, tokens, sa.func.sum(key_usage.c.nano_usd))
                        .where(key_usage.c.key_id.in_(some), key_usage.c.day.startswith(period))
                        .group_by(key_usage.c.key_id)
                    )
                    for key_id, num_tokens, nano in await connection.execute(statement):
                        found[key_id, period] = Spent(int(num_tokens), int(nano))
        return found

    # --- writing ---

    async def start(self) -> None:
        """Begin to write."""
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_forever(), name="key usage writer")

    async def close(self) -> None:
        """Write what waits, and stop."""
        if self._writer is None:
            return
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._writer = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._flush()
        if self._pending:
            logger.error("what %d keys used was not written before the end", len({key for key, _, _ in self._pending}))

    async def flush(self) -> None:
        """Write what was counted so far. Raises ``StorageError``; then it is still counted."""
        if self._pending or self._lock.locked():
            # Who waits may be cancelled, at the end of the service or because a client left. The transaction is not: it may be committed
            # by then, and what is counted on after that would be written twice.
            task = asyncio.create_task(self._write_pending(), name="write key usage")
            self._flushing.add(task)
            task.add_done_callback(self._flushed)
            await asyncio.shield(task)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._flushing.discard(task)
        if not task.cancelled():
            task.exception()  # told to who waits, if anybody still does

    async def _write_pending(self) -> None:
        async with self._lock:
            if not self._pending:
                return
            self._writing, self._pending = self._pending, {}
            try:
                async with self._database.session() as connection:
                    statement = _adding(self._database.is_sqlite)
                    for some in chunks([_to_row(row, counted) for row, counted in self._writing.items()]):
                        await connection.execute(statement, some)
            except BaseException:
                written, self._writing = self._writing, {}
                for row, counted in written.items():
                    self._add(row, counted)
                raise
            for (key_id, day, _), counted in self._writing.items():
                self._written(key_id, day, Spent(counted.prompt_tokens + counted.completion_tokens, counted.nano_usd))
            self._writing = {}

    def _written(self, key_id: str, day: str, spent: Spent) -> None:
        """What was written counts as stored until the sums are read again."""
        sums = self._sums.get(key_id)
        if sums is not None:
            for period, stored in sums.stored.items():
                if day.startswith(period):
                    sums.stored[period] = stored + spent

    async def _refresh(self) -> None:
        """See what other processes have written."""
        now = self._now()
        today = day_of(now)
        asked, self._asked = self._asked, set()
        self._sums = {key_id: sums for key_id, sums in self._sums.items() if now - sums.used_at < FORGET_S}
        if not (asked or self._sums):
            return
        async with self._lock:
            # What is asked for is told when it was read, and not before: until then a spent budget would look untouched.
            wanted: dict[str, set[str]] = {key_id: set(sums.stored) for key_id, sums in self._sums.items()}
            for key_id, period in asked:
                wanted.setdefault(key_id, set()).add(period)
            current = {key_id: {period for period in periods if today.startswith(period)} for key_id, periods in wanted.items()}
            found = await self._read(sorted(current), sorted({period for periods in current.values() for period in periods}))
            for key_id, periods in current.items():
                sums = self._sums.setdefault(key_id, _Sums(now))
                sums.stored = {period: found.get((key_id, period), NOTHING) for period in periods}

    async def _flush(self) -> None:
        try:
            await self.flush()
            await self._refresh()
        except ConsiliumError as error:
            if not self._is_failing:
                logger.warning("what keys used cannot be written: %s; it is counted on and tried again", error)
            self._is_failing = True
        else:
            self._is_failing = False

    async def _write_forever(self) -> None:
        while True:
            await asyncio.sleep(self._flush_s)
            await self._flush()

    # --- reading ---

    async def usage(self, *, key_id: str | None = None, since: str | None = None, until: str | None = None) -> list[KeyUsage]:
        """What was used from the day *since* to the day *until*, both included; by key, day and expert."""
        await self.flush()
        conditions: list[sa.ColumnElement[bool]] = []
        if key_id is not None:
            conditions.append(key_usage.c.key_id == key_id)
        if since is not None:
            conditions.append(key_usage.c.day >= since)
        if until is not None:
            conditions.append(key_usage.c.day <= until)
        statement = sa.select(key_usage).where(*conditions).order_by(key_usage.c.key_id, key_usage.c.day, key_usage.c.expert_id)
        async with self._database.reading() as connection:
            return [_from_row(row) for row in (await connection.execute(statement)).mappings()]

    async def last_used(self) -> Mapping[str, float]:
        """By key: when it was used last, in seconds since the epoch."""
        await self.flush()
        statement = sa.select(key_usage.c.key_id, sa.func.max(key_usage.c.last_at)).group_by(key_usage.c.key_id)
        async with self._database.reading() as connection:
            return {row[0]: row[1] for row in await connection.execute(statement)}


def _adding(is_sqlite: bool) -> Any:
    """An insert that adds to the row that is there."""
    insert = sqlite.insert(key_usage) if is_sqlite else postgresql.insert(key_usage)
    added = {name: key_usage.c[name] + insert.excluded[name] for name in _COUNTS}
    later = sa.case((key_usage.c.last_at > insert.excluded.last_at, key_usage.c.last_at), else_=insert.excluded.last_at)
    return insert.on_conflict_do_update(index_elements=["key_id", "day", "expert_id"], set_={**added, "last_at": later})


def _to_row(row: Row, counted: UsageCount) -> dict[str, Any]:
    key_id, day, expert_id = row
    counts = {name: getattr(counted, name) for name in _COUNTS}
    return {"key_id": key_id, "day": day, "expert_id": expert_id, "last_at": counted.last_at, **counts}


def _from_row(row: sa.RowMapping) -> KeyUsage:
    count = UsageCount(**{name: row[name] for name in _COUNTS}, last_at=row["last_at"])
    return KeyUsage(row["key_id"], row["day"], row["expert_id"] or None, count)
