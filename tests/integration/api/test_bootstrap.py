"""The parts put together: a real database, real routers, a real server; no models but where a test says so."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.bootstrap import build
from api.metrics import Metrics
from api.settings import Settings, SettingsError
from domain.experts import Backend, ExpertCard
from tests.fakes.encoder import HashingEncoder
from tests.fakes.postgres import PostgresServer
from tests.fakes.services import FakeEncoder
from tests.integration.api.conftest import listening

USER = [{"role": "user", "content": "What is 6 times 7?"}]
WAIT_S = 30.0


class LocalEncoder(FakeEncoder):
    """Takes the place of the real encoder, which needs seconds to load."""

    ready = True

    @classmethod
    def for_model(cls, *_: Any, **__: Any) -> LocalEncoder:
        return cls()

    async def start(self) -> None: ...
    async def close(self) -> None: ...


class WordEncoder(HashingEncoder, LocalEncoder):
    """Texts that share words are near to each other, without a model."""


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.new_database() as url:
        yield url


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)


def settings_in(folder: Path, **changes: Any) -> Settings:
    given: dict[str, Any] = {"data_dir": folder, "admin_key": "admin-key-0123456789", "seed_zoo": False, "startup_retry_s": 0.05} | changes
    return Settings(_env_file=None, **given)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": "Bearer admin-key-0123456789"}
    async with listening(create_app(settings)) as url, httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        yield http


async def until_told(http: httpx.AsyncClient, fact: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What ``/ready`` says, as soon as *fact* holds for it."""
    async with asyncio.timeout(WAIT_S):
        while not fact(told := (await http.get("/ready")).json()):
            await asyncio.sleep(0.02)
    found: dict[str, Any] = told
    return found


async def until_ready(http: httpx.AsyncClient) -> dict[str, Any]:
    return await until_told(http, lambda told: not told["missing"])


async def test_nothing_registered(no_models: None, tmp_path: Path) -> None:
    """Without the zoo the service is ready with no expert; a question is a 503, an unknown model a 404."""
    async with running(settings_in(tmp_path)) as http:
        assert (await until_ready(http))["num_experts"] == 0
        assert [m["id"] for m in (await http.get("/v1/models")).json()["data"]] == ["auto"]
        asked = await http.post("/v1/chat/completions", json={"model": "auto", "messages": USER})
        unknown = await http.post("/v1/chat/completions", json={"model": "gpt", "messages": USER})

    assert asked.status_code == 503
    assert asked.json()["error"]["code"] == "no_eligible_expert"
    assert unknown.status_code == 404


async def test_zoo_is_seeded_once(no_models: None, tmp_path: Path) -> None:
    """An empty database starts with the zoo; what was removed or changed afterwards stays so after a restart."""
    settings = settings_in(tmp_path, seed_zoo=True, embedded_dir=tmp_path)
    async with running(settings) as http:
        num_experts = (await until_ready(http))["num_experts"]
        deleted = await http.delete("/admin/api/experts/numerals")
        shipped = (await http.get("/admin/api/strategies/auto")).json()
        (await http.patch("/admin/api/strategies/auto", json={"fallback_expert": None})).raise_for_status()
        strategies = {m["id"] for m in (await http.get("/v1/models")).json()["data"] if m["consilium"]["kind"] == "strategy"}
    async with running(settings) as http:
        again = (await until_ready(http))["num_experts"]
        kept = (await http.get("/admin/api/strategies/auto")).json()

    assert (shipped["fallback_expert"], kept["fallback_expert"]) == ("generalist", None)
    assert num_experts >= 8
    assert deleted.status_code == 204
    assert again == num_experts - 1
    assert {"auto", "consilium/auto", "consilium/panel"} <= strategies


