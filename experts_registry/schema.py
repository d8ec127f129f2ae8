"""The schema's version: which one the database has, which one this code needs, and the way from one to the other."""

from __future__ import annotations

import asyncio
import functools
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from experts_registry.storage_errors import not_ready, storage_error

if TYPE_CHECKING:
    from alembic.config import Config

UPGRADE_TIMEOUT_S = 60.0
"""Longest wait for another process that is migrating the same database."""
_RETRY_EVERY_S = 0.05
_POSTGRES_LOCK = 0x436F6E73696C
"""Key of the advisory lock that a migrating process holds ("Consil")."""
_alembic_lock = threading.Lock()
"""Alembic keeps its context in module globals: one migration at a time in a process."""


def alembic_config() -> Config:
    """Alembic's configuration; needs no file, so it works from an installed package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


@functools.cache
def known_revisions() -> tuple[str, ...]:
    """Every migration of this version, newest first."""
    from alembic.script import ScriptDirectory

    return tuple(script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


async def current_revision(connection: AsyncConnection) -> str | None:
    """The migration that the database is at; None when there has been none."""
    if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("alembic_version")):
        return None
    revision: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return revision


def require_known(current: str | None, known: tuple[str, ...], database: str) -> None:
    """Raise ``NotReady`` when the database was migrated by a newer version than this one."""
    if current is not None and current not in known:
        raise not_ready(
            database,
            f"the database is at migration {current}, which this version does not know: "
            f"a newer Consilium has migrated it (this one knows up to {known[0]}); update Consilium",
        )


async def upgrade(engine: AsyncEngine, database: str) -> None:
    """Migrate to the newest revision in one transaction, holding a lock that keeps every other process out."""
    known = known_revisions()
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        await _use_write_ahead_log(engine, database)
    async with engine.connect() as connection:
        await connection.execution_options(sqlite_begin="BEGIN EXCLUSIVE")
        async with connection.begin():
            if not is_sqlite:
                await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
            current = await current_revision(connection)
            require_known(current, known, database)
            if current != known[0]:
                await connection.run_sync(_run_alembic)


def _run_alembic(connection: sa.Connection) -> None:
    from alembic import command

    with _alembic_lock:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


async def _use_write_ahead_log(engine: AsyncEngine, database: str) -> None:
    """Let readers and a writer work at once. The mode stays in the file, so it is set here only.

    SQLite does not wait for locks while it changes the mode, so the waiting is ours.
    """
    for _ in range(round(UPGRADE_TIMEOUT_S / _RETRY_EVERY_S)):
        try:
            async with engine.connect() as connection:
                await connection.execution_options(sqlite_begin=None)
                mode = (await connection.exec_driver_sql("PRAGMA journal_mode = WAL")).scalar_one()
        except OperationalError as error:
            if "locked" not in str(error.orig):
                raise
        else:
            if mode == "wal":
                return
        await asyncio.sleep(_RETRY_EVERY_S)
    raise storage_error(database, "the database is locked by another process: close what holds it, then try again")
