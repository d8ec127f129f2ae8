"""An app that listens on loopback in a thread of its own, for what brings an event loop itself: commands, browsers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

START_WITHIN_S = 60.0


class _Server(uvicorn.Server):
    """Runs in a thread, where signals cannot be handled, and tells when it listens."""

    listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of *app*, served until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))
    server.listening = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        assert server.listening.wait(START_WITHIN_S)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_WITHIN_S)
