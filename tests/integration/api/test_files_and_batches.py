"""Files and batches over HTTP on a real database: OpenAI's client reads every object, and every bad input says what to do.

Nobody runs the batches here: a test enters their states itself.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from api.batch_output import output_line
from domain.batch import BatchError, BatchLine, BatchRunner, BatchState, FilePurpose, InputLine, LineResult
from experts_registry import file_contents
from experts_registry.batches import BatchStore
from experts_registry.database import Database
from experts_registry.files import FileStore
from tests.fakes.services import Parts, parts, registry

LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "auto", "messages": [{"role": "user", "content": "hi"}]},
}
INPUT = json.dumps(LINE).encode() + b"\n"
CHAT = "/v1/chat/completions"
WAIT_S = 10.0


@pytest.fixture
async def database(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Database]:
    connected = Database.connect(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'consilium.db')}", busy_timeout_s=0.2)
    yield connected
    await connected.close()


@pytest.fixture
def made(database: Database, tmp_path: Path) -> Parts:
    made = parts({"maths": "42"})
    made.file_store, made.batch_store = FileStore(database, tmp_path / "files"), BatchStore(database)
    return made


@pytest.fixture
async def url(made: Parts, serving: Any) -> AsyncIterator[str]:
    async with serving(made, max_file_bytes=100_000, max_files_bytes=150_000) as url:
        yield url


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def nothing_stored(tmp_path: Path) -> Iterator[None]:
    yield
    assert list((tmp_path / "files").glob("*")) == []


async def uploaded(client: openai.AsyncOpenAI, content: bytes = INPUT) -> str:
    return (await client.files.create(file=("in.jsonl", content), purpose="batch")).id


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def form(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"files": list(fields)}


FILE = ("file", ("in.jsonl", INPUT))
PURPOSE = ("purpose", (None, "batch"))


# --- files ------------------------------------------------------------------------------------------------------------


async def test_files_with_openais_client(client: openai.AsyncOpenAI) -> None:
    """Created, listed over pages, looked at, read and deleted; every object is one of OpenAI's models."""
    made = [await client.files.create(file=("José.jsonl", INPUT * n), purpose="batch") for n in (1, 2, 3)]
    first = made[0]
    listed = [file.id async for file in client.files.list(limit=2)]
    oldest_first = [file.id async for file in client.files.list(limit=1, order="asc", purpose="batch")]

    assert (first.object, first.purpose, first.filename, first.bytes) == ("file", "batch", "José.jsonl", len(INPUT))
    assert first.expires_at is not None
    assert abs(first.expires_at - first.created_at - 30 * 86_400) <= 1
    assert listed == [file.id for file in reversed(made)]
    assert oldest_first == listed[::-1]
    assert [file.id async for file in client.files.list(purpose="batch_output")] == []
    assert await client.files.retrieve(first.id) == first
    assert (await client.files.content(made[1].id)).content == INPUT * 2
    assert (await client.files.delete(first.id)).deleted
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        await client.files.retrieve(first.id)


async def test_a_file_may_be_kept_for_less(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    made = await client.files.create(file=("in.jsonl", INPUT), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200})
    wrong = await http.post(
        "/v1/files", **form(PURPOSE, ("expires_after[anchor]", (None, "created_at")), ("expires_after[seconds]", (None, "60")), FILE)
    )

    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 7200) <= 1
    assert error_of(wrong, 400)["param"] == "expires_after.seconds"


