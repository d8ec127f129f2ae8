"""What can go wrong while the service runs, through all of it: real registry, pool and server; only the encoder is left out.

Each time there is a clear error, nothing is lost, and the service is still up and answers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from api.app import create_app
from experts_registry.database import Database
from tests.fakes.upstream import ErrorEvent, Garbage, HalfStream, Hangup, NotAStream, Upstream, running_upstream
from tests.integration.api.conftest import listening
from tests.integration.api.test_bootstrap import LocalEncoder, settings_in, until_ready

USER = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"
BUSY_TIMEOUT_S = 0.2
NOBODY = "http://127.0.0.1:9/v1"
"""Where nothing listens: the port of the discard service, which nobody runs."""


class World:
    """The service with one expert, ``speaker``, that a stub serves."""

    def __init__(self, http: httpx.AsyncClient, database: Database, upstream: Upstream, file: Path) -> None:
        self.http, self.database, self.upstream, self.file = http, database, upstream, file

    async def add(self, expert_id: str, **changes: Any) -> httpx.Response:
        card = {"id": expert_id, "backend": "openai", "model": "speaker", "base_url": self.upstream.base_url} | changes
        return await self.http.post("/admin/api/experts", json=card)

    async def ask(self, **changes: Any) -> httpx.Response:
        return await self.http.post(CHAT, json={"model": "speaker", "messages": USER} | changes)

    async def must_answer(self) -> None:
        answer = await self.ask()
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "abcdefghij"

    async def expert_ids(self) -> list[str]:
        return [row["id"] for row in (await self.http.get("/admin/api/experts")).json()["data"]]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)
    connect = Database.connect.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Database, "connect", classmethod(lambda cls, url, **k: connect(cls, url, **{**k, "busy_timeout_s": BUSY_TIMEOUT_S}))
    )
    app = create_app(settings_in(tmp_path))
    headers = {"authorization": "Bearer admin-key-0123456789"}
    async with running_upstream() as upstream, listening(app) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as http:
        await until_ready(http)
        made = World(http, app.state.services.database, upstream, tmp_path / "consilium.db")
        assert (await made.add("speaker")).status_code == 201
        yield made
        await made.must_answer()
        assert (await http.get("/ready")).json()["status"] == "ready"


@contextmanager
def full_disk(database: Database) -> Iterator[None]:
    """SQLite's own limit on a file's size, which it reports as it reports a full disk, on every connection that is used."""

    def limit(pages: int) -> Callable[..., None]:
        def on_checkout(connection: Any, *_: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA max_page_count = {pages}")  # never less than there are
            cursor.close()

        return on_checkout

    engine, full, free = database.engine.sync_engine, limit(1), limit(2**30)
    event.listen(engine, "checkout", full)
    try:
        yield
    finally:
        event.remove(engine, "checkout", full)
        event.listen(engine, "checkout", free)


async def test_full_disk(world: World) -> None:
    """A change that does not fit is a 503 that says so, and is not half made; questions are answered all the while."""
    with full_disk(world.database):
        refused = await world.add("big", description="x" * 1_000_000)
        await world.must_answer()
        experts = await world.expert_ids()
    stored = await world.add("big", description="x" * 1_000_000)

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "storage_error"
    assert "disk is full" in refused.json()["error"]["message"]
    assert experts == ["speaker"]
    assert stored.status_code == 201


async def test_database_locked_while_running(world: World) -> None:
    """A change while another program holds the database is a 503 that says so; a later one is made, and nothing was lost."""
    holder = sqlite3.connect(world.file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        refused = await world.add("late")
        await world.must_answer()
        told = (await world.http.get("/ready")).json()
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    stored = await world.add("late")

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "storage_error"
    assert "locked by another process" in refused.json()["error"]["message"]
    assert (told["status"], str(world.file) in str(told)) == ("degraded", False)
    assert stored.status_code == 201
    assert await world.expert_ids() == ["late", "speaker"]


NUM_TRIES = 8
"""More than the worker and the service ever make of one call."""


@pytest.mark.parametrize(
    ("fault", "did"),
    [
        (Garbage(), "answered something that is not JSON: '<html>it works!</html>'"),
        (Garbage('{"choices": 7}'), "did not answer in OpenAI's shape: it has no choices"),
        (Hangup(), "cannot be reached (Server disconnected)"),
    ],
)
async def test_expert_that_answers_garbage(world: World, fault: Garbage | Hangup, did: str) -> None:
    """502 names the expert and what it did; the next call, which it answers well, is an answer."""
    world.upstream.faults.extend([fault] * NUM_TRIES)
    whole = await world.ask()
    world.upstream.faults.clear()

    assert whole.status_code == 502
    assert whole.headers["x-consilium-strategy"] == "explicit"
    error = whole.json()["error"]
    assert error["code"] == "all_experts_failed"
    assert error["experts"][0]["expert"] == "speaker"
    assert did in error["experts"][0]["message"]
    assert did in error["message"]


@pytest.mark.parametrize(
    ("fault", "did"),
    [
        (Garbage(), "answered something that is not JSON: '<html>it works!</html>'"),
        (NotAStream(), "was asked for a stream and sent something else (text/html: '<html>it works!</html>')"),
        (Hangup(), "cannot be reached (Server disconnected)"),
    ],
)
async def test_stream_that_is_garbage_from_the_start(world: World, fault: Garbage | NotAStream | Hangup, did: str) -> None:
    """It is a 502 too, since nothing went out yet."""
    world.upstream.faults.extend([fault] * NUM_TRIES)
    streamed = await world.ask(stream=True)
    world.upstream.faults.clear()

    assert streamed.status_code == 502
    assert streamed.json()["error"]["experts"][0]["expert"] == "speaker"
    assert did in streamed.json()["error"]["experts"][0]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_dead_expert(world: World, stream: bool) -> None:
    """An expert that nobody serves is a 502 that names it and says so, streamed too; after three of them its circuit is open, and
    the 503 says that."""
    assert (await world.add("dead", base_url=NOBODY)).status_code == 201
    answers = [await world.ask(model="dead", stream=stream) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [502, 502, 502, 503]
    for answer in answers[:3]:
        (failed,) = answer.json()["error"]["experts"]
        assert (failed["expert"], failed["code"]) == ("dead", "expert_unreachable")
        assert failed["message"].startswith("expert 'dead' cannot be reached")
    assert answers[3].json()["error"]["code"] == "no_eligible_expert"
    assert "unhealthy: its last calls failed" in answers[3].json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("aggregator", "how"), [("first", "first"), ("vote", "vote"), ("fuse", "vote")])
async def test_panel_with_a_dead_expert(world: World, stream: bool, aggregator: str, how: str) -> None:
    """The others answer, and the explanation says who did not and why."""
    assert (await world.add("dead", base_url=NOBODY)).status_code == 201
    assert (await world.add("second")).status_code == 201
    listed = {"experts": ["dead", "speaker", "second"]}
    panel = {"id": "trio", "router": "explicit", "router_options": listed, "pick": {"kind": "top_k", "k": 3}, "aggregator": aggregator}
    assert (await world.http.post("/admin/api/strategies", json=panel)).status_code == 201
    answer = await world.ask(model="consilium/trio", stream=stream, consilium={"explain": True})

    assert answer.status_code == 200, answer.text
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        said = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
        explained = events[-1]["consilium"]
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        said, explained = answer.json()["choices"][0]["message"]["content"], answer.json()["consilium"]
    assert said == "abcdefghij"
    calls = {call["expert"]: call for call in explained["calls"]}
    assert {name: call["status"] for name, call in calls.items()} == {"dead": "error", "speaker": "ok", "second": "ok"}
    assert "cannot be reached" in calls["dead"]["error"]
    assert explained["aggregator"] == how
    if how == "vote":
        assert "2 of 2 candidates agree (speaker, second)" in explained["aggregator_reason"]


@pytest.mark.parametrize("fault", [HalfStream(7), HalfStream(7, cut=True), ErrorEvent(7)])
async def test_half_a_stream(world: World, fault: HalfStream | ErrorEvent) -> None:
    """What came is passed on, then an error event says that it is not all; no ``[DONE]`` pretends that it is."""
    world.upstream.faults.append(fault)
    streamed = await world.ask(stream=True)

    assert streamed.status_code == 200
    assert '"content":"a"' in streamed.text
    assert "event: error\n" in streamed.text
    assert "speaker" in streamed.text.rpartition("event: error\n")[2]
    assert "data: [DONE]" not in streamed.text


async def test_unknown_skill(world: World) -> None:
    """A question list of a skill that nobody has, and an expert with a misspelt one: 400 each, with the nearest."""
    rows = [{"question": "Write XIV in digits.", "answer": "14", "skills": ["roman numerals"]}]
    assert (await world.http.post("/admin/api/questions", json={"questions": rows})).status_code == 200
    asked = await world.http.get("/admin/api/questions", params={"skill": "romn numerals"})
    added = await world.add("typo", skills=["romn numerals"])

    for refused in (asked, added):
        assert refused.status_code == 400
        assert "'roman numerals'" in refused.json()["error"]["message"]
    assert await world.expert_ids() == ["speaker"]
