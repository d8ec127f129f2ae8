"""What a server receives of a request, what is made of its response, and when its connection is used again."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import pytest
from aiohttp.connector import Connection

from workers.addresses import AddressPolicy, AddressRefused
from workers.http_client import HttpClient
from workers.limits import HttpLimits

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
DEADLINE_S = 10.0


class Server:
    """Answers every whole request with the next of *answers*, the last one for ever; keeps what it read."""

    def __init__(self, *answers: bytes, closes: bool = False, stalls: bool = False) -> None:
        self.answers, self.closes, self.stalls = list(answers or [OK]), closes, stalls
        self.reads: list[bytes] = []
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.num_connections = 0
        self.lost = asyncio.Event()
        """A connection has ended."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/x?a=b%20c"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        buffer = b""
        try:
            while piece := await reader.read(1 << 20):
                self.reads.append(piece)
                buffer += piece
                head, found, rest = buffer.partition(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
                if not found or len(rest) < size or self.stalls:
                    continue
                self.heads.append(head.decode())
                self.bodies.append(rest[:size])
                buffer = rest[size:]
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                if self.closes:
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.lost.set()


@asynccontextmanager
async def serving(
    server: Server, limits: HttpLimits | None = None, addresses: AddressPolicy | None = None
) -> AsyncIterator[tuple[Server, HttpClient]]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    client = HttpClient(limits or HttpLimits(), addresses or AddressPolicy())
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield server, client
    finally:
        await client.close()
        listening.close()


async def asked(client: HttpClient, server: Server, body: bytes = b"{}", request_id: str = "r") -> bytes:
    async with client.post(server.url, {"X-Request-Id": request_id}, body) as response:
        return await response.content.read()


async def test_head_and_body_come_in_one_piece_on_a_connection_that_is_kept() -> None:
    async with serving(Server()) as (server, client):
        for number in range(3):
            assert await asked(client, server, b"body %d" % number, f"r{number}") == b"ok"

    assert server.bodies == [b"body 0", b"body 1", b"body 2"]
    assert len(server.reads) == 3
    assert server.num_connections == 1
    lines = server.heads[2].split("\r\n")
    assert lines[0] == "POST /v1/x?a=b%20c HTTP/1.1"
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert "Content-Type: application/json" in lines
    assert "User-Agent: consilium" in lines
    assert "X-Request-Id: r2" in lines
    assert len([line for line in lines if line.lower().startswith("content-length")]) == 1


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 2**20])
async def test_bodies_of_every_size_arrive_whole(size: int) -> None:
    async with serving(Server()) as (server, client):
        assert await asked(client, server, b"x" * size) == b"ok"

    assert server.bodies == [b"x" * size]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx-trailer: 1\r\n\r\n", b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b", b"packed"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_every_way_to_send_a_response_is_understood_and_the_connection_kept(answer: bytes, body: bytes) -> None:
    if b"gzip" in answer:
        packed = gzip.compress(body)
        answer %= (len(packed), packed)
    async with serving(Server(answer)) as (server, client):
        for _ in range(2):
            assert await asked(client, server) == body

        assert server.num_connections == 1


async def test_a_response_that_ends_with_its_connection_is_read_to_its_end() -> None:
    async with serving(Server(b"HTTP/1.1 200 OK\r\n\r\nall of it", closes=True)) as (server, client):
        assert await asked(client, server) == b"all of it"
        assert await asked(client, server) == b"all of it"

    assert server.num_connections == 2


async def test_status_and_headers_are_told() -> None:
    async with (
        serving(Server(b"HTTP/1.1 307 Elsewhere\r\nLocation: /b\r\nContent-Type: Text/HTML; charset=x\r\ncontent-length: 0\r\n\r\n")) as (
            s,
            client,
        ),
        client.get(s.url, {}) as response,
    ):
        assert (response.status, response.headers["location"], response.content_type) == (307, "/b", "text/html")

    assert s.heads[0].startswith("GET /v1/x?a=b%20c HTTP/1.1\r\n")
    assert len(s.heads) == 1, "redirects are not followed"


