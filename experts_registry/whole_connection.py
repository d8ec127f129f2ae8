"""Statements that are always awaited to their end, so that being cancelled leaves a connection as whole as before.

SQLAlchemy throws a connection away whose statement was cancelled. SQLite's driver works in a thread, where the statement runs on,
and a transaction that it began stays open until the garbage collector comes by: until then nobody can write. With PostgreSQL
every client that goes away would cost a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """What *work* returns or raises. Cancelled meanwhile, it is raised only when *work* has ended: what it waits for must have a
    time limit of its own."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue  # once more; it is raised below in any case
        if not task.cancelled():
            task.exception()  # retrieved, so that nobody is warned about it
        raise


class WholeConnection(AsyncConnection):
    """An ``AsyncConnection`` whose statements run ``to_the_end``."""

    __slots__ = ()

    async def execute(self, *arguments: Any, **named: Any) -> CursorResult[Any]:
        """As ``AsyncConnection.execute``, on which ``scalar`` and ``scalars`` rest."""
        return await to_the_end(super().execute(*arguments, **named))
