"""The memory over HTTP and from the command line: entered, listed, deleted; what is deleted leaves no words behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.admin import AdminParts
from tests.integration.admin.conftest import Consilium

V1 = "http://localhost/v1"
SOLVED = {"question": "algebra 3?", "answer": "3", "skills": ["algebra"], "expert": "good"}


async def key_of(client: httpx.AsyncClient, key_id: str) -> dict[str, str]:
    made = await client.post("/keys", json={"id": key_id, "name": key_id})
    return {"authorization": f"Bearer {made.raise_for_status().json()['key']}"}


async def enter(client: httpx.AsyncClient, *questions: str, tenant: str = "_local") -> list[str]:
    problems = [{"question": question, "answer": "3"} for question in questions]
    ids: list[str] = (await client.post("/memory", json={"tenant": tenant, "problems": problems})).raise_for_status().json()["ids"]
    return ids


async def test_what_is_entered_is_listed_in_pages_and_told_one_by_one(client: httpx.AsyncClient) -> None:
    ids = await enter(client, *(f"problem {number}" for number in range(5)))
    first = (await client.get("/memory", params={"limit": 3})).json()
    second = (await client.get("/memory", params={"limit": 3, "cursor": first["next"]})).json()
    one = await client.get(f"/memory/{ids[0]}")

    assert [row["id"] for row in [*first["data"], *second["data"]]] == ids[::-1]
    assert second["next"] is None
    assert one.json()["question"] == "problem 0"
    assert one.json()["source"] == "import"
    assert "vector" not in one.text


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "problems"),
        ({"problems": []}, "problems"),
        ({"problems": [{"question": "x"}]}, "answer"),
        ({"problems": [{"question": "", "answer": "3"}]}, "question"),
        ({"problems": [{"question": "   ", "answer": "3"}]}, "question is empty"),
        ({"problems": [{"question": "x" * 4001, "answer": "3"}]}, "question"),
        ({"problems": [SOLVED] * 501}, "problems"),
        ({"problems": [SOLVED], "tenant": "_locl"}, "_local"),
        ({"problems": [{**SOLVED, "anser": "3"}]}, "answer"),
        ({"problems": [{**SOLVED, "skills": ["a\0"]}]}, "skills"),
    ],
)
async def test_what_cannot_be_kept_is_refused_with_the_reason(client: httpx.AsyncClient, body: dict[str, Any], told: str) -> None:
    refused = await client.post("/memory", json=body)

    assert refused.status_code == 400
    assert told in refused.json()["error"]["message"]
    assert (await client.get("/memory")).json()["data"] == []


async def test_nothing_of_another_tenant_is_seen_or_deleted_with_a_key(client: httpx.AsyncClient) -> None:
    mine, theirs = await key_of(client, "mine"), await key_of(client, "theirs")
    (my_id,), (their_id,) = await enter(client, "my problem", tenant="mine"), await enter(client, "their problem", tenant="theirs")

    listed = (await client.get(f"{V1}/memory", headers=mine)).json()["data"]
    stolen = await client.delete(f"{V1}/memory/{their_id}", headers=mine)
    unknown = await client.delete(f"{V1}/memory/mem-nothing", headers=mine)
    cleared = await client.delete(f"{V1}/memory", headers=mine)

    assert [row["id"] for row in listed] == [my_id]
    assert (stolen.status_code, unknown.status_code) == (404, 404)
    assert stolen.json()["error"]["message"].replace(their_id, "mem-nothing") == unknown.json()["error"]["message"]
    assert cleared.json() == {"num_deleted": 1}
    assert [row["id"] for row in (await client.get("/memory")).json()["data"]] == [their_id]
    assert (await client.delete(f"{V1}/memory/{their_id}", headers=theirs)).status_code == 204
    assert (await client.get("/memory")).json()["data"] == []


async def test_the_audit_log_says_who_changed_the_memory_and_keeps_none_of_its_words(client: httpx.AsyncClient) -> None:
    (one, _) = await enter(client, "a secret problem", "another secret")
    await client.delete(f"/memory/{one}")
    await client.delete("/memory", params={"tenant": "_local"})
    log = await client.get("/audit")

    assert [(row["method"], row["status"]) for row in log.json()["data"]] == [("DELETE", 200), ("DELETE", 204), ("POST", 200)]
    assert "secret" not in log.text


async def test_a_deletion_wants_to_know_whose(client: httpx.AsyncClient) -> None:
    await enter(client, "kept")

    assert (await client.delete("/memory")).status_code == 400
    assert (await client.delete("/memory/mem-nothing")).status_code == 404
    assert len((await client.get("/memory")).json()["data"]) == 1


async def test_the_admin_part_needs_the_admin_key(client: httpx.AsyncClient) -> None:
    assert (await client.get("/memory", headers={"authorization": "Bearer wrong"})).status_code == 401


async def test_a_problem_is_shown_with_the_next_request_after_it_was_entered(client: httpx.AsyncClient, parts: AdminParts) -> None:
    (problem_id,) = await enter(client, "algebra 2?")
    strategy = {"id": "solver", "router": "fixed", "pick": {"kind": "top_k", "k": 2}, "mode": "memory", "max_calls": 9}
    (await client.post("/strategies", json=strategy)).raise_for_status()
    body = {"model": "consilium/solver", "messages": [{"role": "user", "content": "algebra 3?"}], "consilium": {"explain": True}}
    told = (await client.post(f"{V1}/chat/completions", json=body)).json()["consilium"]

    assert [shown["id"] for shown in told["detail"]["memory"]["shown"]] == [problem_id]
    assert "algebra 2?" in str(parts.pool.scripted.calls_to("good")[0].messages)
    wrong = await client.post("/strategies", json={**strategy, "id": "wrong", "mode_options": {"wirte": True}})
    assert wrong.status_code == 400
    assert "did you mean 'write'" in wrong.json()["error"]["message"]


def test_the_command_line_enters_lists_deletes_and_clears(consilium: Consilium, tmp_path: Path) -> None:
    (tmp_path / "solved.jsonl").write_text("".join(json.dumps({"question": f"algebra {n}?", "answer": n}) + "\n" for n in range(3)))

    added = json.loads(consilium("memory", "add", "What is 6 * 7?", "42", "--skills", "algebra", "--json").out)
    several = consilium("memory", "add", "--file", str(tmp_path / "solved.jsonl"))
    listed = consilium("memory", "list")
    rows = json.loads(consilium("memory", "list", "--tenant", "_local", "--json").out)
    deleted = consilium("memory", "delete", added["ids"][0])
    cleared = consilium("memory", "clear", "_local")
    nothing = consilium("memory", "add", "a question alone")
    unknown = consilium("memory", "add", "x", "y", "--tenant", "nobody")

    assert several.out == "kept 3 solved problems of _local\n"
    assert "algebra 2?" in listed.out
    assert [row["answer"] for row in rows] == ["2", "1", "0", "42"]
    assert rows[-1]["skills"] == ["algebra"]
    assert deleted.out == f"deleted {added['ids'][0]}\n"
    assert cleared.out == "deleted 3 of _local\n"
    assert nothing.code == 2
    assert "give a problem and its answer" in nothing.err
    assert unknown.code == 2
