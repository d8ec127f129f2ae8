"""A real server on a loopback port, with scripted experts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from api.app import create_app
from api.settings import Settings
from tests.fakes.services import Parts


class QuietServer(uvicorn.Server):
    """Leaves the process's signal handlers alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """The base URL of *app*, served until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listener = probe.dup()
    server = QuietServer(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, lifespan="on"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(30):
            while not server.started:
                if task.done():
                    task.result()
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@pytest.fixture
def serving(tmp_path: Path) -> Callable[..., Any]:
    """``async with serving(parts) as url``."""

    def start(parts: Parts, **changes: Any) -> Any:
        settings = Settings(_env_file=None, data_dir=tmp_path, **changes)  # type: ignore[call-arg]
        return listening(create_app(settings, bootstrap=parts.bootstrap()))

    return start