async def test_the_purpose_may_come_behind_the_file(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/files", **form(FILE, PURPOSE))

    assert response.json()["bytes"] == len(INPUT)


async def test_content_is_sent_in_pieces_and_never_as_a_page(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    file_id = await uploaded(client, b"<script>\n" * 10_000)
    response = await http.get(f"/v1/files/{file_id}/content")

    assert response.content == b"<script>\n" * 10_000
    assert response.headers["content-length"] == "90000"
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''in.jsonl"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ([FILE], "purpose", "no part 'purpose': send purpose=batch"),
        ([PURPOSE], "file", "no part 'file'"),
        ([PURPOSE, FILE, FILE], "file", "two files: upload each"),
        ([("purpose", (None, "bach")), FILE], "purpose", "'bach' are not taken: did you mean 'batch'?"),
        ([("purpose", (None, "fine-tune")), FILE], "purpose", "known are batch"),
        ([PURPOSE, ("file", (None, INPUT))], "file", "is no file: send it with a file name"),
        ([PURPOSE, ("file", ("in.jsonl", b""))], "file", "the file is empty"),
        ([("purpose", (None, "b" * 2000)), FILE], "purpose", "more than 1024 bytes"),
    ],
)
@pytest.mark.usefixtures("nothing_stored")
async def test_a_form_that_is_not_right_says_why(http: httpx.AsyncClient, fields: list[Any], param: str, says: str) -> None:
    error = error_of(await http.post("/v1/files", **form(*fields)), 400)

    assert error["param"] == param
    assert says in error["message"]


@pytest.mark.usefixtures("nothing_stored")
async def test_half_a_form_is_no_form(http: httpx.AsyncClient) -> None:
    whole = httpx.Request("POST", "http://x", **form(PURPOSE, FILE))
    body = whole.read()[:-20]

    error = error_of(await http.post("/v1/files", content=body, headers={"content-type": whole.headers["content-type"]}), 400)
    assert "ends before its last boundary" in error["message"]


@pytest.mark.parametrize("num_bytes", [100_001, 100_000 + 200_000])
@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.usefixtures("nothing_stored")
async def test_a_file_that_is_too_large_is_refused(http: httpx.AsyncClient, num_bytes: int, is_declared: bool) -> None:
    """With a declared length and without, a little too large and much."""
    whole = httpx.Request("POST", "http://x", **form(PURPOSE, ("file", ("in.jsonl", b"x" * num_bytes))))
    body = whole.read()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    content = body if is_declared else pieces()
    error = error_of(await http.post("/v1/files", content=content, headers={"content-type": whole.headers["content-type"]}), 413)

    assert "larger than 100,000 bytes (CONSILIUM_MAX_FILE_BYTES)" in error["message"]


async def test_files_together_have_a_bound(client: openai.AsyncOpenAI) -> None:
    first = await uploaded(client, b"x" * 100_000)
    with pytest.raises(openai.APIStatusError, match="delete some first") as caught:
        await uploaded(client, b"x" * 60_000)
    await client.files.delete(first)

    assert caught.value.status_code == 413
    await uploaded(client, b"x" * 60_000)


