"""Evaluations over the admin REST: started, watched, read, cancelled, deleted, and written down in the audit log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from api.endpoints.admin.reports import FOLDER, Reports
from tests.fakes.admin import AdminParts
from tests.fakes.workers import Says, Stalls

WAIT_S = 60.0
SUBJECTS = ("a ladder against a wall", "two trains on one track", "the price of seven apples", "a clock that is slow")
QUESTIONS = [{"question": f"{subject}, as algebra {n}?", "answer": str(n), "skills": ["algebra"]} for n, subject in enumerate(SUBJECTS)]
ASKED: dict[str, Any] = {"name": "Before the change", "questions": QUESTIONS, "strategies": ["panel"], "calls": 2}


async def over(client: httpx.AsyncClient, evaluation_id: str) -> dict[str, Any]:
    """What it came to."""
    async with asyncio.timeout(WAIT_S):
        while (told := (await client.get(f"/evaluations/{evaluation_id}")).json())["status"] == "running":
            await asyncio.sleep(0.02)
    return dict(told)


async def begun(client: httpx.AsyncClient, **changes: Any) -> str:
    answer = await client.post("/evaluations", json=ASKED | changes)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/admin/api/evaluations/{answer.json()['id']}"
    return str(answer.json()["id"])


async def test_one_is_started_and_its_report_read(client: httpx.AsyncClient) -> None:
    told = await over(client, await begun(client))

    assert (told["status"], told["name"], told["num_questions"], told["num_experts"]) == ("finished", "Before the change", 4, 3)
    assert told["best"]["name"] == "panel"
    rows = {row["name"]: row for row in told["report"]["rows"]}
    assert rows["best single"]["accuracy"] == 1.0, "good knows algebra"
    (listed,) = (await client.get("/evaluations")).json()["data"]
    assert listed == {name: value for name, value in told.items() if name != "report"}


async def test_the_audit_log_says_who_started_what_and_deleted_it(client: httpx.AsyncClient) -> None:
    evaluation_id = await begun(client)
    await over(client, evaluation_id)
    assert (await client.delete(f"/evaluations/{evaluation_id}")).status_code == 204

    entries = (await client.get("/audit", params={"path": "/admin/api/evaluations"})).json()["data"]
    assert [(entry["method"], entry["path"], entry["actor"]) for entry in entries] == [
        ("DELETE", f"/admin/api/evaluations/{evaluation_id}", "admin"),
        ("POST", "/admin/api/evaluations", "admin"),
    ]
    assert (entries[1]["after"]["name"], entries[1]["after"]["id"]) == ("Before the change", evaluation_id)
    assert (await client.get(f"/evaluations/{evaluation_id}")).status_code == 404
    assert (await client.get("/evaluations")).json()["data"] == []


async def test_one_runs_at_a_time_and_can_be_cancelled(client: httpx.AsyncClient, parts: AdminParts) -> None:
    parts.pool.scripted._repeated["good"] = Stalls()
    evaluation_id = await begun(client)
    async with asyncio.timeout(WAIT_S):
        while "good" not in parts.pool.scripted.called():
            await asyncio.sleep(0.01)
    running = (await client.get(f"/evaluations/{evaluation_id}")).json()
    second = await client.post("/evaluations", json=ASKED)
    kept = await client.delete(f"/evaluations/{evaluation_id}")
    cancelled = await client.post(f"/evaluations/{evaluation_id}/cancel")

    assert (running["status"], running["report"], running["num_total"] > 0) == ("running", None, True)
    assert second.status_code == 429
    assert "runs already" in second.json()["error"]["message"]
    assert kept.status_code == 409
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert [row["status"] for row in (await client.get("/evaluations")).json()["data"]] == ["cancelled"]
    assert (await client.delete(f"/evaluations/{evaluation_id}")).status_code == 204
    assert (await client.get("/evaluations")).json()["data"] == []


async def test_one_that_fails_says_why(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Every question is one that the experts were measured on, so that nothing is left to ask."""
    known = [{"question": f"algebra {n}?", "answer": str(n)} for n in range(4)]

    told = await over(client, await begun(client, questions=known))

    assert told["status"] == "failed"
    assert told["error"]
    assert told["report"] is None


