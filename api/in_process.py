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
_END_S = 1.0
"""Longest that an app may take to notice that its reader has gone, and again to end when it is cancelled."""
SCOPE = "asgi_scope"
"""Extension of a request: entries of the scope that the app sees. Over the network nobody can set any."""


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

    def __init__(self, exchange: _Exchange, task: asyncio.Task[None], silence_s: float | None) -> None:
        self._exchange = exchange
        self._task = task
        self._silence_s = silence_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            chunk = asyncio.create_task(self._exchange.chunks.get())
            waiting: set[asyncio.Future[Any]] = {chunk, self._task}
            try:
                done, _ = await asyncio.wait(waiting, timeout=self._silence_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    raise httpx.ReadTimeout(f"nothing came for {self._silence_s:g} s")
                if not chunk.done() and self._exchange.chunks.empty():
                    await self._task  # raises what the app raised
                    return
                piece = await chunk
            finally:
                chunk.cancel()  # a reader that is cancelled leaves nobody waiting for the next one
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        self._exchange.leave()
        try:
            if not self._task.done():
                await asyncio.wait({self._task}, timeout=_END_S)
        finally:
            await _end(self._task)
        with suppress(asyncio.CancelledError, OSError):
            if self._task.done():
                self._task.result()


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel *task*, and return when it has ended."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_END_S)
    if task.done() and not task.cancelled():
        task.exception()  # seen, so that nobody logs it as lost


class InProcessTransport(httpx.AsyncBaseTransport):
    """Sends every request to *app*, as coming from this machine. *state* is what the app's lifespan yielded.

    Of a request's timeouts ``read`` holds: for the head of the answer, and for each piece of it.
    """

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
            **request.extensions.get(SCOPE, {}),
        }
        silence_s: float | None = request.extensions.get("timeout", {}).get("read")

        async def serve() -> None:
            await self._app(scope, exchange.receive, exchange.send)

        task = asyncio.create_task(serve())
        waiting: set[asyncio.Future[Any]] = {exchange.started, task}
        try:
            done, _ = await asyncio.wait(waiting, timeout=silence_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise httpx.ReadTimeout(f"the service did not answer within {silence_s:g} s", request=request)
        except BaseException:  # the caller waits no more, so nobody closes what is not there yet
            exchange.leave()
            await _end(task)
            raise
        if not exchange.started.done():
            await task  # raises what the app raised before it answered
            raise httpx.RemoteProtocolError("the service ended without an answer", request=request)
        start = exchange.started.result()
        return httpx.Response(start["status"], headers=start["headers"], stream=_Body(exchange, task, silence_s), request=request)
