"""``/admin/api/profile-runs``, ``profiles`` and ``aggregator-runs``."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from domain.errors import ExpertUnreachable
from domain.evaluation import ProfileRunRecord
from tests.fakes.admin import SCRIPT, AdminParts, ScriptedPool, knows_algebra
from tests.fakes.workers import Fails, Stalls

DONE_WITHIN_S = 10.0


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


async def settled(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """The run at *path* when it no longer runs."""
    async with asyncio.timeout(DONE_WITHIN_S):
        while True:
            run: dict[str, Any] = (await client.get(path)).json()
            if run["status"] != "running":
                return run
            await asyncio.sleep(0.01)


async def reached(client: httpx.AsyncClient, path: str, *, num_recorded: int) -> dict[str, Any]:
    """The run at *path* when it has so many answers."""
    async with asyncio.timeout(DONE_WITHIN_S):
        while True:
            run: dict[str, Any] = (await client.get(path)).json()
            if run["num_recorded"] >= num_recorded:
                return run
            await asyncio.sleep(0.01)


async def run_of(client: httpx.AsyncClient, body: dict[str, Any] | None = None) -> dict[str, Any]:
    started = await client.post("/profile-runs", json=body or {})
    assert started.status_code == 202, started.text
    return await settled(client, started.headers["location"].removeprefix("/admin/api"))


async def test_a_run_measures_and_its_profiles_are_live_at_once(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Experts × questions are asked and graded; counts, accuracy and interval are told; routing sees them without a restart."""
    run = await run_of(client, {"note": "first"})

    assert run["status"] == "finished"
    assert (run["num_recorded"], run["num_planned"], run["num_correct"]) == (24, 24, 4)
    good = (await client.get("/profiles/good")).json()
    assert good["overall"]["accuracy"] == 0.5
    algebra = good["skills"][0]
    assert (algebra["skill"], algebra["num_answered"], algebra["num_correct"]) == ("algebra", 4, 4)
    assert algebra["interval"][0] == pytest.approx(0.51, abs=0.01)
    assert parts.services is not None
    assert parts.services.directory.snapshot().profiles["good"].by_skill["algebra"].num_correct == 4


async def test_a_limit_is_spread_over_the_skills(client: httpx.AsyncClient) -> None:
    run = await run_of(client, {"experts": ["good"], "limit": 4})

    counts = {row["skill"]: row["num_answered"] for row in run["summary"][0]["skills"]}
    assert counts == {"algebra": 2, "roman numerals": 2}


async def test_skills_and_ids_choose_the_questions(client: httpx.AsyncClient) -> None:
    run = await run_of(client, {"experts": ["good"], "skills": ["algebra"], "questions": ["algebra-1", "roman numerals-1"]})

    assert run["num_planned"] == 1


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"experts": ["goood"]}, "experts", "'good'"),
        ({"skills": ["algbra"]}, "skills", "'algebra'"),
        ({"questions": ["algebra-9"]}, "questions", "'algebra-"),
        ({"judge": "baad"}, "experts", "'bad'"),
        ({"limit": 0}, "limit", ""),
        ({"expert": ["good"]}, "expert", "'experts'"),
        ({"skills": ["cooking"]}, "skills", "cooking"),
    ],
)
async def test_a_run_that_cannot_be_is_refused_before_anything_is_asked(
    client: httpx.AsyncClient, parts: AdminParts, body: dict[str, Any], param: str, told: str
) -> None:
    response = await client.post("/profile-runs", json=body)

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert told in error_of(response)["message"]
    assert parts.pool.scripted.calls == []
    assert (await client.get("/profile-runs")).json()["data"] == []


async def test_a_question_for_a_judge_needs_a_judge(client: httpx.AsyncClient) -> None:
    """Without one the run is refused with the question's id; with one the judge's verdict counts."""
    await client.post("/questions", json={"questions": [{"id": "essay", "question": "algebra?", "answer": "long", "grader": "judge"}]})

    refused = await client.post("/profile-runs", json={"experts": ["good"], "questions": ["essay"]})

    assert refused.status_code == 400
    assert "'essay'" in error_of(refused)["message"]


async def test_deleting_a_run_takes_its_counts_back(client: httpx.AsyncClient) -> None:
    run = await run_of(client)

    removed = await client.delete(f"/profile-runs/{run['id']}")

    assert removed.status_code == 204
    assert (await client.get("/profiles/good")).json()["skills"] == []
    assert (await client.get(f"/profile-runs/{run['id']}")).json()["status"] == "rolled_back"