@pytest.mark.parametrize("how", ["the service ends", "the key is revoked"])
async def test_questions_that_nobody_was_asked_make_no_report(client: httpx.AsyncClient, parts: AdminParts, how: str) -> None:
    """They would stand in it as answered wrongly."""
    key = (await client.post("/keys", json={"id": "ed", "role": "editor"})).json()["key"]
    parts.pool.scripted._repeated["good"] = Stalls(then=Says("0"))
    started = await client.post("/evaluations", json=ASKED | {"max_in_flight": 1}, headers={"authorization": f"Bearer {key}"})
    assert started.status_code == 202, started.text
    async with asyncio.timeout(WAIT_S):
        while "good" not in parts.pool.scripted.called():
            await asyncio.sleep(0.01)
    if how == "the service ends":
        cast(Any, client)._transport.app.state.drain.begin()
    else:
        assert (await client.delete("/keys/ed")).status_code == 204
    parts.pool.scripted.release("good")
    told = await over(client, started.json()["id"])

    assert (told["status"], told["report"]) == ("failed", None)
    assert ("about to stop" if how == "the service ends" else "ed") in told["error"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"strategies": ["panell"]}, "strategies"),
        ({"questions": [{"question": "2 + 2?"}]}, None),
        ({"questions": []}, "questions"),
        ({"calls": 1}, "calls"),
        ({"name": ""}, "name"),
        ({"judge": "good"}, "judge"),
    ],
)
async def test_what_is_wrong_is_refused_before_anything_is_asked(
    client: httpx.AsyncClient, parts: AdminParts, changes: dict[str, Any], param: str | None
) -> None:
    answer = await client.post("/evaluations", json=ASKED | changes)

    assert answer.status_code == 400
    assert param is None or answer.json()["error"]["param"] == param
    assert (await client.get("/evaluations")).json()["data"] == []


async def test_a_viewer_reads_reports_and_starts_none(client: httpx.AsyncClient) -> None:
    key = (await client.post("/keys", json={"id": "looker", "role": "viewer"})).json()["key"]
    headers = {"authorization": f"Bearer {key}"}

    assert (await client.get("/evaluations", headers=headers)).status_code == 200
    assert (await client.post("/evaluations", json=ASKED, headers=headers)).status_code == 403


async def test_a_report_of_the_command_line_is_listed_where_it_lies(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """And what is no report, or lies elsewhere, is not."""
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "mine.json").write_text(json.dumps({"rows": [{"name": "auto", "kind": "strategy", "accuracy": 0.5}], "num_questions": 7}))
    (folder / "other.json").write_text("[1]")
    (folder / "broken.json").write_text("{")
    (folder / ".hidden.json").write_text(json.dumps({"rows": []}))
    (folder / "dangling.json").symlink_to(folder / "nothing")
    odd = {
        "texts": {"rows": ["one", "two"]},
        "nameless": {"rows": [{"kind": "strategy", "accuracy": 0.5}]},
        "wordy": {"rows": [{"name": name, "kind": "router", "accuracy": accuracy} for name, accuracy in (("a", "high"), ("b", 0.5))]},
        "counted": {"rows": [], "expert_ids": 3},
        "titled": {"rows": [], "title": ["a", "list"]},
    }
    for name, report in odd.items():
        (folder / f"{name}.json").write_text(json.dumps(report))
    (folder / "deep.json").write_text('{"rows":' + "[" * 100_000 + "]" * 100_000 + "}")

    rows = (await client.get("/evaluations")).json()["data"]

    assert [(row["id"], row["name"], row["num_questions"]) for row in rows] == [("mine", "mine", 7)]
    assert rows[0]["best"] == {"name": "auto", "accuracy": 0.5, "cost": None}
    for elsewhere in (".hidden", "other", "broken", "gone", "dangling", "deep", *odd):
        assert (await client.get(f"/evaluations/{elsewhere}")).status_code == 404


async def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    reports = Reports(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        await reports.add("odd", {"rows": [], "accuracy": float("nan")})

    assert list((tmp_path / FOLDER).iterdir()) == []