class Upload:
    """One that is sent in two halves, so that several run at once."""

    def __init__(self, http: httpx.AsyncClient, size: int) -> None:
        self._half, self._rest = b"x" * (size // 2), asyncio.Event()
        self._request = asyncio.create_task(
            http.post("/v1/files", content=self._pieces(), headers={"content-type": "multipart/form-data; boundary=x"})
        )

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n' + self._half
        await self._rest.wait()
        yield self._half + b"\r\n--x--\r\n"

    async def finish(self) -> int:
        """The status that it is answered with."""
        self._rest.set()
        return (await self._request).status_code


async def until_received(made: Parts, num_bytes: int) -> None:
    """But for the last few of each upload, which may be the beginning of its end."""
    async with asyncio.timeout(WAIT_S):
        while abs(made.upload_room._num_taken - num_bytes) > 100:
            await asyncio.sleep(0.01)


async def test_uploads_that_run_at_once_have_the_bound_together(made: Parts, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """Together too large, and each alone not: the one that comes too far is refused, the others are not for its sake."""
    uploads = [Upload(http, 80_000) for _ in range(3)]
    await until_received(made, 120_000)

    assert await uploads[0].finish() == 413
    await until_received(made, 80_000)
    assert len(list((tmp_path / "files").iterdir())) == 2, "what is refused takes no room while it is read to its end"
    assert await uploads[1].finish() == 200
    assert await uploads[2].finish() == 413
    await until_received(made, 0)
    assert await Upload(http, 70_000).finish() == 200


async def test_an_upload_is_refused_when_another_process_has_filled_the_room_meanwhile(
    made: Parts, http: httpx.AsyncClient, database: Database, tmp_path: Path
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x" * 100_000

    upload = Upload(http, 80_000)
    await until_received(made, 40_000)
    other = await FileStore(database, tmp_path / "files").create("other", FilePurpose.BATCH_OUTPUT, content())

    assert await upload.finish() == 413
    assert [path.name for path in (tmp_path / "files").iterdir()] == [other.id]


@pytest.mark.usefixtures("nothing_stored")
async def test_an_upload_that_stalls_is_ended(made: Parts, serving: Any) -> None:
    head = "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\n\r\n"
    for settings, says in (
        ({"body_timeout_s": 0.05}, b"nothing of the file arrived"),
        ({"file_timeout_s": 0.05}, b"did not arrive within"),
    ):
        async with serving(made, **settings) as url:
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode() + b"--x\r\n")
            answer = await asyncio.wait_for(reader.read(4096), WAIT_S)
            writer.close()
            await writer.wait_closed()

        assert b"400 Bad Request" in answer
        assert says in answer


@pytest.mark.usefixtures("nothing_stored")
async def test_nothing_stays_of_an_upload_that_is_broken_off(
    http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, discarded = asyncio.Event(), asyncio.Event()
    discard = file_contents.NewContent.discard

    async def told(self: file_contents.NewContent) -> None:
        await discard(self)
        discarded.set()

    async def pieces() -> AsyncIterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n123'
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(file_contents.NewContent, "discard", told)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    request = asyncio.create_task(http.post("/v1/files", content=pieces(), headers=kind))
    await begun.wait()
    async with asyncio.timeout(WAIT_S):
        while not list((tmp_path / "files").glob("*.part")):  # the server has seen the beginning
            await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await asyncio.wait_for(discarded.wait(), WAIT_S)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://behind-a-proxy.example"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "SELF"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
    ],
)
async def test_a_page_of_another_site_uploads_nothing(http: httpx.AsyncClient, url: str, headers: dict[str, str], status: int) -> None:
    own = {name: url if value == "SELF" else value for name, value in headers.items()}
    response = await http.post("/v1/files", headers=own, **form(PURPOSE, FILE))

    assert response.status_code == status


async def test_a_form_is_taken_nowhere_else_and_nothing_else_here(http: httpx.AsyncClient) -> None:
    elsewhere = await http.post("/v1/batches", **form(PURPOSE, FILE))
    no_form = await http.post("/v1/files", json={"purpose": "batch"})

    assert "send application/json" in error_of(elsewhere, 415)["message"]
    assert "send multipart/form-data" in error_of(no_form, 415)["message"]


async def test_files_and_batches_ask_for_the_key(made: Parts, serving: Any) -> None:
    async with serving(made, api_keys="secret") as url, httpx.AsyncClient(base_url=url) as http:
        for method, path in (
            ("POST", "/v1/files"),
            ("GET", "/v1/files"),
            ("GET", "/v1/files/x/content"),
            ("DELETE", "/v1/files/x"),
            ("POST", "/v1/batches"),
            ("GET", "/v1/batches/x"),
            ("POST", "/v1/batches/x/cancel"),
        ):
            assert (await http.request(method, path)).status_code == 401


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_batches_with_openais_client(client: openai.AsyncOpenAI, made: Parts) -> None:
    """From file to output, with every moment, count and error that OpenAI's models know."""
    store: BatchStore = made.batch_store
    file_id = await uploaded(client)
    batch = await client.batches.create(
        input_file_id=file_id,
        endpoint=CHAT,
        completion_window="24h",
        metadata={"for": "tests"},
        extra_body={"consilium": {"strategy": "panel", "max_calls": 9}},
    )

    assert (batch.object, batch.status, batch.input_file_id, batch.endpoint) == ("batch", "validating", file_id, CHAT)
    assert (batch.expires_at, batch.completion_window) == (batch.created_at + 86_400, "24h")
    assert (batch.metadata, batch.errors, batch.output_file_id) == ({"for": "tests"}, None, None)
    assert batch.model_extra == {
        "consilium": {"strategy": "panel", "max_calls": 9, "max_tokens": None, "num_calls": 0, "runner": "service"}
    }
    assert made.num_wakes == 1
    claimed = await store.claim("me", lease_s=60, runner=BatchRunner.SERVICE)
    assert claimed is not None

    await store.enter(batch.id, BatchState.IN_PROGRESS)
    journal = store.journal(batch.id, "me")

    await journal.keep_lines([InputLine(BatchLine(n, f"id-{n}"), 0, 1) for n in (1, 2, 3)])
    answered = LineResult(1, "r-1", 200, {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})
    failed = LineResult(2, "r-2", 502, error={"code": "all_experts_failed", "message": "every expert failed"})
    await journal.keep([], [answered, failed], num_calls=4)
    await store.enter(batch.id, BatchState.FINALIZING)

    async def lines(*, failed: bool) -> AsyncIterator[bytes]:
        async for custom_id, result in journal.results(failed=failed):
            yield output_line(custom_id, result)

    output = await made.file_store.write(f"{batch.id}_output.jsonl", lines(failed=False))
    errors = await made.file_store.write(f"{batch.id}_errors.jsonl", lines(failed=True))
    await store.enter(batch.id, BatchState.COMPLETED, output_file_id=output.id, error_file_id=errors.id)
    done = await client.batches.retrieve(batch.id)

    assert done.status == "completed"
    assert done.request_counts is not None
    assert done.usage is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (3, 1, 1)
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (7, 3, 10)
    assert None not in (done.in_progress_at, done.finalizing_at, done.completed_at)
    assert (done.failed_at, done.expired_at, done.cancelled_at, done.cancelling_at) == (None, None, None, None)
    assert done.output_file_id is not None
    assert done.error_file_id is not None
    assert json.loads((await client.files.content(done.output_file_id)).text)["response"]["status_code"] == 200
    assert json.loads((await client.files.content(done.error_file_id)).text)["custom_id"] == "id-2"
    with pytest.raises(openai.ConflictError, match="cannot be cancelled: it is completed already"):
        await client.batches.cancel(batch.id)


async def test_a_refused_input_is_told_line_by_line(client: openai.AsyncOpenAI, made: Parts) -> None:
    batch = await client.batches.create(input_file_id=await uploaded(client), endpoint=CHAT, completion_window="24h")
    errors = (BatchError("invalid_json_line", "the line is not valid JSON", 3), BatchError("url_mismatch", "another url", 4, "url"))
    await made.batch_store.enter(batch.id, BatchState.FAILED, errors=errors)
    failed = await client.batches.retrieve(batch.id)

    assert failed.failed_at is not None
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(e.code, e.message, e.line, e.param) for e in failed.errors.data] == [(e.code, e.message, e.line, e.param) for e in errors]


