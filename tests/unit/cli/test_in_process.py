"""The transport to an application in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.in_process import InProcessTransport

WAIT_S = 30.0


class App:
    """Echoes, streams piece by piece as the test allows, and fails."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()
        self.asked = asyncio.Event()
        self.asgi = Starlette(
            routes=[
                Route("/echo", self.echo, methods=["POST"]),
                Route("/stream", self.stream),
                Route("/endless", self.endless),
                Route("/broken", self.broken),
                Route("/half", self.half),
                Route("/silent", self.silent),
            ]
        )

    async def echo(self, request: Request) -> Response:
        body = (await request.body()).decode()
        return JSONResponse({"body": body, "path": request.url.path, "query": dict(request.query_params), "state": request.state.mark})

    async def stream(self, _: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await self.go_on.wait()
            yield b"second"

        return StreamingResponse(pieces())

    async def endless(self, _: Request) -> Response:
        """Sends until nobody listens."""

        class Endless(Response):
            async def __call__(inner, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N805
                await send({"type": "http.response.start", "status": 200, "headers": []})
                try:
                    while True:
                        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                except OSError:
                    self.ended.set()

        return Endless()

    async def silent(self, _: Request) -> Response:
        """Answers nothing until it is cancelled."""
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return Response()

    async def broken(self, _: Request) -> Response:
        raise ZeroDivisionError

    async def half(self, _: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise ZeroDivisionError

        return StreamingResponse(pieces())


@pytest.fixture
async def app() -> App:
    return App()


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx.AsyncClient]:
    transport: Any = InProcessTransport(app.asgi, state={"mark": "from the lifespan"})
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        yield made


async def test_a_request_arrives_whole(client: httpx.AsyncClient) -> None:
    """Body, path, query and the lifespan's state are what the application sees."""
    answer = (await client.post("/echo?a=b%20c", content=b"hello")).json()

    assert answer == {"body": "hello", "path": "/echo", "query": {"a": "b c"}, "state": "from the lifespan"}


async def test_an_answer_streams(client: httpx.AsyncClient, app: App) -> None:
    """The first piece is there while the application still waits to make the second."""
    async with asyncio.timeout(WAIT_S), client.stream("GET", "/stream") as response:
        pieces = response.aiter_raw()
        first = await anext(pieces)
        app.go_on.set()
        rest = [piece async for piece in pieces]

    assert (first, rest) == (b"first", [b"second"])


async def test_leaving_early_ends_the_work(client: httpx.AsyncClient, app: App) -> None:
    """A reader that goes away is a client that disconnects, also when the application waits for room to send."""
    async with asyncio.timeout(WAIT_S):
        async with client.stream("GET", "/endless") as response:
            await anext(response.aiter_raw())
        await app.ended.wait()


@pytest.mark.parametrize("path", ["/broken", "/half"])
async def test_what_the_application_raises_is_raised(client: httpx.AsyncClient, path: str) -> None:
    """Before the answer or in the middle of it: never a hanging reader."""
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(ZeroDivisionError):
            await client.get(path)


async def test_who_is_cancelled_before_an_answer_ends_the_work(client: httpx.AsyncClient, app: App) -> None:
    """As over the network, where the connection is closed: what nobody waits for must not run on."""
    asking = asyncio.create_task(client.get("/silent"))
    async with asyncio.timeout(WAIT_S):
        await app.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await app.ended.wait()


async def test_an_application_that_does_not_answer_in_time_is_left(client: httpx.AsyncClient, app: App) -> None:
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/silent", timeout=0.01)
        await app.ended.wait()


async def test_a_stream_that_falls_silent_is_left(client: httpx.AsyncClient) -> None:
    """Each piece has its own time, as over the network."""
    async with asyncio.timeout(WAIT_S), client.stream("GET", "/stream", timeout=0.01) as response:
        with pytest.raises(httpx.ReadTimeout):
            await response.aread()


async def test_a_reader_that_is_cancelled_leaves_nothing_behind(client: httpx.AsyncClient, app: App) -> None:
    before = asyncio.all_tasks()

    async def read() -> None:
        async with client.stream("GET", "/stream") as response:
            async for _ in response.aiter_raw():
                app.asked.set()

    async with asyncio.timeout(WAIT_S):
        reading = asyncio.create_task(read())
        await app.asked.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    assert asyncio.all_tasks() == before