async def test_locked_database(no_models: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program holds the database, the service says so and goes on trying; then it is ready."""
    from experts_registry.database import Database

    monkeypatch.setattr("experts_registry.schema.UPGRADE_TIMEOUT_S", 0.2)
    connect = Database.connect.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Database, "connect", classmethod(lambda cls, url, **k: connect(cls, url, **{**k, "busy_timeout_s": 0.2})))
    holder = sqlite3.connect(tmp_path / "consilium.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    async with running(settings_in(tmp_path)) as http:
        told = await until_told(http, lambda told: "locked" in told["parts"]["database"])
        early = await http.post("/v1/chat/completions", json={"model": "auto", "messages": USER})
        alive = await http.get("/health")
        holder.execute("ROLLBACK")
        holder.close()
        await until_ready(http)

    assert told["status"] == "starting"
    assert str(tmp_path) not in str(told) + early.text, "where the database is is nobody's business"
    assert early.status_code == 503
    assert "locked" in early.json()["error"]["message"]
    assert alive.status_code == 200


async def test_database_of_a_newer_version(no_models: None, tmp_path: Path) -> None:
    """A database that a newer version has migrated is not touched; the readiness says what is wrong."""
    async with running(settings_in(tmp_path)) as http:
        await until_ready(http)
    path = tmp_path / "consilium.db"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'from the future'")
    database.close()
    async with running(settings_in(tmp_path)) as http:
        told = await until_told(http, lambda told: "from the future" in told["parts"]["database"])
        assert (await http.get("/health")).status_code == 200

    assert told["status"] == "starting"


async def test_change_is_live_at_once(no_models: None, tmp_path: Path) -> None:
    """An expert that was added answers (here: is asked, and found dead) on the next request, without a restart."""
    dead = {"id": "dead", "backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    async with running(settings_in(tmp_path)) as http:
        await until_ready(http)
        before = await http.post("/v1/chat/completions", json={"model": "dead", "messages": USER})
        created = await http.post("/admin/api/experts", json=dead)
        after = await http.post("/v1/chat/completions", json={"model": "dead", "messages": USER})
        metrics = (await http.get("/metrics")).text

    assert before.status_code == 404
    assert created.status_code == 201
    assert after.status_code == 502
    assert after.json()["error"]["experts"][0]["expert"] == "dead"
    assert 'consilium_expert_health{expert="dead",state="closed"} 1.0' in metrics
    assert 'consilium_expert_calls_total{expert="dead",role="candidate",status="error"} 1.0' in metrics


async def test_traces_are_written_before_the_end(no_models: None, tmp_path: Path) -> None:
    """The trace of the last request before a stop is there after the next start."""
    settings = settings_in(tmp_path)
    async with running(settings) as http:
        await until_ready(http)
        await http.post("/v1/chat/completions", json={"model": "auto", "messages": USER}, headers={"x-request-id": "last-one"})
    async with running(settings) as http:
        await until_ready(http)
        traces = await http.get("/admin/api/traces", params={"request_id": "last-one"})

    assert traces.status_code == 200
    assert [trace["status"] for trace in traces.json()["data"]] == ["error"]


@pytest.mark.parametrize("traces", [True, False])
def test_sessions_learn_from_what_was_answered(no_models: None, tmp_path: Path, traces: bool) -> None:
    """The memory that the skill router reads is told of every request, whether traces are kept or not."""
    services = build(settings_in(tmp_path, traces=traces), Metrics())

    assert services.routers["skills"]._sessions in services.orchestrator._sinks


async def test_unusable_data_dir(tmp_path: Path) -> None:
    """A data dir that cannot be made is an error that names the setting."""
    from api.bootstrap import build

    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="CONSILIUM_DATA_DIR"):
        build(settings_in(tmp_path / "file" / "data"), Metrics())


async def test_part_that_does_not_close_does_not_keep_the_others(
    no_models: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When one part fails to close, the rest is closed all the same and the log names it."""

    async def broken(self: Any) -> None:
        raise RuntimeError("stuck")

    monkeypatch.setattr(LocalEncoder, "close", broken)
    async with running(settings_in(tmp_path)) as http:
        await until_ready(http)

    assert "encoder did not close" in caplog.text
    assert "Task was destroyed" not in caplog.text


async def test_first_minute(tmp_path: Path) -> None:
    """On an empty data dir, with everything real: health at once, then ready, then the right expert's right answer."""
    card = ExpertCard("numerals", Backend.EMBEDDED, "numerals")
    async with running(settings_in(tmp_path, seed_zoo=True)) as http:
        assert (await http.get("/health")).status_code == 200
        await until_ready(http)
        ask = {"model": "auto", "messages": [{"role": "user", "content": "Write MCMXCIV in Arabic numerals."}]}
        whole = await http.post("/v1/chat/completions", json=ask)
        streamed = await http.post("/v1/chat/completions", json=ask | {"stream": True})
        routed = await http.post("/v1/route", json=ask)
        embedded = await http.post("/v1/embeddings", json={"model": "auto", "input": ["one", "two words"]})

    assert whole.json()["choices"][0]["message"]["content"] == "1994"
    assert whole.headers["x-consilium-experts"] == card.id
    assert whole.headers["x-consilium-skills"] == "roman numerals"
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert routed.json()["selected"] == [card.id]
    assert len(embedded.json()["data"][0]["embedding"]) == 384
    assert embedded.json()["usage"]["total_tokens"] == 7


async def test_everything_on_postgresql(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty database is migrated; experts are added, measured and asked; edits and traces are kept, also for the next process."""
    monkeypatch.setattr("api.bootstrap.Encoder", WordEncoder)
    settings = settings_in(tmp_path, database_url=postgres_url)
    questions = [
        {"question": f"Write {roman} in Arabic numerals.", "answer": answer, "skills": ["roman numerals"]}
        for roman, answer in (("XIV", "14"), ("MCMXCIV", "1994"), ("CDXLIV", "444"))
    ]
    async with running(settings) as http:
        await until_ready(http)
        for name in ("numerals", "calendar"):
            made = await http.post("/admin/api/experts", json={"id": name, "backend": "embedded", "model": name})
            assert made.status_code == 201
        added = await http.post("/admin/api/questions", json={"questions": questions})
        assert added.status_code < 300
        run = await http.post("/admin/api/profile-runs", json={})
        async with asyncio.timeout(WAIT_S):
            while (run := await http.get(f"/admin/api/profile-runs/{run.json()['id']}")).json()["status"] == "running":
                await asyncio.sleep(0.02)
        ask = {"model": "auto", "messages": [{"role": "user", "content": "Write MMXXIV in Arabic numerals."}]}
        answered = await http.post("/v1/chat/completions", json=ask, headers={"x-request-id": "on-postgres"})
        card = await http.get("/admin/api/experts/numerals")
        edits = [
            await http.patch("/admin/api/experts/numerals", json={"description": text}, headers={"if-match": card.headers["etag"]})
            for text in ("first", "second")
        ]
    async with running(settings) as http:
        await until_ready(http)
        (trace,) = (await http.get("/admin/api/traces", params={"request_id": "on-postgres"})).json()["data"]
        kept = (await http.get("/admin/api/experts/numerals")).json()
        profile = (await http.get("/admin/api/profiles/numerals")).json()

    assert not list(tmp_path.glob("*.db"))  # noqa: ASYNC240
    assert (run.json()["status"], run.json()["num_recorded"], run.json()["num_correct"]) == ("finished", 6, 3)
    assert answered.json()["choices"][0]["message"]["content"] == "2024"
    assert answered.headers["x-consilium-experts"] == "numerals"
    assert [edit.status_code for edit in edits] == [200, 412]
    assert kept["description"] == "first"
    assert (trace["status"], trace["model"]) == ("ok", "auto")
    assert [(count["skill"], count["num_correct"]) for count in profile["skills"]] == [("roman numerals", 3)]
