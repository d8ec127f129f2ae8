"""``consilium workers simulate`` on what the registry holds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from api.cli.main import run
from domain.plan import CallRole
from domain.trace import CallRecord, Timings, Trace
from experts_registry.database import Database
from experts_registry.traces import TraceStore


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("api.cli.connection.DEFAULT_URL", "http://127.0.0.1:9")


async def store(database_url: str, routes: list[list[str]]) -> None:
    database = Database.connect(database_url)
    traces = TraceStore(database)
    await traces.start()
    for number, experts in enumerate(routes):
        calls = tuple(CallRecord(expert, CallRole.CANDIDATE, "ok", 1.0) for expert in experts)
        traces.emit(
            Trace(id=f"t{number}", request_id=f"r{number}", model="auto", strategy=None, started_at=float(number), status="ok", calls=calls,
                  timings=Timings(total=500.0))
        )  # fmt: skip
    await traces.close()
    await database.close()


def test_stored_traces_are_replayed_in_their_order_with_the_cards_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The zoo's adapter shares its base's server; the oldest request comes first."""
    assert run(["experts", "list", "--json"]) == 0  # makes the database, with the zoo in it
    routes = [["arithmetic", "generalist"], ["comparison"], ["numerals"], ["arithmetic"]]
    asyncio.run(store(f"sqlite+aiosqlite:///{tmp_path / 'data' / 'consilium.db'}", routes))
    capsys.readouterr()

    code = run(["workers", "simulate", "--capacity", "24", "--policy", "lru", "--json"])

    out, err = capsys.readouterr()
    assert code == 0, err
    told = json.loads(out)
    assert (told["num_requests"], told["num_uses"], told["service_s"]) == (4, 5, 2.0)
    assert (told["results"][0]["num_hits"], told["results"][0]["num_loads"]) == (1, 4)  # comparison found generalist up
    assert next(server for server in told["servers"] if server["id"] == "generalist")["experts"] >= ["comparison", "generalist"]


def test_without_traces_there_is_nothing_to_replay(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["workers", "simulate"]) == 2
    assert "nothing to replay" in capsys.readouterr().err
