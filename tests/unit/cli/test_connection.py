"""Which service a command talks to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from api.cli import connection
from api.cli.connection import Server, until_ready
from api.cli.failures import CommandFailed
from api.readiness import Readiness


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """``answering(body)``: the URL of a server that answers every GET with *body*."""
    servers: list[HTTPServer] = []

    def start(body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was started in this process, instead of starting it."""
    started: list[str] = []

    @asynccontextmanager
    async def start(settings: object, needs: object) -> AsyncIterator[httpx.AsyncClient]:
        started.append("here")
        async with httpx.AsyncClient() as http:
            yield http

    monkeypatch.setattr(connection, "_in_this_process", start)
    return started


async def where(server: Server) -> str:
    async with server.connect() as client:
        return client.where


async def test_a_service_that_answers_is_used(answering: Callable[[bytes], str], in_process: list[str], tmp_path: Path) -> None:
    url = answering(b'{"status": "ready", "parts": {}}')

    assert await where(Server(url=url + "/v1/", data_dir=tmp_path)) == url
    assert in_process == []


@pytest.mark.parametrize("body", [b"<html>", b'{"hello": 1}', b"[]"])
async def test_another_service_at_a_given_url_is_told(answering: Callable[[bytes], str], body: bytes, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no Consilium"):
        await where(Server(url=answering(body), data_dir=tmp_path))


async def test_a_given_url_has_to_answer(in_process: list[str], tmp_path: Path) -> None:
    """The command fails rather than quietly working on another database."""
    with pytest.raises(CommandFailed, match="consilium serve"):
        await where(Server(url="http://127.0.0.1:9", data_dir=tmp_path))

    assert in_process == []


async def test_without_a_service_the_work_is_done_here_and_told(
    in_process: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connection, "DEFAULT_URL", "http://127.0.0.1:9")

    assert await where(Server(data_dir=tmp_path)) == "this process"
    assert in_process == ["here"]
    assert str(tmp_path) in capsys.readouterr().err


async def test_local_does_not_even_look(answering: Callable[[bytes], str], in_process: list[str], tmp_path: Path) -> None:
    url = answering(b'{"status": "ready", "parts": {}}')

    assert await where(Server(url=url, local=True, data_dir=tmp_path)) == "this process"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x"])
async def test_a_url_that_is_none_is_bad_input(url: str, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as failed:
        await where(Server(url=url, data_dir=tmp_path))

    assert failed.value.exit_code == 2


async def test_the_key_is_given_or_found_in_the_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First --key, then CONSILIUM_ADMIN_KEY, then the data dir's file; none is no error."""
    from api.settings import load_settings

    assert connection.admin_key(load_settings(data_dir=tmp_path)) is None
    (tmp_path / "admin.key").write_text("from the file\n")
    assert connection.admin_key(load_settings(data_dir=tmp_path)) == "from the file"
    monkeypatch.setenv("CONSILIUM_ADMIN_KEY", "from the environment")
    assert connection.admin_key(load_settings(data_dir=tmp_path)) == "from the environment"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://127.0.0.1:8080", "Bearer of-this-machine"),
        ("http://localhost:8080", "Bearer of-this-machine"),
        ("http://[::1]:8080", "Bearer of-this-machine"),
        ("http://127.0.0.1.example:8080", None),
        ("https://consilium.example", None),
        ("http://10.0.0.7:8080", None),
    ],
)
async def test_the_key_of_this_machine_goes_to_no_other(
    url: str, sent: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere is another service, perhaps a stranger's: it gets the key that was given for it, or none."""
    (tmp_path / "admin.key").write_text("of-this-machine\n")
    seen: list[str | None] = []

    async def answers(_: Server) -> str:
        return url

    async def loaded(http: httpx.AsyncClient, *_: object) -> None:
        seen.append(http.headers.get("authorization"))

    monkeypatch.setattr(Server, "_running", answers)
    monkeypatch.setattr(connection, "_until_loaded", loaded)
    await where(Server(url=url, data_dir=tmp_path))
    await where(Server(url=url, data_dir=tmp_path, key="given"))

    assert seen == [sent, "Bearer given"]


async def test_a_service_that_starts_is_waited_for() -> None:
    """The command goes on when what it needs is there, and says once what it waits for."""
    states = [{"missing": {"encoder": "loading", "database": "loading"}}, {"missing": {"encoder": "loading"}}]
    transport = httpx.MockTransport(lambda _: httpx.Response(503, json=states.pop(0)))

    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        await connection._until_loaded(http, "http://test", {"database"})
        states.append({"missing": {"encoder": "the folder is missing"}})
        with pytest.raises(CommandFailed, match="encoder: the folder is missing"):
            await connection._until_loaded(http, "http://test", set(), timeout_s=-1)


@pytest.mark.parametrize("then", [b"", b"<html>", b"[]", b'{"missing": "all"}', httpx.ReadError(""), httpx.ConnectError("refused")])
async def test_a_service_that_dies_while_it_is_waited_for_is_told(then: bytes | httpx.HTTPError) -> None:
    answers: list[bytes | httpx.HTTPError] = [b'{"missing": {"encoder": "loading"}}', then]

    def answer(_: httpx.Request) -> httpx.Response:
        said = answers.pop(0)
        if isinstance(said, httpx.HTTPError):
            raise said
        return httpx.Response(503, content=said)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://test") as http:
        with pytest.raises(CommandFailed, match="http://test"):
            await connection._until_loaded(http, "http://test", set())


async def test_waiting_for_a_start_ends_with_what_is_missing() -> None:
    """Parts that are not needed are not waited for; when time is up the error says what is missing and why."""
    readiness = Readiness({"database": "ready", "encoder": "the model folder is missing"})

    await until_ready(readiness, {"database"})
    with pytest.raises(CommandFailed, match="encoder: the model folder is missing"):
        await until_ready(readiness, set(), timeout_s=0)


async def test_waiting_ends_when_the_part_is_there() -> None:
    readiness = Readiness({"encoder": "loading"})
    asyncio.get_running_loop().call_soon(readiness.done, "encoder")

    async with asyncio.timeout(5):
        await until_ready(readiness, {"encoder"})
