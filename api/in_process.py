"""An HTTP transport whose other end is an ASGI app in this process. Answers stream, as they do over the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import httpx

Message = MutableMapping[str, Any]
AsgiApp = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_MAX_CHUNKS = 64
"""Chunks that wait for the reader; the app waits when there are more."""


class _Exchange:
    """One request to the app and the answer as it comes."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self.started: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_CHUNKS)

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._gone.is_set():
            raise OSError("the reader has gone")
        if message["type"] == "http.response.start":
            self.started.set_result(message)
        elif message["type"] == "http.response.body":
            if body := message.get("body", b""):
                await self.chunks.put(body)
            if not message.get("more_body", False):
                await self.chunks.put(None)

    def leave(self) -> None:
        """Tell the app that nobody reads any more."""
        self._gone.set()
        while not self.chunks.empty():  # a send that waits for room must wake up and see that
            self.chunks.get_nowait()


class _Body(httpx.AsyncByteStream):
    """The answer's body. Closing it early is a client that went away: the app's work for it is cancelled."""

    def __init__(self, exchange: _Exchange, task: asyncio.Task[None]) -> None:
        self._exchange = exchange
        self._task = task

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            chunk = asyncio.create_task(self._exchange.chunks.get())
            waiting: set[asyncio.Future[Any]] = {chunk, self._task}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not chunk.done() and self._exchange.chunks.empty():
                chunk.cancel()
                await self._task  # raises what the app raised
                return
            if (piece := await chunk) is None:
                return
            yield piece

    async def aclose(self) -> None:
        self._exchange.leave()
        if not self._task.done():
            done, _ = await asyncio.wait({self._task}, timeout=1.0)
            if not done:
                self._task.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await self._task


class InProcessTransport(httpx.AsyncBaseTransport):
    """Sends every request to *app*, as coming from this machine. *state* is what the app's lifespan yielded."""

    def __init__(self, app: AsgiApp, *, state: Mapping[str, Any]) -> None:
        self._app = app
        self._state = state

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(await request.aread())
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.split(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port or 80),
            "client": ("127.0.0.1", 0),
            "root_path": "",
            "state": dict(self._state),
        }

        async def serve() -> None:
            await self._app(scope, exchange.receive, exchange.send)

        task = asyncio.create_task(serve())
        waiting: set[asyncio.Future[Any]] = {exchange.started, task}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not exchange.started.done():
            await task  # raises what the app raised before it answered
            raise httpx.RemoteProtocolError("the service ended without an answer", request=request)
        start = exchange.started.result()
        return httpx.Response(start["status"], headers=start["headers"], stream=_Body(exchange, task), request=request)
