"""A key's life: created, shown once, used within its rights and limits, rotated, revoked; and what the audit log says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.experts import Price
from tests.fakes.admin import AdminParts
from tests.fakes.services import ADMIN_KEY
from tests.integration.admin.conftest import Consilium

ASK = {"model": "auto", "messages": [{"role": "user", "content": "algebra 1?"}], "max_tokens": 5}


async def created(client: httpx.AsyncClient, key_id: str = "team", **fields: Any) -> str:
    response = await client.post("/keys", json={"id": key_id, **fields})
    assert response.status_code == 201, response.text
    secret: str = response.json()["key"]
    return secret


async def asked(client: httpx.AsyncClient, secret: str, body: Any = ASK, path: str = "/v1/chat/completions") -> httpx.Response:
    headers = {"authorization": f"Bearer {secret}"}
    url = f"http://localhost{path}"
    return await client.post(url, json=body, headers=headers) if body is not None else await client.get(url, headers=headers)


def _files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_secret_is_told_once_and_kept_as_a_hash(client: httpx.AsyncClient, tmp_path: Path) -> None:
    made = (await client.post("/keys", json={"id": "team", "name": "Team A"})).json()
    seen = await client.get("/keys/team")
    listed = await client.get("/keys")

    assert made["key"].startswith("ck-")
    assert len(made["key"]) > 40
    assert made["key"].startswith(made["prefix"])
    assert "key" not in seen.json()
    assert made["key"] not in seen.text + listed.text
    assert "sha256" not in seen.text + listed.text
    assert made["key"].encode() not in _files_of(tmp_path)


async def test_where_there_is_a_key_one_is_needed(client: httpx.AsyncClient) -> None:
    before = await asked(client, "", None, "/v1/models")
    secret = await created(client)
    without = await client.post("http://localhost/v1/chat/completions", json=ASK, headers={"authorization": ""})

    assert before.status_code == 200
    assert without.status_code == 401
    assert (await asked(client, "ck-wrong")).status_code == 401
    assert (await asked(client, secret)).status_code == 200
    assert (await asked(client, ADMIN_KEY)).status_code == 200


async def test_rotation_with_and_without_overlap(client: httpx.AsyncClient) -> None:
    first = await created(client)
    second = (await client.post("/keys/team/rotate", json={"overlap_s": 3600})).json()["key"]
    both = [(await asked(client, secret)).status_code for secret in (first, second)]
    third = (await client.post("/keys/team/rotate")).json()["key"]

    assert both == [200, 200]
    assert [(await asked(client, secret)).status_code for secret in (first, second, third)] == [401, 401, 200]


async def test_a_revoked_key_stays_revoked(client: httpx.AsyncClient) -> None:
    secret = await created(client)
    assert (await client.delete("/keys/team")).status_code == 204
    refused = await asked(client, secret)

    assert refused.status_code == 401
    assert "is revoked" in refused.json()["error"]["message"]
    assert (await client.get("/keys/team")).json()["state"] == "revoked"
    assert (await client.patch("/keys/team", json={"name": "back"})).status_code == 409
    assert (await client.post("/keys", json={"id": "team"})).status_code == 409
    assert (await client.post("http://localhost/v1/chat/completions", json=ASK, headers={"authorization": ""})).status_code == 401


async def test_an_expired_key_opens_nothing(client: httpx.AsyncClient) -> None:
    secret = await created(client, expires_at="2026-01-01")

    assert "has expired" in (await asked(client, secret)).json()["error"]["message"]


async def test_keys_are_versioned_as_everything_is(client: httpx.AsyncClient) -> None:
    await created(client, limits={"requests_per_minute": 5})
    tag = (await client.get("/keys/team")).headers["etag"]
    changed = await client.patch("/keys/team", json={"limits": {"tokens_per_day": 100}}, headers={"if-match": tag})
    late = await client.patch("/keys/team", json={"name": "x"}, headers={"if-match": tag})

    limits = changed.json()["limits"]
    assert (limits["requests_per_minute"], limits["tokens_per_day"]) == (5, 100)
    assert late.status_code == 412


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"id": "Team"}, "did you mean 'team'"),
        ({"id": "admin"}, "reserved"),
        ({"id": "t", "role": "boss"}, "did you mean|known are|not known"),
        ({"id": "t", "experts": ["god"]}, "did you mean 'good'|there is no expert 'god'"),
        ({"id": "t", "limits": {"rpm": 1}}, "unknown key"),
        ({"id": "t", "limits": {"usd_per_day": 0}}, "greater than 0"),
        ({"id": "t", "expires_at": "tomorrow"}, "2026-12-31"),
    ],
)
async def test_bad_keys_are_refused_with_what_to_do(client: httpx.AsyncClient, body: Any, says: str) -> None:
    response = await client.post("/keys", json=body)

    assert response.status_code == 400
    assert any(part in response.json()["error"]["message"] for part in says.split("|")), response.text


async def test_what_a_key_may_not_see_does_not_exist_for_it(client: httpx.AsyncClient) -> None:
    """Not listed, not chosen, not named: in models, errors, explanations and headers."""
    await client.patch("/experts/good", json={"labels": ["legal"]})
    await client.patch("/experts/bad", json={"labels": ["legal"]})
    plain, lawyer = await created(client, "plain"), await created(client, "lawyer", labels=["legal"])
    only = await created(client, "only", labels=["*"], experts=["worse"], strategies=["auto"])

    def names(response: httpx.Response) -> list[str]:
        return [model["id"] for model in response.json()["data"]]

    assert names(await asked(client, plain, None, "/v1/models")) == ["auto", "consilium/auto", "consilium/panel", "worse"]
    assert names(await asked(client, lawyer, None, "/v1/models"))[3:] == ["bad", "good", "worse"]
    assert names(await asked(client, only, None, "/v1/models")) == ["auto", "consilium/auto", "worse"]
    for model, status in (("good", 404), ("goood", 404), ("consilium/panel", 200), ("auto", 200), ("worse", 200)):
        answer = await asked(client, plain, {**ASK, "model": model, "consilium": {"explain": True}})
        assert answer.status_code == status
        text = answer.text.replace("'goood'", "").replace("the model 'good'", "") + str(answer.headers)
        assert not any(hidden in text for hidden in ("good", '"bad"', "'bad'", " bad")), text
    assert (await asked(client, only, {**ASK, "model": "consilium/panel"})).status_code == 404
    assert (await asked(client, lawyer)).headers["x-consilium-experts"] == "bad"
    refused = await asked(client, plain, {**ASK, "consilium": {"allow": ["good"]}})
    assert refused.json()["error"]["message"] == (await asked(client, plain, {**ASK, "consilium": {"allow": ["goox"]}})).json()["error"][
        "message"
    ].replace("goox", "good")


async def test_requests_tokens_and_concurrency_are_bounded(client: httpx.AsyncClient, parts: AdminParts) -> None:
    secret = await created(client, limits={"requests_per_minute": 3, "tokens_per_minute": 10_000})
    answers = [await asked(client, secret) for _ in range(4)]
    told, refused = answers[0].headers, answers[3]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("3", "2")
    assert told["x-ratelimit-limit-tokens"] == "10000"
    assert told["x-ratelimit-reset-requests"].startswith("1m0")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.json()["error"] | {"message": ""} == {
        "message": "", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"
    }  # fmt: skip


async def test_a_request_that_can_never_pass_is_told_so(client: httpx.AsyncClient) -> None:
    secret = await created(client, limits={"tokens_per_minute": 100})
    answer = await asked(client, secret, {**ASK, "max_tokens": 1000})

    assert answer.status_code == 429
    assert "max_tokens" in answer.json()["error"]["message"]
    assert "retry-after" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"


async def test_a_budget_ends_with_insufficient_quota(client: httpx.AsyncClient, parts: AdminParts) -> None:
    """What is counted is what was used: the fake experts tell three tokens of prompt and two of answer."""
    assert parts.services is not None
    card = await parts.services.expert_store.get("good")
    await parts.services.expert_store.replace(replace(card, price=Price(1_000_000.0, 1_000_000.0)))
    secret = await created(client, limits={"usd_per_day": 100.0})
    answers = [await asked(client, secret, {**ASK, "model": "good"}) for _ in range(25)]
    statuses = [answer.status_code for answer in answers]
    rows = (await client.get("/keys/usage", params={"key": "team"})).json()["data"]

    used = {row["expert"]: row for row in rows}
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert answers[-1].json()["error"]["code"] == answers[-1].json()["error"]["type"] == "insufficient_quota"
    assert answers[-1].headers["x-should-retry"] == "false"
    assert used[None]["requests"] == statuses.count(200) == used["good"]["calls"]
    assert used["good"]["usd"] == used["good"]["prompt_tokens"] + used["good"]["completion_tokens"] <= 100


async def test_streams_are_settled_when_they_end(client: httpx.AsyncClient) -> None:
    secret = await created(client, limits={"max_concurrency": 1, "requests_per_minute": 100})
    for _ in range(3):
        assert (await asked(client, secret, {**ASK, "stream": True})).status_code == 200
    for body in ({**ASK, "model": "nobody"}, {**ASK, "consilium": {"k": 99}}, {"messages": 3}):
        assert (await asked(client, secret, body)).status_code in {400, 404}
    assert (await asked(client, secret)).status_code == 200


async def test_embeddings_and_routes_count_too(client: httpx.AsyncClient) -> None:
    secret = await created(client, limits={"requests_per_minute": 2, "tokens_per_minute": 1000})
    first = await asked(client, secret, {"model": "auto", "input": "three words here"}, "/v1/embeddings")
    second = await asked(client, secret, ASK, "/v1/route")
    third = await asked(client, secret, {"model": "auto", "input": "more"}, "/v1/embeddings")
    rows = (await client.get("/keys/usage")).json()["data"]

    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert first.headers["x-ratelimit-remaining-tokens"] == "997"
    assert sum(row["requests"] for row in rows) == 2
    assert [row["prompt_tokens"] for row in rows if row["expert"] == "all-MiniLM-L6-v2"] == [3]


async def test_the_tokens_of_a_key_s_embeddings_are_counted_once(
    client: httpx.AsyncClient, parts: AdminParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await created(client, limits={"tokens_per_minute": 1000})
    assert parts.services is not None
    encoder, counted = parts.services.encoder, []
    count = encoder.count_tokens

    async def told(texts: Any) -> int:
        counted.append(len(texts))
        return await count(texts)

    monkeypatch.setattr(encoder, "count_tokens", told)
    answer = await asked(client, secret, {"model": "auto", "input": ["three words here", "two more"]}, "/v1/embeddings")

    assert answer.json()["usage"]["prompt_tokens"] == 5
    assert counted == [2]


async def test_usage_is_exported(client: httpx.AsyncClient) -> None:
    secret = await created(client)
    await asked(client, secret)
    exported = await client.get("/keys/usage", params={"format": "csv"})

    header, *rows = exported.text.splitlines()
    assert exported.headers["content-type"].startswith("text/csv")
    assert header == "key,day,expert,requests,calls,failed,prompt_tokens,completion_tokens,usd"
    assert [row.split(",")[0] for row in rows] == ["team", "team"]


async def test_roles_bound_the_admin_plane(client: httpx.AsyncClient) -> None:
    keys = {role: await created(client, role, role=role) for role in ("viewer", "editor", "owner")}
    plain = await created(client, "plain")

    async def status(role: str, method: str, path: str, body: Any = None) -> int:
        secret = keys.get(role, plain)
        return (await client.request(method, path, json=body, headers={"authorization": f"Bearer {secret}"})).status_code

    change = ("PATCH", "/experts/good", {"description": "x"})
    assert [await status(role, "GET", "/experts") for role in ("plain", "viewer", "editor", "owner")] == [401, 200, 200, 200]
    assert [await status(role, *change) for role in ("plain", "viewer", "editor", "owner")] == [401, 403, 200, 200]
    assert [await status(role, "GET", "/keys") for role in ("viewer", "editor", "owner")] == [200, 200, 200]
    assert [await status(role, "POST", "/keys", {"id": f"by-{role}"}) for role in ("viewer", "editor", "owner")] == [403, 403, 201]
    assert [await status(role, "GET", "/audit") for role in ("viewer", "editor", "owner")] == [403, 403, 200]
    assert await status("viewer", "DELETE", "/experts/worse") == 403


async def test_a_manifest_that_changes_nothing_leaves_no_entry_in_the_audit_log(client: httpx.AsyncClient) -> None:
    """A stack applies its file at every start, and nothing ever removes an entry."""
    manifest = "skills: {geometry: Angles and areas}\n"
    statuses = [
        (await client.post("/manifest", json={"yaml": manifest}, params=params)).status_code
        for params in ({"dry_run": "true"}, {}, {}, {"dry_run": "true"})
    ]
    log = (await client.get("/audit")).json()["data"]

    assert statuses == [200] * 4
    assert [(entry["method"], entry["path"]) for entry in log] == [("POST", "/admin/api/manifest")]
    assert log[0]["after"]["created"] == ["skill geometry"]


async def test_the_audit_log_says_who_changed_what(client: httpx.AsyncClient) -> None:
    secret = await created(client, "ed", role="editor")
    headers = {"authorization": f"Bearer {secret}", "x-request-id": "change-1"}
    await client.patch("/experts/good", json={"description": "better"}, headers=headers)
    await client.patch("/experts/good", json={"description": 3}, headers=headers)
    await client.delete("/experts/worse", headers=headers)
    log = await client.get("/audit")
    deleted, changed, made = log.json()["data"]

    assert (changed["actor"], changed["role"], changed["method"], changed["path"]) == ("ed", "editor", "PATCH", "/admin/api/experts/good")
    assert (changed["request_id"], changed["status"]) == ("change-1", 200)
    assert (changed["before"]["description"], changed["after"]["description"]) == ("", "better")
    assert (deleted["before"]["id"], deleted["after"]) == ("worse", None)
    assert (made["actor"], made["after"]["id"], made["after"]["key"]) == ("admin", "ed", "***")
    assert secret not in log.text
    assert len((await client.get("/audit", params={"actor": "ed", "limit": 1})).json()["data"]) == 1


async def test_the_metrics_are_for_keys_that_see_everything(client: httpx.AsyncClient) -> None:
    """They name every expert and strategy: to a key that is kept from some, these would not exist."""
    secrets = {
        "all": await created(client, "all"),
        "some": await created(client, "some", experts=["good"]),
        "recipes": await created(client, "recipes", strategies=["auto"]),
        "viewer": await created(client, "viewer", experts=["good"], role="viewer"),
    }

    async def statuses() -> dict[str, int]:
        return {name: (await asked(client, secret, None, "/metrics")).status_code for name, secret in secrets.items()}

    assert await statuses() == {"all": 200, "some": 403, "recipes": 403, "viewer": 200}
    await client.patch("/experts/bad", json={"labels": ["internal"]})
    assert await statuses() == {"all": 403, "some": 403, "recipes": 403, "viewer": 200}
    assert (await asked(client, ADMIN_KEY, None, "/metrics")).status_code == 200


async def test_a_request_that_is_forgotten_stands_in_no_log(client: httpx.AsyncClient, parts: AdminParts) -> None:
    body = {"model": "good", "messages": [{"role": "user", "content": "a private matter"}]}
    await client.post("http://localhost/v1/chat/completions", json=body)
    assert parts.services is not None
    await parts.services.trace_store.flush()
    (row,) = (await client.get("/traces")).json()["data"]
    assert "a private matter" in (await client.get(f"/traces/{row['id']}")).text

    assert (await client.delete(f"/traces/{row['id']}")).status_code == 204

    log = await client.get("/audit")
    (entry,) = log.json()["data"]
    assert (entry["method"], entry["path"], entry["before"]) == ("DELETE", f"/admin/api/traces/{row['id']}", None)
    assert "a private matter" not in log.text


async def test_files_and_batches_belong_to_their_key(client: httpx.AsyncClient) -> None:
    mine, other = await created(client, "mine"), await created(client, "other")
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": ASK}).encode()

    async def http(secret: str, method: str, path: str, **options: Any) -> httpx.Response:
        return await client.request(method, f"http://localhost/v1{path}", headers={"authorization": f"Bearer {secret}"}, **options)

    form = {"files": {"file": ("in.jsonl", line)}, "data": {"purpose": "batch"}}
    file_id = (await http(mine, "POST", "/files", **form)).json()["id"]
    order = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert (await http(other, "POST", "/batches", json=order)).status_code == 404
    for method, path in (("GET", f"/files/{file_id}"), ("GET", f"/files/{file_id}/content"), ("DELETE", f"/files/{file_id}")):
        assert (await http(other, method, path)).status_code == 404
    assert (await http(other, "GET", "/files")).json()["data"] == []
    assert len((await http(mine, "GET", "/files")).json()["data"]) == 1
    assert (await http(ADMIN_KEY, "GET", f"/files/{file_id}/content")).content == line


def test_the_command_line(consilium: Consilium) -> None:
    made = consilium("keys", "create", "team", "--name", "Team A", "--rpm", "60", "--usd-per-day", "2.5", "--expires", "2099-12-31")
    assert made.code == 0
    assert made.out.startswith("ck-")
    assert "not shown again" in made.err
    listed = consilium("keys", "list")
    assert "60 requests/min, 2.5 $/day" in listed.out
    assert made.out.strip() not in listed.out
    assert consilium("keys", "rotate", "team", "--overlap", "60").out.startswith("ck-")
    assert "until" in consilium("keys", "show", "team").out
    assert consilium("keys", "usage", "--csv").out.startswith("key,day,expert")
    assert consilium("keys", "usage", "--csv", "--json").code == 2
    assert consilium("keys", "revoke", "team").out == "revoked team\n"
    audited = json.loads(consilium("audit", "--json").out)
    assert [entry["method"] for entry in audited] == ["DELETE", "POST", "POST"]
    assert consilium("keys", "revoke", "teem").code == 2
