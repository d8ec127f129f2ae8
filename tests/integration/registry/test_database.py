"""Connecting, migrating, and what is said when the database cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url

from domain.errors import InvalidRequest, NotReady, StorageError
from domain.experts import ServingOptions
from domain.skills import SkillCount
from experts_registry import database as database_module
from experts_registry import schema
from experts_registry.audit import AuditLog
from experts_registry.database import Database
from experts_registry.directory import RegistryDirectory
from experts_registry.experts import EXPERTS, ExpertStore
from experts_registry.profiles import ProfileStore
from experts_registry.tables import (
    aggregator_outcomes,
    audit_log,
    experts,
    metadata,
    profile_counts,
    profile_outcomes,
    profile_runs,
    registry_state,
    skills,
)
from experts_registry.traces import TraceStore
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


async def test_traces_from_before_they_had_ids_are_found_by_their_request_id(empty_database_url: str) -> None:
    """The first schema's rows: nothing is lost, and who was called in a request is still known."""
    document = '{"request_id": "r1", "model": "auto", "strategy": null, "started_at": 1.0, "status": "ok"}'

    def first_schema(connection: sa.Connection) -> None:
        config = schema.alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            sa.text("INSERT INTO traces (request_id, started_at, model, status, document) VALUES ('r1', 1.0, 'auto', 'ok', :document)"),
            {"document": document},
        )
        connection.execute(sa.text("INSERT INTO trace_experts (request_id, expert_id) VALUES ('r1', 'a')"))

    database = Database.connect(empty_database_url)
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(first_schema)
        await database.upgrade()
        store = TraceStore(database)
        (found,) = await store.list(request_id="r1", expert_id="a")
        assert await store.get("r1") == found
        await store.delete(found.id)
        async with database.reading() as reader:
            assert await reader.scalar(sa.text("SELECT count(*) FROM trace_experts")) == 0
    finally:
        await database.close()


async def test_what_was_measured_before_fingerprints_is_taken_to_be_of_the_cards_that_are_there(empty_database_url: str) -> None:
    """It counts as before; when the card is changed afterwards, it counts no more. Of an expert that is gone nobody knows the card."""
    card = make_card(sampling={"temperature": 0, "stop": ["\n"]}, adapter_of="base", serving=ServingOptions(extra_arguments=("--x", "1")))
    outcome = {"skills": [], "correct": True, "answer": "14", "latency_ms": 1.0, "recorded": 1, "counts": True}

    def before(connection: sa.Connection) -> None:
        config = schema.alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0011")
        connection.execute(experts.insert(), EXPERTS.to_row(card))
        run = {"id": "run", "state": "finished", "created_at": 1.0, "expert_ids": [], "question_ids": [], "note": ""}
        connection.execute(profile_runs.insert(), run)
        rows = [{"run_id": "run", "expert_id": name, "question_id": "q1", **outcome} for name in (card.id, "gone")]
        connection.execute(profile_outcomes.insert(), rows)
        counts = [{"expert_id": name, "skill": "", "num_answered": 1, "num_correct": 1} for name in (card.id, "gone")]
        connection.execute(profile_counts.insert(), counts)
        synthesis = {"question_id": "q1", "category": "x", "correct": True, "answer": "14"}
        connection.execute(aggregator_outcomes.insert(), {"expert_id": card.id, **synthesis})

    database = Database.connect(empty_database_url)
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(before)
        await database.upgrade()
        store, profiles = ExpertStore(database), ProfileStore(database)
        same = await store.redeclare(replace(card, description="still the same"))
        kept, aggregators = await profiles.profiles(), await profiles.aggregator_profiles()
        changed = await store.redeclare(replace(card, model="other"))
        returned = await store.declare(make_card("gone"))
        left = await profiles.profiles()
    finally:
        await database.close()

    assert aggregators[card.id].overall == SkillCount(1, 1)
    assert (same.num_outdated, kept[card.id].overall, kept["gone"].overall) == (0, SkillCount(1, 1), SkillCount(1, 1))
    assert (changed.num_outdated, returned.num_outdated, left) == (1, 1, {})