async def test_whoever_leaves_before_the_end_of_a_response_ends_its_connection() -> None:
    async with serving(Server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nha", OK)) as (server, client):
        async with client.post(server.url, {}, b"{}") as response:
            assert await response.content.readany() == b"ha"
        await server.lost.wait()
        assert await asked(client, server) == b"ok"

    assert server.num_connections == 2


@pytest.mark.parametrize("size", [2, 64 * 2**20])
async def test_whoever_gives_up_waiting_ends_the_connection_at_once(size: int) -> None:
    """Also where most of the request is unsent, since the server does not read."""
    ended, gone, made = asyncio.Event(), asyncio.Event(), []

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cast(asyncio.ReadTransport, writer.transport).pause_reading()
        await ended.wait()
        writer.close()
        gone.set()

    class Watched(HttpClient):
        async def connection(self, request: aiohttp.ClientRequest) -> Connection:
            connection = await super().connection(request)
            made.append(connection.transport)
            return connection

    listening = await asyncio.start_server(deaf, "127.0.0.1", 0)
    client = Watched(HttpLimits(), AddressPolicy())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), client.post(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", {}, b"x" * size):
            pass

    (transport,) = made
    assert transport is not None
    assert transport.is_closing()
    assert transport.get_write_buffer_size() == 0
    ended.set()
    await asyncio.wait_for(gone.wait(), DEADLINE_S)
    await client.close()
    listening.close()


async def test_a_server_that_closes_without_a_word_is_an_error_and_no_hang() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    await _fails_with(close, aiohttp.ClientConnectionError)


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000 + b"\r\n\r\n"])
async def test_what_is_no_http_is_told_as_such(said: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(said)
        await writer.drain()
        writer.close()

    await _fails_with(speak, aiohttp.ClientResponseError)


async def test_half_a_response_is_no_response() -> None:
    async with serving(Server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nha", closes=True)) as (server, client):
        with pytest.raises(aiohttp.ClientPayloadError):
            await asked(client, server)


@pytest.mark.parametrize("url", ["ftp://host/x", "http:///nothing", "http://host:port/x", "no address"])
async def test_what_is_no_address_says_so(url: str) -> None:
    client = HttpClient(HttpLimits(), AddressPolicy())
    with pytest.raises((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        async with client.post(url, {}, b"{}"):
            pass
    await client.close()


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\0b", "\ud800"])
async def test_a_header_cannot_bring_another_one(value: str) -> None:
    async with serving(Server()) as (server, client):
        with pytest.raises(aiohttp.ClientError, match="the header X-Request-Id holds a letter") as caught:
            await asked(client, server, request_id=value)

    assert value not in str(caught.value)
    assert not server.reads


async def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    async with serving(Server()) as (server, client):
        with pytest.raises(aiohttp.InvalidURL, match="put the key into the expert's api_key") as caught:
            client.post(server.url.replace("//", "//user:word@"), {}, b"{}")

    assert "word@" not in str(caught.value)
    assert not server.heads


async def test_a_server_that_answers_before_it_has_read_everything_keeps_nobody_waiting() -> None:
    """What is unsent would stand before the next caller's request on the same connection."""
    too_large = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"
    ended, num_connections = asyncio.Event(), 0

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_connections
        num_connections += 1
        await reader.read(10)
        writer.write(too_large if num_connections == 1 else OK)
        await ended.wait()
        writer.close()

    listening = await asyncio.start_server(hasty, "127.0.0.1", 0, limit=1024)
    client = HttpClient(HttpLimits(), AddressPolicy())
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    statuses = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            for body in (b"x" * (64 * 2**20), b"{}"):
                async with client.post(url, {}, body) as response:
                    await response.content.read()
                    statuses.append(response.status)
    finally:
        ended.set()
        await asyncio.sleep(0.05)
        await client.close()
        listening.close()

    assert statuses == [413, 200]
    assert num_connections == 2


async def test_what_nobody_asked_for_is_not_taken_for_an_answer() -> None:
    async with serving(Server(OK + OK.replace(b"ok", b"no"), OK)) as (server, client):
        assert await asked(client, server) == b"ok"
        await asyncio.sleep(0.05)  # the second answer is there by then
        assert await asked(client, server) == b"ok"

    assert server.num_connections == 2


@pytest.mark.parametrize(("method", "num_asked"), [("GET", 2), ("POST", 1)])
async def test_what_changes_nothing_is_asked_again_where_a_connection_ends_without_a_word(method: str, num_asked: int) -> None:
    num = 0

    async def drop_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num
        num += 1
        await reader.readuntil(b"\r\n\r\n")
        if num > 1:
            writer.write(OK)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(drop_first, "127.0.0.1", 0)
    client = HttpClient(HttpLimits(), AddressPolicy())
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    try:
        async with asyncio.timeout(DEADLINE_S):
            if method == "GET":
                async with client.get(url, {}) as response:
                    assert await response.content.read() == b"ok"
            else:
                with pytest.raises(aiohttp.ClientConnectionError):
                    async with client.post(url, {}, b"{}"):
                        pass
    finally:
        await client.close()
        listening.close()

    assert num == num_asked


async def test_connections_beyond_the_limit_wait_for_one_no_longer_than_connecting_may_take() -> None:
    limits = HttpLimits(max_connections=1, connect_timeout_s=0.2)
    async with serving(Server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nha", OK), limits) as (server, client):
        async with client.post(server.url, {}, b"{}"):
            with pytest.raises(aiohttp.ServerTimeoutError):
                await asked(client, server)
        assert await asked(client, server) == b"ok"


async def test_where_one_may_not_connect_to_is_asked_for_each_connection() -> None:
    async with serving(Server(), addresses=AddressPolicy(["public"])) as (server, client):
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await asked(client, server)

    assert isinstance(caught.value.os_error, AddressRefused)
    assert not server.num_connections


async def test_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.http_client._MAX_ADDRESSES", 3)
    async with serving(Server()) as (server, client):
        for number in range(10):
            async with client.get(f"{server.url}{number}", {}) as response:
                assert await response.content.read() == b"ok"

        assert len(client._known) <= 3
    assert len(server.heads) == 10


async def _fails_with(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], kind: type[aiohttp.ClientError]
) -> None:
    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HttpClient(HttpLimits(), AddressPolicy())
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    try:
        with pytest.raises(kind):
            async with asyncio.timeout(DEADLINE_S), client.post(url, {}, b"body"):
                pass
    finally:
        await client.close()
        listening.close()
