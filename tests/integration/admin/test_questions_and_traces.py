"""``/admin/api/questions`` and ``traces``."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from domain.errors import ExpertUnreachable
from tests.fakes.admin import AdminParts, ScriptedPool
from tests.fakes.workers import Fails


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_questions_are_stored_and_their_skills_known(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """New ones count as changed, known ones do not; a skill that they use is a skill from now on."""
    rows = [
        {"question": "Capital of Peru?", "answer": "Lima", "skills": ["capitals"]},
        {"question": "algebra 0?", "answer": "0", "id": "algebra-0"},
    ]

    first = (await client.post("/questions", json={"questions": rows, "source": "peru.jsonl"})).json()
    second = (await client.post("/questions", json={"questions": rows})).json()

    assert first["num_changed"] == 2
    assert second["num_changed"] == 0
    assert first["ids"][1] == "algebra-0"
    assert parts.services is not None
    assert "capitals" in parts.services.directory.snapshot().skills


@pytest.mark.parametrize(
    ("row", "param", "told"),
    [
        ({"question": "x"}, "answer", "questions, line 2"),
        ({"question": "x", "answer": "y", "skill": ["z"]}, "skill", "'skills'"),
        ({"question": "x", "answer": "y", "grader": "exakt"}, "grader", "'exact'"),
        ({"question": "x", "answer": "y", "skills": ["algebr"]}, "skills[0]", "did you mean 'algebra'?"),
    ],
)
async def test_a_wrong_question_is_told_with_its_place_and_nothing_is_stored(
    client: httpx.AsyncClient, row: dict[str, Any], param: str, told: str
) -> None:
    response = await client.post("/questions", json={"questions": [{"id": "fine", "question": "a", "answer": "b"}, row]})

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert told in error_of(response)["message"]
    assert (await client.get("/questions/fine")).status_code == 404


async def test_a_misspelt_skill_is_refused_wherever_a_question_is_written(client: httpx.AsyncClient) -> None:
    written = {"question": "x", "answer": "y", "skills": ["roman numeral"]}

    refused = [
        await client.put("/questions/algebra-0", json=written),
        await client.patch("/questions/algebra-0", json={"skills": ["roman numeral"]}),
    ]

    assert [response.status_code for response in refused] == [400, 400]
    assert all("question 'algebra-0'" in error_of(response)["message"] for response in refused)
    assert (await client.get("/questions/algebra-0")).json()["skills"] == ["algebra"]


async def test_an_unknown_skill_is_refused_with_the_nearest(client: httpx.AsyncClient) -> None:
    response = await client.get("/questions", params={"skill": "romn numerals"})

    assert response.status_code == 400
    assert "'roman numerals'" in error_of(response)["message"]


async def test_one_question_is_a_resource_like_any_other(client: httpx.AsyncClient) -> None:
    """GET with a tag, PATCH, 412 with the old tag, PUT of a new one, DELETE."""
    tag = (await client.get("/questions/algebra-0")).headers["etag"]
    changed = await client.patch("/questions/algebra-0", json={"answer": "zero"}, headers={"if-match": tag})
    refused = await client.patch("/questions/algebra-0", json={"answer": "nought"}, headers={"if-match": tag})
    made = await client.put("/questions/new one", json={"question": "q", "answer": "a"})
    removed = await client.delete("/questions/new one")

    assert changed.json()["answer"] == "zero"
    assert [r.status_code for r in (refused, made, removed)] == [412, 201, 204]
    assert (await client.get("/questions/new one")).status_code == 404


async def test_questions_are_filtered_by_skill(client: httpx.AsyncClient) -> None:
    rows = (await client.get("/questions", params={"skill": "algebra", "limit": 3})).json()

    assert [row["id"] for row in rows["data"]] == ["algebra-0", "algebra-1", "algebra-2"]
    assert rows["next"] is not None


async def ask(client: httpx.AsyncClient, model: str, request_id: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "algebra 3?"}]}
    return await client.post("http://localhost/v1/chat/completions", json=body, headers={"x-request-id": request_id})


async def traced(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Three requests: one to each of two experts, one that fails."""
    parts.pool.scripted = ScriptedPool({"good": "3", "bad": "4", "worse": Fails(ExpertUnreachable("refused"))}).scripted
    for model, request_id in (("good", "r1"), ("bad", "r2"), ("worse", "r3")):
        await ask(client, model, request_id)
    assert parts.services is not None
    await parts.services.trace_store.flush()


async def id_of(client: httpx.AsyncClient, request_id: str) -> str:
    """The id of the only trace of a request."""
    (row,) = (await client.get("/traces", params={"request_id": request_id})).json()["data"]
    return str(row["id"])


async def test_traces_are_listed_newest_first_in_pages_and_filtered(client: httpx.AsyncClient, parts: AdminParts) -> None:
    await traced(client, parts)

    async def ids(**params: Any) -> list[str]:
        return [row["request_id"] for row in (await client.get("/traces", params=params)).json()["data"]]

    first = (await client.get("/traces", params={"limit": 2})).json()
    assert [row["request_id"] for row in first["data"]] == ["r3", "r2"]
    assert await ids(limit=2, cursor=first["next"]) == ["r1"]
    assert await ids(expert="bad") == ["r2"]
    assert await ids(status="error") == ["r3"]
    assert await ids(since=4e9) == []
    assert "messages" not in first["data"][0]


async def test_one_trace_tells_the_whole_story(client: httpx.AsyncClient, parts: AdminParts) -> None:
    await traced(client, parts)

    trace = (await client.get(f"/traces/{await id_of(client, 'r1')}")).json()

    assert trace["messages"] == [{"role": "user", "content": "algebra 3?"}]
    assert trace["answer"] == "3"
    assert trace["calls"][0] | {"started_ms": 0, "latency_ms": 0, "usage": {}} == {
        "expert": "good", "role": "candidate", "status": "ok", "error": None, "started_ms": 0, "latency_ms": 0, "usage": {}, "text": "3",
    }  # fmt: skip
    assert trace["timings_ms"]["total"] > 0


async def test_traces_can_be_forgotten(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """One by its id, and all before a moment; an unknown one is a 404."""
    await traced(client, parts)

    trace = f"/traces/{await id_of(client, 'r1')}"

    assert (await client.delete(trace)).status_code == 204
    assert (await client.get(trace)).status_code == 404
    assert (await client.delete(trace)).status_code == 404
    assert (await client.delete("/traces", params={"before": 4e9})).json() == {"num_deleted": 2}


async def test_no_caller_can_write_over_a_trace(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Two requests with one x-request-id: both traces are kept, and found by it."""
    for model in ("good", "bad"):
        assert (await ask(client, model, "same")).headers["x-request-id"] == "same"
        assert parts.services is not None
        await parts.services.trace_store.flush()

    found = (await client.get("/traces", params={"request_id": "same"})).json()["data"]

    assert [row["experts"] for row in found] == [["bad"], ["good"]]
    assert len({row["id"] for row in found}) == 2


@pytest.mark.parametrize("params", [{"status": "fine"}, {"limit": 0}, {"limit": 100_000}, {"since": "yesterday"}, {"expret": "good"}])
async def test_a_wrong_filter_is_a_400_that_names_it(client: httpx.AsyncClient, params: dict[str, Any]) -> None:
    response = await client.get("/traces", params=params)

    assert response.status_code == 400
    assert next(iter(params)) in error_of(response)["message"]
