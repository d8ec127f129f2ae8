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
from sqlalchemy.engine import URL, make_url

from experts_registry.database import Database
from experts_registry.stores import Stores

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


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """A migrated database to copy: copying is faster than migrating."""
    name = f"consilium_test_{uuid.uuid4().hex[:12]}"
    asyncio.run(_on_server(f'CREATE DATABASE "{name}"'))
    try:
        asyncio.run(_migrate(_url_of(name)))
        yield name
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
    name = f"consilium_test_{uuid.uuid4().hex[:12]}"
    template = request.getfixturevalue("postgres_template")
    asyncio.run(_on_server(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    yield _url_of(name)
    asyncio.run(_on_server(f'DROP DATABASE "{name}" WITH (FORCE)'))


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


@pytest.fixture
def server_url() -> URL:
    return make_url(SERVER_URL)
