"""Files of the Files API: what is known of them in the database, their contents in a folder."""

from __future__ import annotations

import builtins
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.access import OF_ALL, Owner
from domain.batch import FilePurpose, StoredFile
from domain.errors import Conflict, NotFound, PayloadTooLarge, StorageError
from experts_registry.batch_rows import UNFINISHED
from experts_registry.database import Database
from experts_registry.file_contents import PREFIX, ContentFolder, NewContent
from experts_registry.questions import chunks
from experts_registry.tables import batches, files

HALF_S = 86_400.0
"""Age from which half contents count as left behind: nobody is silent for a day while writing."""
ORPHAN_S = 7 * 86_400.0
"""Age from which contents without a row do. Long, for whoever tries another database on the same data dir and comes back."""
_NAME_CHARS = 255
"""Of a file's name that are kept: what file systems allow."""


class FileStore:
    """Satisfies ``orchestrator.batch.ports.BatchFiles``. Processes that share the database share *folder* too.

    Contents are there before their row is, and go after it: a kill in between leaves contents that nobody knows, which ``sweep``
    finds. What batches write is kept for *keep_s* seconds; None keeps it.
    """

    def __init__(self, database: Database, folder: Path, *, keep_s: float | None = None, now: Callable[[], float] = time.time) -> None:
        self._database, self._folder, self._keep_s, self._now = database, ContentFolder(folder), keep_s, now

    @asynccontextmanager
    async def new(self) -> AsyncIterator[NewFile]:
        """A file that is being written; unless it was kept when the block ends, nothing of it stays. Raises ``StorageError``."""
        file_id = PREFIX + uuid.uuid4().hex
        content = await self._folder.new(file_id)
        made = NewFile(self._database, file_id, content, self._now)
        try:
            yield made
        finally:
            # When the row could not be written and the connection is lost as well, nobody knows whether it is there.
            if made.stored is None and not (content.is_kept and await self._may_be_stored(file_id)):
                await content.discard()

    async def create(
        self,
        filename: str,
        purpose: FilePurpose,
        pieces: AsyncIterator[bytes],
        *,
        max_bytes: int | None = None,
        expires_at: float | None = None,
        key_id: str | None = None,
    ) -> StoredFile:
        """A new file, of the key *key_id*; it exists when all of it is written. Raises ``PayloadTooLarge`` beyond *max_bytes*,
        ``StorageError`` when the disk is full."""
        async with self.new() as made:
            async for piece in pieces:
                if max_bytes is not None and made.num_bytes + len(piece) > max_bytes:
                    raise PayloadTooLarge(f"the file is larger than {max_bytes:,} bytes: make several of it")
                await made.write(piece)
            return await made.keep(filename, purpose, expires_at=expires_at, key_id=key_id)

    async def write(self, filename: str, lines: AsyncIterator[bytes], *, key_id: str | None = None) -> StoredFile:
        """A new ``batch_output`` file; it exists when all of it is written. Raises ``StorageError`` when the disk is full."""
        expires_at = None if self._keep_s is None else self._now() + self._keep_s
        return await self.create(filename, FilePurpose.BATCH_OUTPUT, lines, expires_at=expires_at, key_id=key_id)

    async def get(self, file_id: str, owner: Owner = OF_ALL) -> StoredFile:
        """Raises ``NotFound``, also for a file that is not *owner*'s."""
        async with self._database.reading() as connection:
            return _from_row(await _row(connection, file_id, owner))

    async def open(self, file_id: str, owner: Owner = OF_ALL) -> BinaryIO:
        """Its content, open for reading in a thread; the caller closes it. Raises ``NotFound`` as ``get`` does, or
        ``StorageError`` when the database knows the file and the folder does not."""
        await self.get(file_id, owner)
        try:
            return await self._folder.open(file_id)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                public = f"the content of {file_id} is not on this server: processes that share a database must share the data dir's files"
                raise StorageError(f"{public} ({self._folder.path(file_id)})", public=public) from error
            raise

    async def list(
        self,
        *,
        purpose: FilePurpose | None = None,
        limit: int = 10_000,
        after: str | None = None,
        oldest_first: bool = False,
        owner: Owner = OF_ALL,
    ) -> builtins.list[StoredFile]:
        """At most *limit* files of *owner*'s, newest first unless *oldest_first*; the page behind the file *after*. Raises
        ``NotFound`` when there is no such file."""
        conditions: builtins.list[sa.ColumnElement[bool]] = [] if purpose is None else [files.c.purpose == purpose.value]
        if not owner.of_all:
            conditions.append(files.c.key_id.is_not_distinct_from(owner.key_id))
        key, columns = sa.tuple_(files.c.created_at, files.c.id), (files.c.created_at, files.c.id)
        async with self._database.reading() as connection:
            if after is not None:
                last = await _row(connection, after, owner, param="after")
                position = sa.tuple_(sa.literal(last["created_at"]), sa.literal(last["id"]))
                conditions.append(key > position if oldest_first else key < position)
            order = [column if oldest_first else column.desc() for column in columns]
            statement = sa.select(files).where(*conditions).order_by(*order).limit(limit)
            return [_from_row(row) for row in (await connection.execute(statement)).mappings()]

    async def num_bytes(self) -> int:
        """Of all files together."""
        async with self._database.reading() as connection:
            return int(await connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(files.c.num_bytes), 0))) or 0)

    async def delete(self, file_id: str, owner: Owner = OF_ALL) -> None:
        """Raises ``NotFound`` as ``get`` does, or ``Conflict`` while a batch that is not over reads it."""
        async with self._database.session() as connection:
            await _row(connection, file_id, owner, locked=True)
            needs = sa.select(batches.c.id).where(batches.c.input_file_id == file_id, batches.c.state.in_(UNFINISHED)).limit(1)
            batch_id = await connection.scalar(needs)
            if batch_id is not None:
                message = f"the batch {batch_id} still reads the file {file_id!r}: wait for it, or cancel it first"
                raise Conflict(message, param="file_id")
            await connection.execute(files.delete().where(files.c.id == file_id))
        await self._folder.delete([file_id])

    async def sweep(self) -> int:
        """Delete files that have expired and that no unfinished batch reads, and what was left behind; how many there were."""
        now = self._now()
        needed = sa.exists().where(batches.c.input_file_id == files.c.id, batches.c.state.in_(UNFINISHED))
        async with self._database.session() as connection:
            expired = sa.select(files.c.id).where(files.c.expires_at <= now, ~needed).with_for_update()
            ids: Sequence[str] = (await connection.scalars(expired)).all()
            for some in chunks(ids):
                await connection.execute(files.delete().where(files.c.id.in_(some)))
        await self._folder.delete(ids)
        return len(ids) + await self._sweep_left_behind(now)

    async def _sweep_left_behind(self, now: float) -> int:
        num_halves = await self._folder.delete_halves(now - HALF_S)
        old = await self._folder.older_than(now - ORPHAN_S)
        known: set[str] = set()
        async with self._database.reading() as connection:
            for some in chunks(old):
                known |= set((await connection.scalars(sa.select(files.c.id).where(files.c.id.in_(some)))).all())
        orphans = [file_id for file_id in old if file_id not in known]
        await self._folder.delete(orphans)
        return num_halves + len(orphans)

    async def _may_be_stored(self, file_id: str) -> bool:
        try:
            await self.get(file_id)
        except NotFound:
            return False
        except StorageError:
            return True
        return True