async def test_requests_that_were_forgotten_leave_the_audit_log(empty_database_url: str) -> None:
    """What was written of them before goes; that somebody forgot them, and every other entry, stays."""
    entry = {"at": 1.0, "actor": "admin", "role": "owner", "method": "DELETE", "status": 204, "request_id": "r"}
    rows = [
        {**entry, "id": "1", "path": "/admin/api/traces/t1", "before": {"id": "t1", "messages": ["a private matter"]}},
        {**entry, "id": "2", "path": "/admin/api/experts/good", "before": {"id": "good"}},
    ]

    def before(connection: sa.Connection) -> None:
        config = schema.alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0012")
        connection.execute(audit_log.insert(), rows)

    database = Database.connect(empty_database_url)
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(before)
        await database.upgrade()
        log = await AuditLog(database).list()
    finally:
        await database.close()

    assert [(one.id, one.path, one.before) for one in log] == [
        ("2", "/admin/api/experts/good", {"id": "good"}),
        ("1", "/admin/api/traces/t1", None),
    ]


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


class _Link:
    """A way to PostgreSQL over TCP that can be cut without anybody being told, as networks do."""

    def __init__(self, url: URL) -> None:
        self._folder = str(url.query["host"]) if "host" in url.query else None
        self._host, self._port = url.host, url.port or 5432
        self.open = asyncio.Event()
        self.open.set()
        self._tasks: set[asyncio.Task[None] | None] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        await self.open.wait()
        if self._folder is None:
            there = await asyncio.open_connection(self._host, self._port)
        else:
            there = await asyncio.open_unix_connection(f"{self._folder}/.s.PGSQL.{self._port}")
        await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self.open.wait()
                writer.write(data)
        finally:
            writer.close()

    async def close(self) -> None:
        tasks = [task for task in self._tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_a_network_that_goes_silent_is_not_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's own limit of a statement is of no use when its answer cannot arrive. Afterwards the database is usable."""
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(database_module, "ANSWER_MARGIN_S", 0.2)
    monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 1.0)
    url = make_url(database_url)
    link = _Link(url)
    server = await asyncio.start_server(link.connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    database = Database.connect(url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False))
    directory = RegistryDirectory(database)

    async def read_while_it_goes_silent() -> None:
        async with database.reading() as connection:
            link.open.clear()
            await connection.execute(sa.select(registry_state))

    try:
        await directory.refresh()
        for read in (read_while_it_goes_silent, directory.refresh):
            with pytest.raises(StorageError, match=r"did not answer in time|cannot be reached"):
                async with asyncio.timeout(20):
                    await read()
        link.open.set()
        async with asyncio.timeout(20):
            await directory.refresh()
    finally:
        await database.close()
        server.close()
        await link.close()


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


async def test_a_write_that_is_cancelled_anywhere_locks_nobody_out(database_url: str) -> None:
    """A client that goes away must not leave a transaction open behind it: the next writer gets its turn at once."""
    database = Database.connect(database_url, busy_timeout_s=1.0)
    reached: list[int] = []

    async def write(number: int) -> None:
        async with database.session() as connection:
            await connection.execute(sa.select(skills))
            await connection.execute(skills.insert(), {"name": f"skill {number}", "description": ""})
            reached.append(number)

    for number in range(60):
        task = asyncio.create_task(write(number))
        for _ in range(number):  # each time a little further
            await asyncio.sleep(0.0001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with database.session() as connection:
            await connection.execute(skills.insert(), {"name": f"other {number}", "description": ""})
    async with database.reading() as connection:
        names = set((await connection.scalars(sa.select(skills.c.name))).all())
    await database.close()

    assert {name for name in names if name.startswith("other")} == {f"other {number}" for number in range(60)}
    assert {f"skill {number}" for number in range(60)} - names, "nothing was cancelled before its end"
    assert {name for name in names if name.startswith("skill")} <= {f"skill {number}" for number in reached}


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_a_migration_may_take_longer_than_a_statement(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database.connect(empty_database_url)
    migrate = schema._run_alembic

    def slowly(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT pg_sleep(0.5)"))
        migrate(connection)

    monkeypatch.setattr(schema, "_run_alembic", slowly)
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(database_module, "ANSWER_MARGIN_S", 0.1)
    try:
        await database.upgrade()
        await database.check()
    finally:
        await database.close()