async def test_a_run_is_seen_cancelled_and_resumed(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """While it runs it shows progress; cancelled it is open and keeps what it has; resumed it asks only the rest."""
    parts.pool.scripted = ScriptedPool({"good": knows_algebra, "bad": Stalls()}).scripted
    started = (await client.post("/profile-runs", json={"experts": ["good", "bad"], "skills": ["algebra"]})).json()
    path = f"/profile-runs/{started['id']}"
    await parts.pool.scripted.until_started("bad", 4)
    running = await reached(client, path, num_recorded=4)

    cancelled = (await client.post(f"{path}/cancel")).json()
    again = await client.post(f"{path}/cancel")
    parts.pool.scripted = ScriptedPool({"bad": "no idea"}).scripted
    resumed = await client.post(f"{path}/resume")
    done = await settled(client, path)

    assert {told["expert_id"]: told["num_done"] for told in running["progress"]} == {"good": 4, "bad": 0}
    assert (cancelled["status"], cancelled["num_recorded"], cancelled["num_correct"]) == ("open", 4, 4)
    assert again.status_code == 409
    assert resumed.status_code == 202
    assert (done["status"], done["num_recorded"]) == ("finished", 8)
    assert parts.pool.scripted.called() == ["bad"] * 4


async def test_a_run_that_ends_while_it_is_looked_at_does_not_look_interrupted(
    client: httpx.AsyncClient, parts: AdminParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before its end is told as it was then."""
    assert parts.services is not None
    store = parts.services.profile_store
    read, finish, was_read, has_ended = store.get_run, store.finish_run, asyncio.Event(), asyncio.Event()

    async def finish_after_reading(run_id: str) -> None:
        await was_read.wait()
        await finish(run_id)
        has_ended.set()

    async def read_then_wait(run_id: str) -> ProfileRunRecord:
        run = await read(run_id)
        was_read.set()
        await has_ended.wait()
        await asyncio.sleep(0)  # the task's own end
        return run

    monkeypatch.setattr(store, "finish_run", finish_after_reading)
    started = (await client.post("/profile-runs", json={"experts": ["good"], "limit": 1})).json()
    monkeypatch.setattr(store, "get_run", read_then_wait)
    async with asyncio.timeout(DONE_WITHIN_S):
        looked_at = (await client.get(f"/profile-runs/{started['id']}")).json()

    assert looked_at["status"] == "running"


async def test_a_finished_run_cannot_be_resumed(client: httpx.AsyncClient) -> None:
    run = await run_of(client, {"experts": ["good"], "limit": 1})

    assert (await client.post(f"/profile-runs/{run['id']}/resume")).status_code == 409


async def test_a_dead_expert_leaves_the_run_open_with_the_reason(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Its failures count as no wrong answers; the others are measured as if it were not there."""
    parts.pool.scripted = ScriptedPool({**SCRIPT, "bad": Fails(ExpertUnreachable("connection refused"))}).scripted

    run = await run_of(client, {"experts": ["good", "bad"]})

    summary = {row["expert"]: row for row in run["summary"]}
    assert run["status"] == "open"
    assert "connection refused" in summary["bad"]["stopped"]
    assert summary["bad"]["overall"]["num_answered"] == 0
    assert summary["good"]["overall"]["num_answered"] == 8
    assert (await client.get("/profiles/bad")).json()["overall"]["num_answered"] == 0


async def test_only_so_many_runs_at_once(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """One more than may run is a 429 and leaves no record."""
    parts.pool.scripted = ScriptedPool({"good": Stalls(), "bad": Stalls(), "worse": Stalls()}).scripted
    for expert in ("good", "bad"):
        assert (await client.post("/profile-runs", json={"experts": [expert]})).status_code == 202

    refused = await client.post("/profile-runs", json={"experts": ["worse"]})

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "10"
    assert len((await client.get("/profile-runs")).json()["data"]) == 2


async def test_the_service_ends_while_a_run_goes_on(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """The fixture's end closes the service: the calls of the run are cancelled, nothing hangs."""
    parts.pool.scripted = ScriptedPool({"good": Stalls()}).scripted
    await client.post("/profile-runs", json={"experts": ["good"]})
    await parts.pool.scripted.until_started("good")


async def test_aggregators_are_measured_on_recorded_answers(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """The benchmark asks those with the role, over questions with one right and two wrong answers; its profile is live at once."""
    await run_of(client)
    parts.pool.scripted = ScriptedPool({"bad": "2"}).scripted

    started = await client.post("/aggregator-runs")
    run = await settled(client, started.headers["location"].removeprefix("/admin/api"))

    assert started.status_code == 202
    assert (run["status"], run["num_planned"], run["num_recorded"], run["num_correct"]) == ("finished", 4, 4, 1)
    profile = (await client.get("/aggregator-profiles/bad")).json()
    assert (profile["overall"]["num_correct"], profile["overall"]["num_answered"]) == (1, 4)
    assert profile["categories"][0]["category"] == "maths"
    assert parts.services is not None
    assert parts.services.directory.snapshot().aggregator_profiles["bad"].overall.num_correct == 1


async def test_aggregators_need_recorded_answers(client: httpx.AsyncClient) -> None:
    response = await client.post("/aggregator-runs", json={})

    assert response.status_code == 400
    assert "profile more experts" in error_of(response)["message"]


async def test_what_was_measured_elsewhere_can_be_imported(client: httpx.AsyncClient) -> None:
    """Exported outcomes, rolled back, come back by import and give the same profile."""
    run = await run_of(client)
    before = (await client.get("/profiles/good")).json()
    outcomes = (await client.get("/outcomes", params={"limit": 1000})).json()["data"]
    await client.delete(f"/profile-runs/{run['id']}")

    imported = await client.post("/profile-runs/import", json={"outcomes": outcomes, "note": "from elsewhere"})

    assert imported.status_code == 201
    assert (imported.json()["status"], imported.json()["num_recorded"]) == ("finished", 24)
    assert (await client.get("/profiles/good")).json() == before


async def test_an_import_about_strangers_is_refused(client: httpx.AsyncClient) -> None:
    row = {"expert_id": "goood", "question_id": "algebra-1", "correct": True}

    response = await client.post("/profile-runs/import", json={"outcomes": [row]})

    assert response.status_code == 400
    assert "'good'" in error_of(response)["message"]


async def test_an_unknown_run_is_a_404(client: httpx.AsyncClient) -> None:
    for path in ("/profile-runs/run-0", "/aggregator-runs/aggregators-0"):
        assert (await client.get(path)).status_code == 404
