"""Every test of this folder runs on SQLite and on PostgreSQL, each on a fresh, migrated database.

PostgreSQL is the server at ``CONSILIUM_TEST_POSTGRES_URL``; ``CONSILIUM_TEST_POSTGRES=off`` leaves it out on purpose.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from experts_registry.database import Database
from experts_registry.schema import known_revisions
from experts_registry.stores import Stores
from experts_registry.tables import metadata, registry_state

SERVER_URL = os.environ.get("CONSILIUM_TEST_POSTGRES_URL", "postgresql+asyncpg://root@127.0.0.1:5432/")
BACKENDS = ["sqlite"] if os.environ.get("CONSILIUM_TEST_POSTGRES") == "off" else ["sqlite", "postgresql"]


async def _on_server(statement: str) -> None:
    url = make_url(SERVER_URL).set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError) as error:
        pytest.fail(
            f"no PostgreSQL answers at {make_url(SERVER_URL)!r} ({error}): start one, name one in CONSILIUM_TEST_POSTGRES_URL, "
            "or set CONSILIUM_TEST_POSTGRES=off to test on SQLite alone",
            pytrace=False,
        )
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _url_of(name: str) -> str:
    return make_url(SERVER_URL).set(database=name).render_as_string(hide_password=False)


async def _migrate(url: str) -> None:
    database = Database.connect(url)
    try:
        await database.upgrade()
    finally:
        await database.close()


async def _clear(url: str) -> None:
    """Back to what migration leaves: emptying tables is much faster than making a database."""
    database = Database.connect(url)
    try:
        async with database.session() as connection:
            for table in reversed(metadata.sorted_tables):
                await connection.execute(table.delete())
            await connection.execute(registry_state.insert(), {"id": 1, "version": 0, "questions_version": 0})
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = :newest"), {"newest": known_revisions()[0]})
    finally:
        await database.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A migrated database, made for this run."""
    name = f"consilium_test_{uuid.uuid4().hex[:12]}"
    asyncio.run(_on_server(f'CREATE DATABASE "{name}"'))
    try:
        asyncio.run(_migrate(_url_of(name)))
        yield _url_of(name)
    finally:
        asyncio.run(_on_server(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database_url(backend: str, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if backend == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
        return
    name = f"consilium_test_{uuid.uuid4().hex[:12]}"
    asyncio.run(_on_server(f'CREATE DATABASE "{name}"'))
    yield _url_of(name)
    asyncio.run(_on_server(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def database_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    if backend == "sqlite":
        path = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "consilium.db")
        yield f"sqlite+aiosqlite:///{path}"
        return
    url: str = request.getfixturevalue("postgres_url")
    asyncio.run(_clear(url))
    yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    connected = Database.connect(database_url)
    yield connected
    await connected.close()


@pytest.fixture
async def other_process(database_url: str) -> AsyncIterator[Database]:
    """The same database through connections of its own, as another process has it."""
    connected = Database.connect(database_url)
    yield connected
    await connected.close()


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores.of(database)