class NewFile:
    """One file while it is written. ``keep`` makes it a file of the store."""

    def __init__(self, database: Database, file_id: str, content: NewContent, now: Callable[[], float]) -> None:
        self._database, self._id, self._content, self._now = database, file_id, content, now
        self.stored: StoredFile | None = None

    @property
    def num_bytes(self) -> int:
        """Written so far."""
        return self._content.num_bytes

    async def write(self, piece: bytes) -> None:
        """Append *piece*. Raises ``StorageError`` when the disk is full."""
        await self._content.write(piece)

    async def discard(self) -> None:
        """Nothing of it stays, and nothing more may be written."""
        await self._content.discard()

    async def keep(self, filename: str, purpose: FilePurpose, *, expires_at: float | None = None, key_id: str | None = None) -> StoredFile:
        """From now on it exists, whatever happens. Raises ``StorageError``."""
        await self._content.keep()
        stored = StoredFile(self._id, purpose, filename[:_NAME_CHARS], self.num_bytes, self._now(), expires_at, key_id)
        async with self._database.session() as connection:
            await connection.execute(files.insert(), _to_row(stored))
        self.stored = stored
        return stored


async def _row(connection: AsyncConnection, file_id: str, owner: Owner, *, locked: bool = False, param: str = "file_id") -> sa.RowMapping:
    statement = sa.select(files).where(files.c.id == file_id)
    row = (await connection.execute(statement.with_for_update() if locked else statement)).mappings().one_or_none()
    if row is None or not owner.owns(row["key_id"]):
        raise NotFound(f"there is no file {file_id[:80]!r}; GET /v1/files lists them", param=param)
    return row


def _to_row(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "purpose": file.purpose.value,
        "filename": file.filename,
        "num_bytes": file.num_bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "key_id": file.key_id,
    }


def _from_row(row: sa.RowMapping) -> StoredFile:
    return StoredFile(
        row["id"], FilePurpose(row["purpose"]), row["filename"], row["num_bytes"], row["created_at"], row["expires_at"], row["key_id"]
    )
