"""Answers in one piece: byte for byte what uvicorn sends, in one write."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http_protocol import BoundedHttpProtocol

App = Callable[[Any, Any, Any], Awaitable[None]]
Message = dict[str, Any]

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
JSON = (b"content-type", b"application/json")
DEADLINE_S = 10.0


def head(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes = b"", **more: bool) -> Message:
    return {"type": "http.response.body", "body": content, **more}


def length(num: int) -> tuple[bytes, bytes]:
    return b"content-length", str(num).encode()


class Server:
    """Says *messages* to every request but one for ``/last``, whose answer is plain; each write of its connections is kept."""

    def __init__(self, protocol: type[HttpToolsProtocol], messages: list[Message]) -> None:
        self._messages = messages
        self.writes: list[bytes] = []
        self.errors: list[str] = []
        self._protocol = protocol

    async def app(self, scope: Any, _receive: Any, send: Any) -> None:
        messages = [head(length(4)), body(b"last")] if scope["path"] == "/last" else [{**message} for message in self._messages]
        for message in messages:
            try:
                await send(message)
            except RuntimeError as error:
                self.errors.append(str(error))
                raise

    async def answer_to(self, sent: bytes) -> bytes:
        """Everything that comes until the server closes the connection."""
        config = uvicorn.Config(self.app, interface="asgi3", lifespan="off", log_config=None, access_log=False, ws="none")
        config.load()
        writes = self.writes

        class Watched(self._protocol):  # type: ignore[name-defined, misc]
            def connection_made(self, transport: asyncio.Transport) -> None:
                super().connection_made(_Kept(transport, writes))

        state = uvicorn.server.ServerState()
        state.default_headers = [(b"server", b"uvicorn")]
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: Watched(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
        async with listening, asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
            try:
                writer.write(sent)
                return await reader.read()
            finally:
                writer.close()


class _Kept:
    """A transport whose writes are kept."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


CASES: dict[str, list[Message]] = {
    "whole": [head(JSON, length(2)), body(b"{}")],
    "without a body": [head(JSON, length(0)), body()],
    "an error": [head(JSON, length(2), status=503), body(b"{}")],
    "a status without a name": [head(length(2), status=599), body(b"{}")],
    "the same header twice": [head((b"set-cookie", b"a"), (b"set-cookie", b"b"), length(1)), body(b"x")],
    "a tab and letters beyond ASCII": [head((b"x-a", "a\tä".encode("latin-1")), length(1)), body(b"x")],
    "no length": [head(JSON), body(b"{}")],
    "capitals": [head((b"Connection", b"close"), length(2)), body(b"{}")],
    "chunked in capitals": [head((b"Transfer-Encoding", b"chunked"), length(2)), body(b"{}")],
    "a name with a space": [head((b"x y", b"1"), length(2)), body(b"{}")],
    "no length, nothing": [head(JSON), body()],
    "two pieces": [head(JSON, length(4)), body(b"{}", more_body=True), body(b"[]")],
    "pieces without a length": [head(JSON), body(b"{}", more_body=True), body(b"[]", more_body=True), body()],
    "no content": [head(status=204), body()],
    "no content, with a length": [head(length(0), status=204), body()],
    "not modified": [head(length(5), status=304), body()],
    "closing": [head(JSON, (b"connection", b"close"), length(2)), body(b"{}")],
    "chunked by itself": [head((b"transfer-encoding", b"chunked")), body(b"{}")],
    "too long a body": [head(length(1)), body(b"{}")],
    "too short a body": [head(length(3)), body(b"{}")],
    "a header with a line's end": [head((b"x-a", b"a\r\nx-b: c"), length(1)), body(b"x")],
    "a header with half a line's end": [head((b"x-a", b"a\nx-b: c"), length(1)), body(b"x")],
    "a header with a zero": [head((b"x-a", b"a\0"), length(1)), body(b"x")],
    "nothing at all": [],
    "more than an answer": [head(length(1)), body(b"x"), body(b"y")],
    "two heads": [head(length(1)), head(length(1))],
    "a body first": [body(b"x")],
}
REQUESTS = {
    "GET": GET,
    "HEAD": GET.replace(b"GET", b"HEAD"),
    "of old": b"GET / HTTP/1.0\r\n\r\n",
    "last one": LAST.replace(b"/last", b"/"),
    "two at once": GET + GET,
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("messages", CASES.values(), ids=CASES)
async def test_what_is_sent_is_what_uvicorn_sends(messages: list[Message], request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")
    ours, uvicorns = Server(BoundedHttpProtocol, messages), Server(HttpToolsProtocol, messages)
    answers = [await server.answer_to(request_ + LAST) for server in (ours, uvicorns)]

    assert answers[0] == answers[1]
    assert ours.errors == uvicorns.errors


async def test_a_head_that_nothing_follows_is_an_error_and_not_half_an_answer() -> None:
    answer = await Server(BoundedHttpProtocol, [head(length(1))]).answer_to(GET)

    assert answer.startswith(b"HTTP/1.1 500")


async def test_an_answer_is_one_write_without_uvicorn_s_way_and_its_connection_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    send = RequestResponseCycle.send

    async def told(cycle: RequestResponseCycle, message: Any) -> None:
        sent.append(message["type"])
        await send(cycle, message)

    monkeypatch.setattr(RequestResponseCycle, "send", told)
    await Server(BoundedHttpProtocol, CASES["no length"]).answer_to(GET + LAST)
    assert sent == ["http.response.start", "http.response.body"], "of the first request; the last one's is a whole answer"
    sent.clear()
    server = Server(BoundedHttpProtocol, CASES["whole"])
    answer = await server.answer_to(GET * 3 + LAST)
    assert not sent

    whole = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    assert server.writes[:3] == [whole] * 3
    assert len(server.writes) == 4
    assert re.findall(rb"HTTP/1.1 200", answer) == [b"HTTP/1.1 200"] * 4


async def test_whoever_waits_before_sending_a_body_waits_before_the_pieces_go_on() -> None:
    """A request that was asked to go on (100) is told so once, and its answer follows."""
    sent = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n"
    answers = [await Server(protocol, CASES["whole"]).answer_to(sent + LAST) for protocol in (BoundedHttpProtocol, HttpToolsProtocol)]

    assert answers[0] == answers[1]
