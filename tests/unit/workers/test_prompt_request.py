"""What a server receives of a request whose body is sent at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from workers.prompt_request import MAX_BYTES, PromptRequest


class Server:
    """Keeps what each ``read`` gave, and answers a whole request."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = b""
        while piece := await reader.read(1 << 20):
            self.reads.append(piece)
            buffer += piece
            head, found, rest = buffer.partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
            if not found or len(rest) < size:
                continue
            self.bodies.append(rest[:size])
            buffer = rest[size:]
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listening:
        yield server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"


async def test_head_and_body_come_together_on_a_connection_that_is_kept() -> None:
    async with served() as (server, url), aiohttp.ClientSession(request_class=PromptRequest) as session:
        for number in range(3):
            async with session.post(url, data=b"body %d" % number) as response:
                assert await response.read() == b"ok"

    assert server.bodies == [b"body 0", b"body 1", b"body 2"]
    assert len(server.reads) == 3


@pytest.mark.parametrize("body", [b"", b"x" * MAX_BYTES, b"y" * (MAX_BYTES + 1), b"z" * (16 * MAX_BYTES)])
async def test_bodies_of_every_size_arrive_whole(body: bytes) -> None:
    async with (
        served() as (server, url),
        aiohttp.ClientSession(request_class=PromptRequest) as session,
        session.post(url, data=body) as response,
    ):
        assert await response.read() == b"ok"

    assert server.bodies == [body]


async def test_a_body_in_pieces_is_the_library_s_to_send() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.01)
        yield b"b"

    async with (
        served() as (server, url),
        aiohttp.ClientSession(request_class=PromptRequest) as session,
        session.post(url, data=pieces(), headers={"content-length": "2"}) as response,
    ):
        assert await response.read() == b"ok"

    assert server.bodies == [b"ab"]


async def test_a_server_that_has_closed_the_connection_is_an_error_and_no_hang() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    listening = await asyncio.start_server(close, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    async with listening, aiohttp.ClientSession(request_class=PromptRequest) as session:
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(10), session.post(url, data=b"body"):
                pass