async def test_batches_are_listed_by_pages_and_cancelled(client: openai.AsyncOpenAI, made: Parts) -> None:
    file_id = await uploaded(client)
    ids = [(await client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="7d")).id for _ in range(5)]
    cancelled = await client.batches.cancel(ids[0])

    assert [batch.id async for batch in client.batches.list(limit=2)] == ids[::-1]
    assert cancelled.status == "cancelling"
    assert cancelled.cancelling_at is not None
    assert made.num_wakes == 6
    assert (await client.batches.cancel(ids[0])).status == "cancelling"
    with pytest.raises(openai.ConflictError, match="still reads the file"):
        await client.files.delete(file_id)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"input_file_id": "file-9"}, (404, "input_file_id", "upload it with POST /v1/files")),
        ({"input_file_id": None}, (400, "input_file_id", "must be a string")),
        ({"endpoint": "/v1/chat/completion"}, (400, "endpoint", "did you mean '/v1/chat/completions'?")),
        ({"endpoint": "/v1/images"}, (400, "endpoint", "there are no batches for '/v1/images'")),
        ({"completion_window": "24"}, (400, "completion_window", "'90m', '24h' or '7d'")),
        ({"completion_window": "31d"}, (400, "completion_window", "up to 30 days")),
        ({"completion_window": "0h"}, (400, "completion_window", "is no window")),
        ({"completion_window": "٣h"}, (400, "completion_window", "is no window")),
        ({"metadata": {"a": 1}}, (400, "metadata.a", "must be a string")),
        ({"metadata": {"a": "x" * 513}}, (400, "metadata", "has 513 characters, at most 512")),
        ({"metadata": {"k" * 65: "x"}}, (400, "metadata", "has 65 characters, at most 64")),
        ({"metadata": {str(n): "x" for n in range(17)}}, (400, "metadata", "17 pairs, at most 16")),
        ({"consilium": {"strategie": "panel"}}, (400, "consilium.strategie", "did you mean 'strategy'?")),
        ({"consilium": {"strategy": "pannel"}}, (400, "consilium.strategy", "did you mean 'panel'?")),
        ({"consilium": {"strategy": "asleep"}}, (400, "consilium.strategy", "is disabled")),
        ({"consilium": {"max_calls": 0}}, (400, "consilium.max_calls", "greater than or equal to 1")),
        ({"consilium": {"max_tokens": "many"}}, (400, "consilium.max_tokens", "a whole number")),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, (400, "output_expires_after", "is not supported")),
        ({"endpont": "x"}, (400, "endpont", "did you mean 'endpoint'?")),
    ],
)
async def test_a_bad_batch_names_its_field(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, made: Parts, change: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    status, param, says = expected
    snapshot = registry(*made.directory.now.experts.values())
    asleep = replace(snapshot.strategies["panel"], id="asleep", enabled=False)
    made.directory.now = replace(snapshot, strategies={**snapshot.strategies, "asleep": asleep})
    body = {"input_file_id": await uploaded(client), "endpoint": CHAT, "completion_window": "24h"} | change
    error = error_of(await http.post("/v1/batches", json=body), status)

    assert error["param"] == param
    assert says in error["message"]
    assert made.num_wakes == 0


async def test_what_a_batch_wrote_is_no_input(client: openai.AsyncOpenAI, made: Parts) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b"{}\n"

    output = await made.file_store.write("out.jsonl", nothing())
    with pytest.raises(openai.BadRequestError, match="has the purpose 'batch_output'"):
        await client.batches.create(input_file_id=output.id, endpoint=CHAT, completion_window="24h")


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/files?limit=0", "limit"),
        ("/v1/files?limit=10001", "limit"),
        ("/v1/files?order=up", "order"),
        ("/v1/files?purpose=assistants", "purpose"),
        ("/v1/files?pourpose=batch", "pourpose"),
        ("/v1/files?after=file-9", "after"),
        ("/v1/batches?limit=101", "limit"),
        ("/v1/batches?limit=x", "limit"),
        ("/v1/batches?after=batch_9", "after"),
        ("/v1/batches/batch_9", "batch_id"),
        ("/v1/files/file-9", "file_id"),
        ("/v1/files/file-9/content", "file_id"),
        ("/v1/files/%00", "file_id"),
    ],
)
async def test_a_bad_question_names_its_parameter(http: httpx.AsyncClient, path: str, param: str) -> None:
    response = await http.get(path)

    assert error_of(response, response.status_code)["param"] == param
    assert response.status_code == (404 if param.endswith("_id") or param == "after" else 400)


async def test_a_locked_database_is_a_503_and_nothing_is_stored(client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    file_id = await uploaded(client)
    blocker = sqlite3.connect(tmp_path / "consilium.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    attempts: list[Callable[[], Any]] = [
        lambda: uploaded(client),
        lambda: client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h"),
        lambda: client.files.delete(file_id),
    ]
    try:
        for attempt in attempts:
            with pytest.raises(openai.InternalServerError, match="locked by another process") as caught:
                await attempt()
            assert caught.value.status_code == 503
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()

    assert [file.id async for file in client.files.list()] == [file_id]
    assert [path.name for path in (tmp_path / "files").iterdir()] == [file_id]
    assert [batch.id async for batch in client.batches.list()] == []
