"""What is reached directly answers as it does through FastAPI: the same bodies, statuses, errors and headers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import SecretStr

import api.app
from domain.errors import ExpertUnreachable
from tests.fakes.services import parts
from tests.fakes.workers import Fails

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}
TIMES = ("-ms", "date")
"""Ends of the names of headers that differ from request to request."""

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "answer": ("POST", CHAT, {"json": ASK}),
    "expert by name": ("POST", CHAT, {"json": ASK | {"model": "maths"}}),
    "stream": ("POST", CHAT, {"json": ASK | {"stream": True}}),
    "text": ("POST", TEXT, {"json": {"model": "auto", "prompt": "6 * 7 ="}}),
    "wrong field": ("POST", CHAT, {"json": ASK | {"temperature": 9}}),
    "broken JSON": ("POST", CHAT, {"content": b"{", "headers": {"content-type": "application/json"}}),
    "no JSON": ("POST", CHAT, {"content": b"x", "headers": {"content-type": "text/plain"}}),
    "unknown model": ("POST", CHAT, {"json": ASK | {"model": "mathz"}}),
    "wrong session": ("POST", CHAT, {"json": ASK, "headers": {"x-session-id": "a b"}}),
    "every expert failed": ("POST", CHAT, {"json": ASK | {"model": "broken"}}),
    "wrong method": ("GET", CHAT, {}),
    "head": ("HEAD", CHAT, {}),
    "options": ("OPTIONS", CHAT, {}),
    "other method with a body": ("PUT", CHAT, {"json": ASK}),
    "slash at the end": ("POST", CHAT + "/", {"json": ASK}),
    "question behind the path": ("POST", CHAT + "?a=b", {"json": ASK}),
    "no body": ("POST", CHAT, {}),
    "no object": ("POST", CHAT, {"json": [ASK]}),
    "failing stream": ("POST", CHAT, {"json": ASK | {"model": "broken", "stream": True}}),
    "embeddings": ("POST", "/v1/embeddings", {"json": {"model": "auto", "input": "hi"}}),
}


async def outcome(serve: Any, case: str, **changes: Any) -> tuple[int, dict[str, str], str]:
    http = await serve(parts({"maths": "42", "broken": Fails(ExpertUnreachable("nobody is there"))}), **changes)
    method, path, given = CASES[case]
    response = await http.request(method, path, **{**given, "headers": {"x-request-id": "r1", **given.get("headers", {})}})
    kept = {name: value for name, value in response.headers.items() if not name.endswith(TIMES)}
    return response.status_code, kept, re.sub(r'"created":\d+', "", response.text)


@pytest.mark.parametrize("case", CASES)
async def test_it_is_as_through_fastapi(serve: Any, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    directly = await outcome(serve, case)
    monkeypatch.setattr(api.app, "_DIRECT", {})

    assert directly == await outcome(serve, case)


async def test_a_key_is_asked_for(serve: Any) -> None:
    http = await serve(parts({"maths": "42"}), api_keys=SecretStr("secret"))

    assert (await http.post(CHAT, json=ASK)).status_code == 401
    assert (await http.post(CHAT, json=ASK, headers={"authorization": "Bearer wrong"})).status_code == 401
    assert (await http.post(CHAT, json=ASK, headers={"authorization": "Bearer secret"})).status_code == 200


async def test_nothing_is_answered_before_everything_is_loaded(serve: Any) -> None:
    made = parts({"maths": "42"})
    made.readiness.set("index", "loading")
    http = await serve(made)
    response = await http.post(CHAT, json=ASK)

    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")


async def test_it_is_counted_by_its_path_and_documented(serve: Any) -> None:
    http = await serve(parts({"maths": "42"}))
    await http.post(CHAT, json=ASK)

    assert 'consilium_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0' in (await http.get("/metrics")).text
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert all("post" in paths[path] for path in api.app._DIRECT)
