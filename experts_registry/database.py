"""The connection to SQLite or PostgreSQL: transactions, migrations, and whether it can be used."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from domain.errors import InvalidRequest
from experts_registry import schema
from experts_registry.storage_errors import MIGRATE, not_ready, translated
from experts_registry.whole_connection import WholeConnection, to_the_end

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_BLOCKING_SQLITE = "sqlite+pysqlite"
_WRITING = "BEGIN IMMEDIATE"

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
"""Longest wait for PostgreSQL to accept a connection: a server that is there answers in milliseconds."""
STATEMENT_TIMEOUT_S = 60.0
"""Longest time for one PostgreSQL statement but a migration's; the largest, storing a whole validation set's vectors, takes a few
seconds."""
ANSWER_MARGIN_S = 5.0
"""How long after that PostgreSQL's answer is waited for, before the network counts as gone."""
POOL_TIMEOUT_S = 10.0
"""Longest wait for a connection of the pool."""


class Database:
    """One database, shared by all stores of a process. ``connect`` does no I/O; the first use does."""

    def __init__(self, engine: AsyncEngine, blocking: sa.Engine | None = None) -> None:
        """*blocking*: the same database, for threads; None where its driver has no such thing."""
        self.engine, self._blocking = engine, blocking
        self.name = engine.url.render_as_string(hide_password=True)
        """For messages; without the password."""

    @classmethod
    def connect(cls, url: str, *, busy_timeout_s: float = 5.0, max_connections: int = 8, for_migrations: bool = False) -> Database:
        """The database at *url* (``sqlite+aiosqlite:///file`` or ``postgresql+asyncpg://…``; the driver may be left out).

        *busy_timeout_s* is the longest wait for a lock that another process holds. *for_migrations*: a statement may take as long as it
        takes, as one does that rewrites a table of years. Raises ``InvalidRequest`` when *url* is
        not one of these.
        """
        parsed = _parse(url)
        options: dict[str, Any] = {
            "json_serializer": _to_json,
            "pool_size": max_connections,
            "max_overflow": 0,
            "pool_timeout": POOL_TIMEOUT_S,
        }
        if parsed.get_backend_name() == "sqlite":
            waiting = {"timeout": busy_timeout_s}
            engine = create_async_engine(parsed, connect_args=waiting, **options)
            blocking = sa.create_engine(parsed.set(drivername=_BLOCKING_SQLITE), connect_args=waiting, **{**options, "pool_size": 1})
            _prepare_sqlite(engine.sync_engine)
            _prepare_sqlite(blocking)
            return cls(engine, blocking)
        settings = {
            "application_name": "consilium",
            "lock_timeout": str(round(busy_timeout_s * 1000)),
            "statement_timeout": "0" if for_migrations else str(round(STATEMENT_TIMEOUT_S * 1000)),
        }
        # The server's own limit does not help where nothing comes from the server any more.
        arguments = {
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": None if for_migrations else STATEMENT_TIMEOUT_S + ANSWER_MARGIN_S,
            "server_settings": settings,
        }
        engine = create_async_engine(parsed, connect_args=arguments, pool_pre_ping=True, **options)
        return cls(engine)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed as a whole when the block ends, undone as a whole when it raises.

        SQLite takes its write lock at the start: a transaction that reads first and writes later could not wait for it.
        """
        async with self._transaction(sqlite_begin=_WRITING) as connection:
            yield connection

    async def made_and_written(self, make: Callable[[], T], write: Callable[[sa.Connection, T], None]) -> None:
        """What *make* makes in a thread, written by *write* in a transaction, as with ``session``; for what writes much beside requests.

        SQLite's driver works in a thread as well, and each statement comes back to the event loop three or four times. A busy loop's turn
        takes tens of milliseconds, a dozen statements took a second: so there all of it happens in one thread, and comes back once.
        """
        if self._blocking is not None:
            with translated(self.name):
                await to_the_end(asyncio.to_thread(_made_and_written, self._blocking, make, write))
            return
        made = await asyncio.to_thread(make)
        async with self.session() as connection:
            await to_the_end(connection.run_sync(write, made))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads: all its statements see the database at one moment."""
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        async with self._transaction(**options) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, **options: Any) -> AsyncIterator[AsyncConnection]:
        with translated(self.name):
            connection = WholeConnection(self.engine)
            try:
                # To the end also when it is cancelled: half a transaction of SQLite's would lock the file for everybody.
                await to_the_end(_begun(connection, options))
                yield connection
                await to_the_end(connection.commit())
            finally:
                if connection.sync_connection is not None:
                    await to_the_end(connection.close())  # undoes what was not committed

    async def upgrade(self) -> None:
        """Bring the schema to this version. Several processes may do so at once: one works, the others wait for it.

        Raises ``NotReady`` when the database belongs to a newer version, ``StorageError`` when it cannot be used.
        """
        await asyncio.to_thread(self._upgrade_in_thread)

    def _upgrade_in_thread(self) -> None:
        # Alembic blocks, and its connections belong to the loop that made them: a thread, a loop and an engine of its own.
        asyncio.run(self._upgrade_on_own_connections())

    async def _upgrade_on_own_connections(self) -> None:
        url = self.engine.url.render_as_string(hide_password=False)
        own = Database.connect(url, busy_timeout_s=schema.UPGRADE_TIMEOUT_S, max_connections=1, for_migrations=True)
        try:
            with translated(self.name):
                await schema.upgrade(own.engine, self.name)
        finally:
            await own.close()

    async def check(self) -> None:
        """Return when the database can be read and written and has this version's schema.

        Raises ``StorageError`` (unreachable, locked, read-only) or ``NotReady`` (migration behind or ahead), each saying
        what to do.
        """
        known = await asyncio.to_thread(schema.known_revisions)
        async with self.session() as connection:
            current = await schema.current_revision(connection)
        schema.require_known(current, known, self.name)
        if current is None:
            raise not_ready(self.name, f"the database has no tables yet: {MIGRATE}")
        if current != known[0]:
            raise not_ready(self.name, f"the database is at migration {current}, this version needs {known[0]}: {MIGRATE}")

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
        if self._blocking is not None:
            self._blocking.dispose()


