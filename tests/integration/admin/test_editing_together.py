"""Two people change one thing: who holds an old version is told so, however close together they come."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

NUM_EDITORS = 6


async def at_once(client: httpx.AsyncClient, method: str, path: str, bodies: list[Any], tag: str | None = None) -> list[int]:
    headers = {"if-match": tag} if tag else {}
    answers = await asyncio.gather(*(client.request(method, path, json=body, headers=headers) for body in bodies))
    return sorted(answer.status_code for answer in answers)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("path", "field", "rest"),
    [
        ("/questions/algebra-0", "answer", {"question": "algebra 0?"}),
        ("/skills/cooking", "description", {}),
        ("/experts/good", "description", {"backend": "embedded", "model": "good"}),
        ("/strategies/auto", "description", {"router": "fixed"}),
    ],
)
async def test_of_changes_to_one_version_one_is_made(client: httpx.AsyncClient, method: str, path: str, field: str, rest: Any) -> None:
    """The others are a 412 each, and what is stored is the one that was told to be."""
    tag = (await client.get(path)).headers["etag"]
    bodies = [{**rest, field: f"editor {number}"} for number in range(NUM_EDITORS)]

    statuses = await at_once(client, method, path, bodies, tag)

    assert statuses == [200] + [412] * (NUM_EDITORS - 1)


@pytest.mark.parametrize("path", ["/questions/algebra-0", "/skills/cooking"])
async def test_of_removals_of_one_version_one_is_made(client: httpx.AsyncClient, path: str) -> None:
    tag = (await client.get(path)).headers["etag"]

    statuses = await at_once(client, "DELETE", path, [None] * NUM_EDITORS, tag)

    assert statuses[0] == 204
    assert set(statuses[1:]) <= {404, 412}


async def test_changes_of_different_fields_are_all_kept(client: httpx.AsyncClient) -> None:
    """Patches without a version do not undo each other."""
    bodies: list[Any] = [{"answer": "zero"}, {"category": "sums"}, {"skills": ["adding"]}, {"grader": "contains"}]

    assert await at_once(client, "PATCH", "/questions/algebra-0", bodies) == [200] * 4
    stored = (await client.get("/questions/algebra-0")).json()

    assert {name: stored[name] for body in bodies for name in body} == {name: body[name] for body in bodies for name in body}


async def test_a_run_is_taken_back_by_one(client: httpx.AsyncClient) -> None:
    """Of several who take back the version that they saw, one does; for the others it is another version now."""
    outcome = {"expert_id": "good", "question_id": "algebra-0", "skills": ["algebra"], "correct": True}
    made = await client.post("/profile-runs/import", json={"outcomes": [outcome]})
    path = f"/profile-runs/{made.json()['id']}"

    statuses = await at_once(client, "DELETE", path, [None] * NUM_EDITORS, made.headers["etag"])

    assert statuses == [204] + [412] * (NUM_EDITORS - 1)
