"""Every test of this folder runs on SQLite and on PostgreSQL, each on a fresh, migrated database."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from experts_registry.database import Database
from experts_registry.schema import known_revisions
from experts_registry.stores import Stores
from experts_registry.tables import metadata, registry_state
from tests.fakes.postgres import PostgresServer
from tests.integration.conftest import migrated


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
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A migrated database, made for this run."""
    with postgres.new_database() as url:
        asyncio.run(migrated(url))
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if backend == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
        return
    with request.getfixturevalue("postgres").new_database() as url:
        yield url


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
