"""Feedback over HTTP and from the command line: given, listed, taken back, added up."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from tests.fakes.admin import AdminParts
from tests.integration.admin.conftest import Consilium

V1 = "http://localhost/v1"


async def asked(client: httpx.AsyncClient, request_id: str, *, model: str = "auto") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "algebra 3?"}]}
    return await client.post(f"{V1}/chat/completions", json=body, headers={"x-request-id": request_id})


async def give(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post(f"{V1}/feedback", json=body)


async def test_feedback_is_taken_right_after_the_answer_and_says_what_it_says(client: httpx.AsyncClient) -> None:
    assert (await asked(client, "r1")).status_code == 200
    given = await give(client, request_id="r1", correct=False)

    told = given.json()
    assert given.status_code == 200
    assert told["object"] == "consilium.feedback"
    assert (told["request_id"], told["scores"], told["answered_by"], told["status"]) == ("r1", {"bad": 0.0}, "bad", "counts")
    assert (told["strategy"], told["router"], told["category"]) == ("auto", "fixed", "maths")
    assert told["skills"] == [{"skill": "algebra", "weight": 1.0}]
    assert "vector" not in given.text


async def test_the_same_again_is_answered_alike_and_something_else_conflicts(client: httpx.AsyncClient) -> None:
    await asked(client, "r1")
    first, again = await give(client, request_id="r1", score=0.5), await give(client, request_id="r1", score=0.5)
    other, named = await give(client, request_id="r1", score=0.75), await give(client, request_id="r1", score=0.75, id="second opinion")

    assert first.json() == again.json()
    assert other.status_code == 409
    assert "`id` of its own" in other.json()["error"]["message"]
    assert named.status_code == 200
    assert len((await client.get("/feedback")).json()["data"]) == 2


async def test_at_once_and_twice_it_is_still_one(client: httpx.AsyncClient) -> None:
    await asked(client, "r1")
    answers = await asyncio.gather(*(give(client, request_id="r1", correct=True) for _ in range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert (await client.get("/feedback-profiles")).json()["data"][0]["num_feedback"] == 1


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"request_id": "unknown", "correct": True}, 404, "no trace of a request 'unknown'"),
        ({"request_id": "r1"}, 400, "give one of score, correct and correct_expert"),
        ({"request_id": "r1", "correct": True, "score": 1.0}, 400, "score and correct are given"),
        ({"request_id": "r1", "score": 1.5}, 400, "score"),
        ({"request_id": "r1", "score": "good"}, 400, "score must be a number"),
        ({"request_id": "r1", "corect": True}, 400, "'correct'"),
        ({"request_id": "r1", "correct_expert": "goood"}, 400, "did you mean 'good'"),
        ({"request_id": "r1", "correct_expert": ["good"] * 65}, 400, "correct_expert"),
        ({"request_id": "r1", "correct_expert": [3]}, 400, "correct_expert"),
        ({"correct": True}, 400, "request_id is missing"),
        ({"request_id": "r1", "trace_id": "t1", "correct": True}, 400, "request_id and trace_id are given"),
        ({"trace_id": "unknown", "correct": True}, 404, "no trace 'unknown'"),
        ({"request_id": "", "correct": True}, 400, "request_id"),
        ({"request_id": "x" * 129, "correct": True}, 400, "request_id"),
        ({"request_id": "r1", "correct": True, "id": "x" * 129}, 400, "id"),
        ({"request_id": "r1\0", "correct": True}, 400, "request_id"),
    ],
)
async def test_what_cannot_be_taken_is_refused_with_the_reason(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, told: str
) -> None:
    await asked(client, "r1")
    refused = await give(client, **body)

    assert refused.status_code == status
    assert told in refused.json()["error"]["message"]


@pytest.mark.parametrize("setting", ["traces", "feedback"])
async def test_without_traces_or_when_switched_off_feedback_conflicts(parts: AdminParts, filled: Any, tmp_path: Any, setting: str) -> None:
    shutil.copy(filled, tmp_path)
    app = create_app(Settings(data_dir=tmp_path, _env_file=None, **{setting: False}), bootstrap=parts.bootstrap)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        refused = await made.post("/v1/feedback", json={"request_id": "r1", "correct": True})

    assert refused.status_code == 409
    assert f"CONSILIUM_{setting.upper()}" in refused.json()["error"]["message"]


async def test_a_panel_is_judged_expert_by_expert(client: httpx.AsyncClient) -> None:
    await client.post("/strategies", json={"id": "both", "router": "fixed", "pick": {"kind": "top_k", "k": 3}, "aggregator": "vote"})
    await asked(client, "r1", model="consilium/both")
    told = (await give(client, request_id="r1", correct_expert="good")).json()

    assert told["scores"] == {"bad": 0.0, "good": 1.0, "worse": 0.0}
    assert told["given"] == {"correct_expert": ["good"]}


async def test_every_update_is_listed_in_pages_and_can_be_taken_back(client: httpx.AsyncClient) -> None:
    ids = []
    for number in range(5):
        await asked(client, f"r{number}")
        ids.append((await give(client, request_id=f"r{number}", correct=number != 2)).json()["id"])
    first = (await client.get("/feedback", params={"limit": 3})).json()
    second = (await client.get("/feedback", params={"limit": 3, "cursor": first["next"]})).json()
    before = (await client.get("/feedback-profiles")).json()["data"][0]
    rolled, again = [await client.post(f"/feedback/{ids[2]}/rollback") for _ in range(2)]
    after = (await client.get("/feedback-profiles")).json()["data"][0]

    assert [row["id"] for row in [*first["data"], *second["data"]]] == ids[::-1]
    assert second["next"] is None
    assert (before["num_feedback"], before["accuracy"]) == (5, 0.8)
    assert rolled.json()["status"] == "rolled_back"
    assert rolled.json() == again.json()
    assert (after["num_feedback"], after["accuracy"]) == (4, 1.0)
    assert after["skills"] == [{"skill": "algebra", "num_answered": 4, "num_correct": 4, "accuracy": 1.0}]
    listed = (await client.get("/feedback", params={"status": "rolled_back"})).json()["data"]
    assert [row["id"] for row in listed] == [ids[2]]
    assert (await client.get(f"/feedback/{ids[2]}")).json()["status"] == "rolled_back"
    assert (await client.post("/feedback/fb-nothing/rollback")).status_code == 404
    assert (await client.get("/feedback", params={"cursor": "eHl6"})).status_code == 400


async def test_an_expert_that_was_replaced_begins_anew(client: httpx.AsyncClient) -> None:
    await asked(client, "r1")
    await give(client, request_id="r1", correct=False)
    reset = await client.post("/feedback-profiles/bad/reset")
    gone = (await client.get("/feedback-profiles")).json()["data"]
    await client.post(f"/feedback/{reset.json()['id']}/rollback")
    back = (await client.get("/feedback-profiles")).json()["data"]

    assert reset.json()["resets"] == "bad"
    assert gone == []
    assert back[0]["num_feedback"] == 1
    assert (await client.post("/feedback-profiles/baad/reset")).status_code == 400


async def test_the_admin_part_needs_the_admin_key(client: httpx.AsyncClient) -> None:
    assert (await client.get("/feedback", headers={"authorization": "Bearer wrong"})).status_code == 401


def test_the_command_line_gives_lists_and_takes_back(consilium: Consilium, url: str) -> None:
    with httpx.Client(base_url=url) as http:
        body = {"model": "auto", "messages": [{"role": "user", "content": "algebra 3?"}]}
        http.post("/v1/chat/completions", json=body, headers={"x-request-id": "r1"})

    added = json.loads(consilium("feedback", "add", "r1", "--wrong", "--json").out)
    told = consilium("feedback", "add", "r1", "--wrong")
    listed = consilium("feedback", "list", "--expert", "bad")
    experts = consilium("feedback", "experts")
    rolled = consilium("feedback", "rollback", added["id"])
    reset = consilium("feedback", "reset", "bad")
    nothing = consilium("feedback", "add", "r1")

    assert added["scores"] == {"bad": 0.0}
    assert told.out == f"{added['id']}: bad 0\n"
    assert "r1" in listed.out
    assert "0.0 %" in experts.out
    assert rolled.out == f"rolled back {added['id']}\n"
    assert "begins anew" in reset.out
    assert json.loads(consilium("feedback", "list", "--json").out)[-1]["status"] == "rolled_back"
    assert nothing.code == 2
    assert "say one thing" in nothing.err
