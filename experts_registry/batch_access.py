"""One batch's row, read or locked, on a connection that a store has opened."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.access import OF_ALL, Owner
from domain.errors import Conflict, NotFound
from experts_registry.tables import batches


async def row_of(
    connection: AsyncConnection, batch_id: str, of: Owner = OF_ALL, *, locked: bool = False, param: str = "batch_id"
) -> sa.RowMapping:
    """Raises ``NotFound``, also for a batch that is not *of*'s. *locked*: nobody else changes this batch until the transaction ends."""
    statement = sa.select(batches).where(batches.c.id == batch_id)
    row = (await connection.execute(statement.with_for_update() if locked else statement)).mappings().one_or_none()
    if row is None or not of.owns(row["key_id"]):
        raise NotFound(f"there is no batch {batch_id[:80]!r}; GET /v1/batches lists them", param=param)
    return row


async def lock_owned(connection: AsyncConnection, batch_id: str, owner: str) -> sa.RowMapping:
    """The row, locked. Raises ``Conflict`` when the batch is not *owner*'s (any more)."""
    row = await row_of(connection, batch_id, locked=True)
    if row["owner"] != owner:
        raise Conflict(f"the batch {batch_id!r} is not this process's any more: another one has taken it over, so stop working on it")
    return row
