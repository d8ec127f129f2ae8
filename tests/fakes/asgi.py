"""One ASGI request, driven by hand: the test sees each message as it is sent and decides when the caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

import orjson

WAIT_S = 30.0


class Exchange:
    """A ``POST`` of a JSON body to *app*. ``sent`` collects what comes back."""

    def __init__(self, app: Any, path: str, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self._app, self._body = app, orjson.dumps(body)
        self._gone, self._stirred = asyncio.Event(), asyncio.Event()
        self._delivered = False
        self.refuse_writes = False
        """Makes every send fail, as a broken connection does."""
        given = {"host": "localhost", "content-type": "application/json", **(headers or {})}
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
            "root_path": "",
        }

    def start(self) -> asyncio.Task[None]:
        self.task = asyncio.create_task(self._app(self._scope, self._receive, self._send))
        return self.task

    def leave(self) -> None:
        """The caller closes the connection."""
        self._gone.set()

    async def until(self, text: bytes) -> None:
        """Wait until *text* has been sent."""
        async with asyncio.timeout(WAIT_S):
            while text not in self.body:
                self._stirred.clear()
                await self._stirred.wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def _receive(self) -> dict[str, Any]:
        if not self._delivered:
            self._delivered = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if self.refuse_writes:
            raise OSError("broken pipe")
        self.sent.append(message)
        self._stirred.set()
