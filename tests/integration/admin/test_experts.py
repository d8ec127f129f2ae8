"""``/admin/api/experts``."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from domain.errors import ExpertAuthFailed, ExpertUnreachable
from domain.experts import Backend, ExpertCard, HealthState
from tests.fakes.admin import AdminParts, ScriptedPool
from tests.fakes.workers import Fails
from workers.discovery import DiscoveredModel

NEW = {"id": "sql", "backend": "openai", "model": "org/sql", "base_url": "http://127.0.0.1:8000/v1"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_the_admin_plane_always_needs_the_admin_key(client: httpx.AsyncClient) -> None:
    """Without the key, or with another one, every resource is a 401."""
    for path in ("/experts", "/strategies", "/skills", "/questions", "/profile-runs", "/profiles", "/traces", "/manifest"):
        for headers in ({"authorization": ""}, {"authorization": "Bearer wrong"}):
            response = await client.get(path, headers=headers)

            assert response.status_code == 401, path


async def test_listing_shows_cards_and_health(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Every expert is listed with its circuit and its calls in flight; a failing one is told open."""
    assert parts.services is not None
    parts.pool.scripted.in_flight["good"] = 3

    rows = {row["id"]: row for row in (await client.get("/experts")).json()["data"]}

    assert list(rows) == ["bad", "good", "worse"]
    assert rows["good"]["health"] == {"state": "closed", "in_flight": 3, "queued": 0}
    assert rows["good"]["backend"] == "embedded"
    assert rows["bad"]["roles"] == ["aggregator", "candidate"]


async def test_lists_come_in_pages(client: httpx.AsyncClient) -> None:
    """Following ``next`` gives every row once, and the last page has none."""
    seen: list[str] = []
    cursor = None
    while True:
        page = (await client.get("/experts", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [row["id"] for row in page["data"]]
        cursor = page["next"]
        if cursor is None:
            break

    assert seen == ["bad", "good", "worse"]


@pytest.mark.parametrize("cursor", ["%%%", "\N{MATHEMATICAL DOUBLE-STRUCK CAPITAL U}", "_w", "=", "a"])
async def test_a_made_up_cursor_is_refused(client: httpx.AsyncClient, cursor: str) -> None:
    response = await client.get("/experts", params={"cursor": cursor})

    assert response.status_code == 400
    assert error_of(response)["param"] == "cursor"


async def test_an_expert_is_created_live_at_once(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """A created expert has a version tag and an address, and is in the snapshot that requests use."""
    response = await client.post("/experts", json=NEW)

    assert response.status_code == 201
    assert response.headers["etag"] == '"1"'
    assert response.headers["location"] == "/admin/api/experts/sql"
    assert parts.services is not None
    assert parts.services.directory.snapshot().experts["sql"].base_url == NEW["base_url"]


async def test_a_taken_id_is_a_conflict(client: httpx.AsyncClient) -> None:
    response = await client.post("/experts", json={**NEW, "id": "good"})

    assert response.status_code == 409
    assert "good" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"backend": "opnai"}, "backend", "openai"),
        ({"contextlength": 5}, "contextlength", "context_length"),
        ({"context_length": "many"}, "context_length", ""),
        ({"capabilities": ["tool"]}, "capabilities[0]", "tools"),
        ({"api_key": "sk-secret"}, "api_key", "env:"),
        ({"base_url": "localhost:8000"}, "base_url", "http"),
        ({"skills": ["algebro"]}, "skills[0]", "algebra"),
        ({"aggregation_prompt": "compcat"}, "aggregation_prompt", "compact"),
        ({"id": "Has Spaces"}, "id", "has-spaces"),
    ],
)
async def test_a_bad_field_is_named_with_the_nearest_valid_value(
    client: httpx.AsyncClient, change: dict[str, Any], param: str, told: str
) -> None:
    response = await client.post("/experts", json={**NEW, **change})

    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert told in error_of(response)["message"]
    assert "sk-secret" not in response.text


