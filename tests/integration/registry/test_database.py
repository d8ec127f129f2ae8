"""Connecting, migrating, and what is said when the database cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event

from domain.errors import InvalidRequest, NotReady, StorageError
from experts_registry import schema
from experts_registry.database import Database
from experts_registry.experts import ExpertStore
from experts_registry.tables import metadata, registry_state, skills
from tests.fakes.registry import make_card

ROOT = Path(__file__).parents[3]
UPGRADE = """
import asyncio, sys
from experts_registry.database import Database

async def main():
    database = Database.connect(sys.argv[1])
    await database.upgrade()
    await database.check()
    await database.close()

asyncio.run(main())
"""


async def _set_revision(database: Database, revision: str) -> None:
    async with database.session() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def _path_of(database: Database) -> str:
    assert database.engine.url.database is not None
    return database.engine.url.database


async def test_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    """What Alembic would still have to change is nothing."""
    async with database.engine.connect() as connection:
        difference = await connection.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync), metadata))

    assert difference == []


async def test_upgrade_makes_an_empty_database_usable_and_may_be_repeated(empty_database_url: str) -> None:
    database = Database.connect(empty_database_url)
    try:
        await database.upgrade()
        await database.upgrade()
        await database.check()
        async with database.reading() as connection:
            rows = (await connection.execute(sa.select(registry_state))).all()
    finally:
        await database.close()

    assert [tuple(row) for row in rows] == [(1, 0, 0)]


async def test_processes_that_start_together_migrate_once_each_from_any_folder(empty_database_url: str, tmp_path: Path) -> None:
    """Three processes upgrade the same empty database at once, from a folder that is not the project's; all succeed."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", UPGRADE, empty_database_url, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stderr=-1
        )
        for _ in range(3)
    ]
    async with asyncio.timeout(90):
        ended = await asyncio.gather(*(process.communicate() for process in processes))

    assert [error.decode() for _, error in ended] == ["", "", ""]
    assert [process.returncode for process in processes] == [0, 0, 0]


async def test_a_database_without_tables_says_to_migrate(empty_database_url: str) -> None:
    database = Database.connect(empty_database_url)
    try:
        with pytest.raises(NotReady, match="no tables yet: run `consilium db upgrade`"):
            await database.check()
        with pytest.raises(NotReady, match="run `consilium db upgrade`"):
            await ExpertStore(database).list()
    finally:
        await database.close()


async def test_a_migration_that_is_behind_says_to_migrate(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = schema.known_revisions()[0]
    monkeypatch.setattr(schema, "known_revisions", lambda: ("9999", newest))

    with pytest.raises(NotReady, match=f"is at migration {newest}, this version needs 9999: run `consilium db upgrade`"):
        await database.check()


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database) -> None:
    await _set_revision(database, "9999")

    with pytest.raises(NotReady, match="a newer Consilium has migrated it"):
        await database.check()
    with pytest.raises(NotReady, match="a newer Consilium has migrated it"):
        await database.upgrade()


async def test_a_transaction_that_fails_leaves_nothing_behind(database: Database) -> None:
    async def fail() -> None:
        async with database.session() as connection:
            await connection.execute(skills.insert(), {"name": "algebra", "description": ""})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    async with database.reading() as connection:
        assert (await connection.execute(sa.select(skills))).all() == []


async def test_a_cancelled_transaction_leaves_nothing_behind_and_the_database_usable(database: Database) -> None:
    entered = asyncio.Event()

    async def write() -> None:
        async with database.session() as connection:
            await connection.execute(skills.insert(), {"name": "algebra", "description": ""})
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with database.session() as connection:
        assert (await connection.execute(sa.select(skills))).all() == []


async def test_a_locked_database_says_so_and_works_again_afterwards(database: Database) -> None:
    impatient = Database.connect(database.engine.url.render_as_string(hide_password=False), busy_timeout_s=0.05)
    store = ExpertStore(impatient)
    try:
        async with database.session() as connection:
            await connection.execute(sa.select(registry_state).with_for_update())
            with pytest.raises(StorageError, match="locked by another process"):
                await store.create(make_card())

        created = await store.create(make_card())
    finally:
        await impatient.close()

    assert created.version == 1


def test_a_url_for_no_known_database_is_refused_without_repeating_its_password() -> None:
    for url in ("mysql://root:hunter2@host/x", "postgres:hunter2", "sqlite://", "sqlite+aiosqlite:///:memory:"):
        with pytest.raises(InvalidRequest) as caught:
            Database.connect(url)

        assert caught.value.param == "database_url"
        assert "hunter2" not in caught.value.message


async def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    database = Database.connect("postgresql://someone:hunter2@127.0.0.1:1/consilium")
    try:
        with pytest.raises(StorageError, match=r"someone:\*\*\*@127.0.0.1:1/consilium: the database cannot be reached"):
            await database.check()
    finally:
        await database.close()


async def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    database = Database.connect(f"sqlite:///{tmp_path / 'missing' / 'x.db'}")
    try:
        for attempt in (database.check, database.upgrade):
            with pytest.raises(StorageError, match="cannot be opened: check that its folder exists"):
                await attempt()
    finally:
        await database.close()


async def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("Dear diary, " * 100)
    database = Database.connect(f"sqlite:///{path}")
    try:
        with pytest.raises(StorageError, match="not an SQLite database"):
            await database.upgrade()
    finally:
        await database.close()


async def _sqlite(path: Path) -> Database:
    database = Database.connect(f"sqlite:///{path}", busy_timeout_s=0.05)
    await database.upgrade()
    return database


async def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    """SQLite's own answer to a file that may not grow is the one it gives on a full disk."""
    database = await _sqlite(tmp_path / "x.db")
    await database.close()

    @event.listens_for(database.engine.sync_engine, "connect")
    def limit(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count = 1")  # which SQLite reads as: no larger than it is
        cursor.close()

    store = ExpertStore(database)
    try:
        with pytest.raises(StorageError, match="database or disk is full"):
            await store.create(make_card(description="x" * 1_000_000))
        cards = await store.list()
    finally:
        await database.close()

    assert cards == []


async def test_a_database_locked_for_good_fails_the_check(tmp_path: Path) -> None:
    database = await _sqlite(tmp_path / "x.db")
    holder = sqlite3.connect(_path_of(database), isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="locked by another process"):
            await database.check()
        holder.execute("ROLLBACK")
        await database.check()
    finally:
        holder.close()
        await database.close()


async def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = await _sqlite(tmp_path / "x.db")
    try:
        async with database.session() as connection:
            await connection.execute(skills.insert(), {"name": "algebra", "description": ""})
            async with database.reading() as reader:
                seen = (await reader.execute(sa.select(skills))).all()
    finally:
        await database.close()

    assert seen == []