def _made_and_written(engine: sa.Engine, make: Callable[[], T], write: Callable[[sa.Connection, T], None]) -> None:
    made = make()  # before the transaction, which nobody else may write beside
    with engine.connect().execution_options(sqlite_begin=_WRITING) as connection, connection.begin():
        write(connection, made)


async def _begun(connection: AsyncConnection, options: Mapping[str, Any]) -> None:
    await connection.start()
    await connection.execution_options(**options)
    await connection.begin()


class JsonText(str):
    """JSON as text, ready to be stored: whoever has much of it makes it in a thread. SQLAlchemy binds on the event loop."""

    __slots__ = ()


def _to_json(value: Any) -> str:
    return str(value) if isinstance(value, JsonText) else json.dumps(value, allow_nan=False)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in _DRIVERS:
        # The URL itself may hold a password, so it is not repeated.
        raise InvalidRequest(
            "the database URL must start with sqlite+aiosqlite:/// or postgresql+asyncpg://",
            param="database_url",
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise InvalidRequest("the database URL names no file: each connection would see its own empty database", param="database_url")
    return parsed.set(drivername=_DRIVERS[parsed.drivername])


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Foreign keys on, and transactions begun by us: the driver's own begin too late and spare DDL."""

    @event.listens_for(engine, "do_connect")
    def can_be_opened(_dialect: object, _record: object, arguments: Sequence[Any], _named: object) -> None:
        # aiosqlite leaves a thread behind for a moment when it cannot open the file, and that thread fails when the loop
        # has ended meanwhile. So a file that cannot be opened is found out here, without a thread.
        sqlite3.connect(arguments[0]).close()

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        statement = connection.get_execution_options().get("sqlite_begin", "BEGIN")
        if statement is not None:
            connection.exec_driver_sql(statement)