async def test_a_skill_that_nobody_knew_becomes_known(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """POST, PUT and PATCH add it, tell it in ``new_skills``, and it is live at once; what GET gives can be sent back."""
    made = await client.post("/experts", json={**NEW, "skills": ["algebra", "law"]})
    put = await client.put("/experts/sql", json={**NEW, "skills": ["law", "tax"]})
    patched = await client.patch("/experts/sql", json={"skills": ["essays"]})
    back = await client.put("/experts/sql", json=patched.json())

    assert [made.status_code, put.status_code, patched.status_code, back.status_code] == [201, 200, 200, 200]
    assert [r.json()["new_skills"] for r in (made, put, patched, back)] == [["law"], ["tax"], ["essays"], []]
    assert "new_skills" not in (await client.get("/experts/sql")).json()
    assert parts.services is not None
    assert {"law", "tax", "essays"} <= parts.services.directory.snapshot().skills.keys()


async def test_a_misspelt_skill_changes_nothing(client: httpx.AsyncClient) -> None:
    """Nothing is stored, not even the skill beside it that is really new."""
    refused = await client.post("/experts", json={**NEW, "skills": ["law", "Roman-Numeral"]})

    assert refused.status_code == 400
    assert error_of(refused)["param"] == "skills[1]"
    assert "did you mean 'roman numerals'?" in error_of(refused)["message"]
    assert "consilium skills add Roman-Numeral" in error_of(refused)["message"]
    assert (await client.get("/skills/law")).status_code == 404
    assert (await client.get("/experts/sql")).status_code == 404


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff{}"])
async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/experts", content=body, headers={"content-type": "application/json"})

    assert response.status_code == 400
    assert "body" in error_of(response)["message"]


async def test_put_replaces_and_patch_changes_fields(client: httpx.AsyncClient) -> None:
    """PUT sets what is left out to its default; PATCH keeps it, and null takes it back to its default."""
    await client.post("/experts", json={**NEW, "description": "first", "price": {"prompt": 1.0, "completion": 2.0}})

    patched = await client.patch("/experts/sql", json={"price": {"prompt": 3.0}, "timeout_s": 5})
    replaced = await client.put("/experts/sql", json=NEW)

    assert patched.json()["price"] == {"prompt": 3.0, "completion": 2.0}
    assert patched.json()["description"] == "first"
    assert patched.headers["etag"] == '"2"'
    assert replaced.json()["description"] == ""
    assert replaced.headers["etag"] == '"3"'


async def test_what_was_read_can_be_written_back(client: httpx.AsyncClient) -> None:
    """A body with the service's own fields (version, health) in it is taken, and those are ignored."""
    card = (await client.get("/experts/good")).json()

    response = await client.put("/experts/good", json={**card, "description": "changed", "version": 77})

    assert response.status_code == 200
    assert response.json()["version"] == 2
    assert response.json()["description"] == "changed"


async def test_put_makes_what_is_not_there(client: httpx.AsyncClient) -> None:
    response = await client.put("/experts/sql", json={key: value for key, value in NEW.items() if key != "id"})

    assert response.status_code == 201
    assert response.json()["id"] == "sql"


async def test_an_id_cannot_be_changed(client: httpx.AsyncClient) -> None:
    response = await client.patch("/experts/good", json={"id": "better"})

    assert response.status_code == 400
    assert error_of(response)["param"] == "id"


async def test_an_old_version_is_refused_everywhere(client: httpx.AsyncClient) -> None:
    """With an ``If-Match`` that is not current, PUT, PATCH and DELETE are a 412 and change nothing."""
    await client.patch("/experts/good", json={"description": "second"})
    old = {"if-match": '"1"'}

    answers = [
        await client.put("/experts/good", json={"backend": "embedded", "model": "x"}, headers=old),
        await client.patch("/experts/good", json={"description": "third"}, headers=old),
        await client.delete("/experts/good", headers=old),
        await client.put("/experts/unheard-of", json=NEW | {"id": "unheard-of"}, headers=old),
    ]

    assert [answer.status_code for answer in answers] == [412] * 4
    assert (await client.get("/experts/good")).json()["description"] == "second"


@pytest.mark.parametrize("tag", ['"1"', 'W/"1"', '"9", "1"', "*", "1"])
async def test_a_current_version_is_honoured_in_every_spelling(client: httpx.AsyncClient, tag: str) -> None:
    response = await client.patch("/experts/good", json={"description": "x"}, headers={"if-match": tag})

    assert response.status_code == 200


async def test_patches_at_the_same_time_lose_nothing(client: httpx.AsyncClient) -> None:
    """Two PATCHes of different fields without ``If-Match`` both end up in the card."""
    await asyncio.gather(
        client.patch("/experts/good", json={"description": "both"}),
        client.patch("/experts/good", json={"timeout_s": 7.5}),
    )

    card = (await client.get("/experts/good")).json()
    assert (card["description"], card["timeout_s"]) == ("both", 7.5)


async def test_an_expert_that_a_strategy_names_cannot_be_removed(client: httpx.AsyncClient) -> None:
    """409 that names the strategy; without the strategy it works, and the expert is gone at once."""
    refused = await client.delete("/experts/bad")
    await client.delete("/strategies/panel")
    removed = await client.delete("/experts/bad")

    assert refused.status_code == 409
    assert "panel" in error_of(refused)["message"]
    assert removed.status_code == 204
    assert (await client.get("/experts/bad")).status_code == 404


async def test_an_unknown_expert_is_a_404_with_the_nearest(client: httpx.AsyncClient) -> None:
    for call in (client.get, client.delete):
        response = await call("/experts/goood")

        assert response.status_code == 404
        assert "'good'" in error_of(response)["message"]


async def test_lists_can_be_filtered(client: httpx.AsyncClient) -> None:
    await client.post("/experts", json={**NEW, "enabled": False})

    async def ids(**params: Any) -> list[str]:
        return [row["id"] for row in (await client.get("/experts", params=params)).json()["data"]]

    assert await ids(backend="openai") == ["sql"]
    assert await ids(skill="algebra") == ["good"]
    assert await ids(enabled="true") == ["bad", "good", "worse"]
    assert await ids(health="open") == []


async def test_a_check_is_one_real_call(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """It tells the answer and the latency."""
    result = (await client.post("/experts/bad/check")).json()

    assert result["ok"] is True
    assert result["answer"] == "no idea"
    assert result["latency_ms"] >= 0
    assert parts.pool.scripted.called() == ["bad"]


@pytest.mark.parametrize("error", [ExpertUnreachable("connection refused"), ExpertAuthFailed("the key was refused")])
async def test_a_dead_expert_fails_its_check_and_its_circuit_opens(
    client: httpx.AsyncClient, parts: AdminParts, error: ExpertUnreachable | ExpertAuthFailed
) -> None:
    """A failed check is an answer that says why, not an HTTP error; three of them open the circuit, one success closes it."""
    parts.pool.scripted = ScriptedPool({"worse": [Fails(error)] * 3 + ["back again"]}).scripted

    results = [(await client.post("/experts/worse/check")).json() for _ in range(4)]

    assert [result["ok"] for result in results] == [False, False, False, True]
    assert results[0]["error"] == {"code": error.code, "message": error.message}
    assert [result["health"] for result in results] == [HealthState.CLOSED, HealthState.CLOSED, HealthState.OPEN, HealthState.CLOSED]


async def test_discovery_gives_ready_cards_and_saves_nothing(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Each served model comes as a card: context length, adapters, an id that is free."""
    parts.pool.served = [
        DiscoveredModel("org/Good", max_model_len=512, owned_by="vllm"),
        DiscoveredModel("tall", max_model_len=512, parent="org/Good", owned_by="vllm"),
    ]

    found = (await client.post("/experts/discover", json={"base_url": "http://127.0.0.1:8000/v1/", "api_key": "env:VLLM_KEY"})).json()

    first, second = (row["card"] for row in found["data"])
    assert [row["state"] for row in found["data"]] == ["new", "new"]
    assert first["id"] == "good-2"
    assert first["model"] == "org/Good"
    assert first["base_url"] == "http://127.0.0.1:8000/v1"
    assert first["api_key"] == "env:VLLM_KEY"
    assert first["context_length"] == 512
    assert "json_schema" in first["capabilities"]
    assert "LoRA adapter on org/Good" in second["description"]
    assert len((await client.get("/experts")).json()["data"]) == 3


async def test_discovery_sends_no_secret_of_the_service_elsewhere(client: httpx.AsyncClient) -> None:
    """Editors choose the server, and must not get the admin key of it."""
    answer = await client.post("/experts/discover", json={"base_url": "http://elsewhere.example/v1", "api_key": "env:CONSILIUM_ADMIN_KEY"})

    assert answer.status_code == 400
    assert error_of(answer)["param"] == "api_key"


async def test_discovery_saves_when_asked_and_knows_what_is_there(client: httpx.AsyncClient, parts: AdminParts) -> None:
    parts.pool.served = [DiscoveredModel("sql")]
    body = {"base_url": "http://127.0.0.1:8000/v1", "save": True}

    first = (await client.post("/experts/discover", json=body)).json()
    second = (await client.post("/experts/discover", json=body)).json()

    assert [row["state"] for row in first["data"] + second["data"]] == ["added", "known"]
    assert parts.services is not None
    assert "sql" in parts.services.directory.snapshot().experts


async def test_a_discovered_model_called_auto_becomes_an_expert_that_can_be_reached(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """Its id is none of the virtual models', and the manifest that names it can be applied again."""
    parts.pool.served = [DiscoveredModel("auto")]

    (row,) = (await client.post("/experts/discover", json={"base_url": "http://127.0.0.1:8000/v1", "save": True})).json()["data"]
    manifest = (await client.get("/manifest")).text
    applied = await client.post("/manifest", json={"yaml": manifest})

    assert (row["card"]["id"], row["card"]["model"], row["state"]) == ("auto-2", "auto", "added")
    assert applied.status_code == 200
    assert (await client.get("/experts/auto")).status_code == 404


async def test_discovery_stores_no_card_that_would_be_refused(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """It is told with the reason, and the models beside it are added."""
    parts.pool.served = [DiscoveredModel("nul\0"), DiscoveredModel("endless", max_model_len=2**40), DiscoveredModel("sql")]
    body = {"base_url": "http://127.0.0.1:8000/v1"}

    looked = (await client.post("/experts/discover", json=body)).json()["data"]
    saved = (await client.post("/experts/discover", json={**body, "save": True})).json()["data"]

    assert [row["state"] for row in looked] == ["invalid", "invalid", "new"]
    assert [row["state"] for row in saved] == ["invalid", "invalid", "added"]
    assert "model: must not hold a NUL" in saved[0]["problem"]
    assert "context_length" in saved[1]["problem"]
    assert {row["id"] for row in (await client.get("/experts")).json()["data"]} == {"bad", "good", "sql", "worse"}


async def test_discovery_adds_all_new_models_or_none(client: httpx.AsyncClient, parts: AdminParts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody takes the second id while the server is asked: a 409, and the first is not half of an answer that nobody got."""
    parts.pool.served = [DiscoveredModel("first"), DiscoveredModel("second")]
    store = parts.services.expert_store if parts.services else None
    assert store is not None
    listed = store.list

    async def list_and_let_another_in() -> Any:
        cards = await listed()
        await store.create(ExpertCard("second", Backend.EMBEDDED, "second"))
        return cards

    monkeypatch.setattr(store, "list", list_and_let_another_in)
    refused = await client.post("/experts/discover", json={"base_url": "http://127.0.0.1:8000/v1", "save": True})

    assert refused.status_code == 409
    assert "'second'" in error_of(refused)["message"]
    assert {card.id for card in await listed()} == {"bad", "good", "second", "worse"}


async def test_discovery_of_a_dead_server_is_a_502_that_says_so(client: httpx.AsyncClient, parts: AdminParts) -> None:
    parts.pool.served = ExpertUnreachable("http://127.0.0.1:1/v1/models: connection refused")

    response = await client.post("/experts/discover", json={"base_url": "http://127.0.0.1:1/v1"})

    assert response.status_code == 502
    assert "refused" in error_of(response)["message"]


async def test_discovery_takes_no_secret(client: httpx.AsyncClient) -> None:
    response = await client.post("/experts/discover", json={"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-secret"})

    assert response.status_code == 400
    assert error_of(response)["param"] == "api_key"
    assert "sk-secret" not in response.text


@pytest.mark.parametrize("url", ["http://me:s3cret@127.0.0.1:1/v1", "https://s3cret@127.0.0.1/v1", "http://:80/v1", "ftp://127.0.0.1"])
async def test_discovery_takes_the_addresses_that_a_card_may_have(client: httpx.AsyncClient, url: str) -> None:
    response = await client.post("/experts/discover", json={"base_url": url, "save": True})

    assert response.status_code == 400
    assert error_of(response)["param"] == "base_url"
    assert "s3cret" not in response.text
