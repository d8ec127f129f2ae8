"""All batches: who works on which, and where each stands."""

from __future__ import annotations

import builtins
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.access import OF_ALL, Owner
from domain.batch import Batch, BatchError, BatchRunner, BatchState, FilePurpose
from domain.errors import Conflict, InvalidRequest, NotFound
from experts_registry import batch_rows
from experts_registry.batch_access import lock_owned, row_of
from experts_registry.batch_journal import DatabaseJournal
from experts_registry.database import Database
from experts_registry.tables import batch_calls, batch_lines, batches, files


class BatchStore:
    """Satisfies ``orchestrator.batch.ports.BatchStore``.

    A batch is whose ``owner`` is named in its row, until its lease has run out *and* another process has taken it: every write
    of an owner's locks the row and compares, so that one who was too slow can change nothing any more. *now* (seconds since the
    epoch) is compared among processes: their clocks may differ by much less than a lease.
    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database, self._now = database, now

    async def create(self, batch: Batch, of: Owner = OF_ALL) -> Batch:
        """A new batch, ready to be claimed. Raises ``NotFound`` or ``InvalidRequest`` when a service's batch has no file of *of*'s with
        purpose ``batch`` as its input, ``Conflict`` when its id is taken."""
        async with self._database.session() as connection:
            if batch.runner is BatchRunner.SERVICE:
                await _require_input(connection, batch.input_file_id, of)
            taken = await connection.scalar(sa.select(batches.c.id).where(batches.c.id == batch.id))
            if taken is not None:
                raise Conflict(f"the batch id {batch.id!r} is taken", param="id")
            await connection.execute(batches.insert(), batch_rows.to_row(batch))
        return batch

    async def get(self, batch_id: str, of: Owner = OF_ALL) -> Batch:
        """Raises ``NotFound``, also for a batch that is not *of*'s."""
        async with self._database.reading() as connection:
            return batch_rows.from_row(await row_of(connection, batch_id, of))

    async def list(self, *, limit: int = 20, after: str | None = None, of: Owner = OF_ALL) -> builtins.list[Batch]:
        """The newest *limit* batches of *of*'s, newest first; the page behind the batch *after*. Raises ``NotFound`` when there is no such
        batch."""
        conditions: builtins.list[sa.ColumnElement[bool]] = []
        if not of.of_all:
            conditions.append(batches.c.key_id.is_not_distinct_from(of.key_id))
        async with self._database.reading() as connection:
            if after is not None:
                last = await row_of(connection, after, of, param="after")
                position = sa.tuple_(sa.literal(last["created_at"]), sa.literal(last["id"]))
                conditions.append(sa.tuple_(batches.c.created_at, batches.c.id) < position)
            newest_first = batches.c.created_at.desc(), batches.c.id.desc()
            statement = sa.select(batches).where(*conditions).order_by(*newest_first).limit(limit)
            return [batch_rows.from_row(row) for row in (await connection.execute(statement)).mappings()]

    async def progress(self, batch_id: str) -> dict[str, Counter[str]]:
        """Of each expert that lines were routed to, how many of these are in which state (``pending``, ``answered``, ``failed``). Reads
        every line: for batches of moderate size."""
        chosen = batch_lines.c.route["selected"].as_string()
        statement = (
            sa.select(chosen.label("chosen"), batch_lines.c.state, sa.func.count().label("num"))
            .where(batch_lines.c.batch_id == batch_id, batch_lines.c.route.is_not(None))
            .group_by(chosen, batch_lines.c.state)
        )
        found: dict[str, Counter[str]] = {}
        async with self._database.reading() as connection:
            for row in await connection.execute(statement):
                for expert_id in dict.fromkeys(json.loads(row.chosen)):
                    found.setdefault(expert_id, Counter())[row.state] += row.num
        return dict(sorted(found.items()))

    async def undelivered(self, runner: BatchRunner) -> builtins.list[Batch]:
        """Batches for *runner* that are not over, and those whose output or error file is still stored; oldest first."""
        has_file = sa.exists().where(files.c.id.in_([batches.c.output_file_id, batches.c.error_file_id]))
        wanted = (batches.c.state.in_(batch_rows.UNFINISHED) | has_file) & (batches.c.runner == runner.value)
        async with self._database.reading() as connection:
            statement = sa.select(batches).where(wanted).order_by(batches.c.created_at, batches.c.id)
            return [batch_rows.from_row(row) for row in (await connection.execute(statement)).mappings()]

    async def claim(
        self,
        owner: str,
        *,
        lease_s: float,
        runner: BatchRunner | None,
        batch_id: str | None = None,
        besides: Collection[str] = (),
        ending: bool = False,
    ) -> Batch | None:
        """The oldest batch for *runner* (None: for anybody) that is not over and that nobody works on, now *owner*'s for *lease_s*; with
        *batch_id* that one or none. None of *besides*; when *ending*, one that was asked to cancel or whose window has passed."""
        now = self._now()
        is_ending = (batches.c.state == BatchState.CANCELLING.value) | (batches.c.expires_at <= now)
        free = (
            sa.select(batches.c.id)
            .where(
                batches.c.state.in_(batch_rows.UNFINISHED),
                sa.true() if runner is None else batches.c.runner == runner.value,
                batches.c.owner.is_(None) | (batches.c.leased_until < now),
                sa.true() if batch_id is None else batches.c.id == batch_id,
                batches.c.id.not_in(sorted(besides)) if besides else sa.true(),
                is_ending if ending else sa.true(),
            )
            .order_by(batches.c.created_at, batches.c.id)
            .limit(1)
        )
        async with self._database.reading() as connection:
            if await connection.scalar(free) is None:
                return None  # who asks every second must not take SQLite's write lock for it
        async with self._database.session() as connection:
            # What another process is claiming at this moment is locked, and passed over.
            found = await connection.scalar(free.with_for_update(skip_locked=True))
            if found is None:
                return None
            lease = {"owner": owner, "leased_until": now + lease_s}
            return await _change(connection, found, lease)

    async def renew(self, batch_id: str, owner: str, *, lease_s: float) -> Batch:
        """Keep it for *lease_s* more; the batch as it is now. Raises ``Conflict`` when it is somebody else's by now."""
        async with self._database.session() as connection:
            await lock_owned(connection, batch_id, owner)
            return await _change(connection, batch_id, {"leased_until": self._now() + lease_s})

    async def release(self, batch_id: str, owner: str) -> None:
        """Give it up; nothing happens when it is somebody else's by now."""
        async with self._database.session() as connection:
            mine = (batches.c.id == batch_id) & (batches.c.owner == owner)
            await connection.execute(batches.update().where(mine).values(owner=None, leased_until=None))

    async def enter(
        self,
        batch_id: str,
        state: BatchState,
        *,
        errors: Sequence[BatchError] = (),
        output_file_id: str | None = None,
        error_file_id: str | None = None,
        owner: str | None = None,
    ) -> Batch:
        """Change its state; where it is already, nothing changes (a commit whose answer was lost is tried again). Raises
        ``Conflict`` when it cannot come to that, or when an *owner* is named whose it is not any more."""
        async with self._database.session() as connection:
            row = await (row_of(connection, batch_id, locked=True) if owner is None else lock_owned(connection, batch_id, owner))
            batch = batch_rows.from_row(row)
            if batch.state is state:
                return batch
            batch.state.becomes(state)
            changes: dict[str, Any] = self._entering(batch, state)
            if errors:
                changes["errors"] = batch_rows.errors_to_json(tuple(errors))
            if output_file_id is not None:
                changes["output_file_id"] = output_file_id
            if error_file_id is not None:
                changes["error_file_id"] = error_file_id
            return await _change(connection, batch_id, changes)

    async def cancel(self, batch_id: str, of: Owner = OF_ALL) -> Batch:
        """Ask that it stops; once more changes nothing. Raises ``NotFound`` as ``get`` does, or ``Conflict`` when it is over or about to
        be."""
        async with self._database.session() as connection:
            batch = batch_rows.from_row(await row_of(connection, batch_id, of, locked=True))
            if batch.state is BatchState.CANCELLING:
                return batch
            if not batch.state.may_become(BatchState.CANCELLING):
                is_over = f"it is {batch.state} already" if batch.state.is_final else "its output files are being written"
                raise Conflict(f"the batch {batch_id!r} cannot be cancelled: {is_over}", param="batch_id")
            return await _change(connection, batch_id, self._entering(batch, BatchState.CANCELLING))

    def journal(self, batch_id: str, owner: str) -> DatabaseJournal:
        """For the process that has claimed it."""
        return DatabaseJournal(self._database, batch_id, owner)

    async def drop_lines_before(self, timestamp: float) -> int:
        """Forget the lines of batches that were over before *timestamp* (their files have what was answered); how many batches."""
        over = sa.select(batches.c.id).where(batches.c.ended_at < timestamp)
        with_lines = over.where(sa.exists().where(batch_lines.c.batch_id == batches.c.id))
        async with self._database.reading() as connection:
            ids = (await connection.scalars(with_lines)).all()
        for batch_id in ids:  # one transaction each: none holds the database for long
            async with self._database.session() as connection:
                await connection.execute(batch_calls.delete().where(batch_calls.c.batch_id == batch_id))
                await connection.execute(batch_lines.delete().where(batch_lines.c.batch_id == batch_id))
        return len(ids)

    def _entering(self, batch: Batch, state: BatchState) -> dict[str, Any]:
        now = self._now()
        entered = {known.value: moment for known, moment in batch.entered.items()} | {state.value: now}
        return {"state": state.value, "entered": entered, "ended_at": now if state.is_final else None}


async def _change(connection: AsyncConnection, batch_id: str, changes: Mapping[str, Any]) -> Batch:
    await connection.execute(batches.update().where(batches.c.id == batch_id).values(changes))
    return batch_rows.from_row(await row_of(connection, batch_id))


async def _require_input(connection: AsyncConnection, file_id: str, owner: Owner) -> None:
    """The file is locked, so that nobody deletes it before the batch is there."""
    found = (
        await connection.execute(sa.select(files.c.purpose, files.c.key_id).where(files.c.id == file_id).with_for_update())
    ).one_or_none()
    purpose = None if found is None or not owner.owns(found.key_id) else found.purpose
    if purpose is None:
        message = f"there is no file {file_id[:80]!r}: upload it with POST /v1/files and purpose 'batch' first"
        raise NotFound(message, param="input_file_id")
    if purpose != FilePurpose.BATCH:
        message = f"the file {file_id!r} has the purpose {purpose!r}: a batch reads files that were uploaded with purpose 'batch'"
        raise InvalidRequest(message, param="input_file_id")
