"""TLS, other sites' pages, and the bounds of a request's head."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydantic import SecretStr

from api import http_protocol
from api.http_protocol import MAX_HEAD_BYTES, BoundedHttpProtocol, HeldHead
from api.settings import SettingsError, load_settings
from tests.fakes.services import parts

ORIGIN = "https://app.example.org"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tls_cert": "cert.pem"}, "CONSILIUM_TLS_KEY"),
        ({"tls_cert": "/nowhere/cert.pem", "tls_key": "/nowhere/key.pem"}, "cannot be used"),
        ({"cors_origins": "*"}, "never"),
        ({"cors_origins": "app.example.org"}, "is no origin"),
        ({"expert_networks": "privat"}, "did you mean 'private'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_the_start(
    given: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=says):
        load_settings(**given)


async def test_other_sites_are_let_in_by_name_only(serve: Any) -> None:
    preflight = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    closed, opened = await serve(parts({"a": "1"})), await serve(parts({"a": "1"}), cors_origins=ORIGIN)

    assert "access-control-allow-origin" not in (await closed.options("/v1/chat/completions", headers=preflight)).headers
    allowed = await opened.options("/v1/chat/completions", headers=preflight)
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    other = await opened.options("/v1/chat/completions", headers={**preflight, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


async def test_openai_s_client_may_ask_from_a_browser(serve: Any) -> None:
    """It sends headers of its own with every request."""
    opened = await serve(parts({"a": "1"}), cors_origins=ORIGIN)
    wanted = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-retry-count,x-stainless-timeout"
    preflight = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": wanted}

    allowed = await opened.options("/v1/chat/completions", headers=preflight)

    assert allowed.status_code == 200
    assert set(wanted.split(",")) <= {name.strip() for name in allowed.headers["access-control-allow-headers"].split(",")}


@pytest.mark.parametrize(("sent", "status"), [({"authorization": ""}, 401), ({"content-length": "99000000"}, 413), ({}, 429)])
async def test_pages_of_other_sites_can_read_why_they_were_refused(serve: Any, sent: dict[str, str], status: int) -> None:
    """A browser hides answers without the header: a limit would look like a network that is down."""
    service = parts({"a": "1"})
    opened = await serve(service, cors_origins=ORIGIN, api_keys=SecretStr("a-data-key"))
    if status == 429:
        opened._transport.app.state.drain.num_running = 10_000
    headers = {"origin": ORIGIN, "authorization": "Bearer a-data-key", "content-type": "application/json", **sent}

    refused = await opened.post("/v1/chat/completions", content=b"{}", headers=headers)

    assert refused.status_code == status
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    assert refused.headers["x-request-id"]


async def answer_to(pieces: list[bytes]) -> bytes:
    """What a server with the protocol says to *pieces*, sent one by one as it reads them, until it closes the connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/slow"):
            while (await receive()).get("more_body"):
                pass
            await asyncio.sleep(0.2)
        told = [] if scope["path"] == "/slow/kept" else [(b"connection", b"close")]
        if scope["path"] == "/echo":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            told.append((b"x-body", body.hex().encode()))
        await send({"type": "http.response.start", "status": 204, "headers": told})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none")
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BoundedHttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


async def test_a_head_that_is_too_large_is_refused() -> None:
    whole = b"GET / HTTP/1.1\r\nhost: a\r\nx-a: " + b"a" * MAX_HEAD_BYTES
    answer = await answer_to([whole])

    assert answer.startswith(b"HTTP/1.1 431")
    assert b"headers_too_large" in answer


async def test_a_head_that_does_not_come_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.05)

    assert (await answer_to([b"GET / HTTP/1.1\r\nhost: a\r\n"])).startswith(b"HTTP/1.1 408")
    assert await answer_to([]) == b""


async def test_an_ordinary_request_is_answered() -> None:
    assert (await answer_to([b"GET / HTTP/1.1\r\n", b"host: a\r\n\r\n"])).startswith(b"HTTP/1.1 204")


SLOW = b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n"


@pytest.mark.parametrize("pieces", [[SLOW + b"123456"], [SLOW, b"123456"], [SLOW + b"1", b"23456"]], ids=["at once", "in two", "cut"])
async def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    """Behind a request that is there, nothing is waited for: not even where its head and its body came together."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.05)

    assert (await answer_to(pieces)).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("stray", [b"\r\n", b"GET / HTTP/1.1\r\nx-a: ", b"GET / HTTP/1.1\r\nx-a: " + b"a" * MAX_HEAD_BYTES])
async def test_nothing_is_written_into_an_answer_that_is_going_out(monkeypatch: pytest.MonkeyPatch, stray: bytes) -> None:
    """Some clients send an empty line behind a body, or the next request's beginning: neither is late while an answer is made."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.05)
    closing = SLOW.replace(b"host: a", b"host: a\r\nconnection: close")

    answer = await answer_to([closing + b"123456", stray])

    assert answer.startswith(b"HTTP/1.1 204")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_head_that_began_during_an_answer_is_waited_for_no_longer_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.05)

    answer = await answer_to([SLOW.replace(b"/slow", b"/slow/kept") + b"123456", b"GET / HTTP/1.1\r\nhost: "])

    assert [line[:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/")] == [b"HTTP/1.1 204", b"HTTP/1.1 408"]


class Written:
    """A transport that keeps what is written to it, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.writes.append(b"closed")

    get_extra_info = is_closing = pause_reading = resume_reading = set_protocol = close


async def test_head_and_body_of_an_answer_are_written_at_once() -> None:
    inner = Written()
    transport = HeldHead(inner, asyncio.get_running_loop())  # type: ignore[arg-type]
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    transport.write(b"whole")
    transport.write(b"more")

    assert inner.writes == [b"HTTP/1.1 200 OK\r\n\r\nwhole", b"more"]


async def test_a_head_waits_for_nothing_that_does_not_come() -> None:
    inner = Written()
    transport = HeldHead(inner, asyncio.get_running_loop())  # type: ignore[arg-type]
    transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await asyncio.sleep(0)
    transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    transport.close()
    await asyncio.sleep(0)

    assert inner.writes == [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", b"closed"]


TEXT = b"first\nupgrade: none\n"
UPGRADE = (
    b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    b"content-length: 20\r\n\r\n" + TEXT
)


@pytest.mark.parametrize("cut", [0, 60, 100, 140, 150])
@pytest.mark.parametrize("wanted", [b"h2c", b"websocket"])
async def test_a_request_that_would_rather_have_another_protocol_keeps_its_body(wanted: bytes, cut: int) -> None:
    """Java's client asks for HTTP/2 with its requests; the parser would take the body for that protocol's, and drop it."""
    sent = UPGRADE.replace(b"h2c", wanted)
    answer = await answer_to([piece for piece in (sent[:cut], sent[cut:]) if piece])

    assert answer.startswith(b"HTTP/1.1 204")
    assert b"x-body: " + TEXT.hex().encode() in answer


async def test_an_upgrade_that_was_not_seen_is_refused_rather_than_its_body_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the header's name came in two packets."""
    monkeypatch.setattr(http_protocol, "_UPGRADE", re.compile(b"(?!)"))
    answer = await answer_to([UPGRADE])

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"without the header Upgrade" in answer


@pytest.mark.parametrize(
    "sent", [b"\0" * 100, b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n"]
)
async def test_what_is_no_request_is_a_400_in_openai_s_shape(sent: bytes) -> None:
    answer = await answer_to([sent])
    head, _, body = answer.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert b"content-type: application/json" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
