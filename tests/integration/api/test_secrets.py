"""Secrets are nowhere in what the service writes or answers: not in logs, traces, spans, errors, exports, metrics, or the audit log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.collector import running_collector
from tests.fakes.upstream import Fault, NotAStream, Status, running_upstream
from tests.integration.api.test_bootstrap import LocalEncoder, running, settings_in, until_ready

EXPERTS_SECRET, ADMINS_SECRET = "canary-expert-4f1d9e77ab", "canary-admin-77c0ffee12"
NUM_REFUSED = 6
"""Requests that the worst of servers answers, each at least a span."""
ASK: dict[str, Any] = {"model": "leaky", "messages": [{"role": "user", "content": "hello"}]}


def _files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_canary_is_found_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With the worst of servers: it sends the key that it was called with back in its errors."""
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)
    monkeypatch.setenv("CANARY_KEY", EXPERTS_SECRET)
    caplog.set_level(logging.DEBUG)
    answers: list[str] = []
    async with (
        running_upstream() as upstream,
        running_collector() as collector,
        running(settings_in(tmp_path, admin_key=ADMINS_SECRET, otlp_endpoint=collector.url)) as http,
    ):

        async def told(method: str, path: str, secret: str, body: Any = None) -> httpx.Response:
            response = await http.request(method, path, json=body, headers={"authorization": f"Bearer {secret}"})
            answers.append(f"{response.status_code} {response.headers} {response.text}")
            return response

        await until_ready(http)
        card = {"id": "leaky", "backend": "openai", "model": "m", "base_url": upstream.base_url, "api_key": "env:CANARY_KEY"}
        assert (await told("POST", "/admin/api/experts", ADMINS_SECRET, card)).status_code == 201
        made = await http.post("/admin/api/keys", json={"id": "team"}, headers={"authorization": f"Bearer {ADMINS_SECRET}"})
        key = str(made.json()["key"])
        said = f"bad key Bearer {EXPERTS_SECRET} ({EXPERTS_SECRET})"
        garbled = NotAStream(f"{'x' * 110}{EXPERTS_SECRET}")
        refused, wrong = Status(401, message=said), Status(400, message=said, param=EXPERTS_SECRET, code=EXPERTS_SECRET)
        faults: list[Fault] = [refused, wrong, garbled]
        for fault in faults:
            for stream in (False, True):
                upstream.faults += [fault] * (4 if isinstance(fault, NotAStream) else 1)  # what is garbled is asked for again
                assert (await told("POST", "/v1/chat/completions", key, {**ASK, "stream": stream})).status_code >= 400
        upstream.faults.clear()
        await told("PATCH", "/admin/api/experts/leaky", ADMINS_SECRET, {"description": "its circuit is closed again"})
        assert (await told("POST", "/v1/chat/completions", key, ASK)).status_code == 200
        assert upstream.requests[-1].headers["authorization"] == f"Bearer {EXPERTS_SECRET}"
        upstream.faults.append(refused)
        await told("POST", "/admin/api/experts/leaky/check", ADMINS_SECRET)
        await told("POST", "/admin/api/experts/discover", ADMINS_SECRET, {"base_url": upstream.base_url, "api_key": "env:CANARY_KEY"})
        await told("POST", "/v1/chat/completions", f"{key}-and-more", ASK)
        await told("PATCH", "/admin/api/experts/leaky", ADMINS_SECRET, {"api_key": key})
        await told("PATCH", "/admin/api/experts/leaky", ADMINS_SECRET, {"description": "leaks"})
        rotated = await http.post("/admin/api/keys/team/rotate", headers={"authorization": f"Bearer {ADMINS_SECRET}"})
        for path in ("experts", "keys", "keys/usage", "keys/usage?format=csv", "traces", "manifest", "audit"):
            await told("GET", f"/admin/api/{path}", ADMINS_SECRET)
        await told("GET", "/metrics", rotated.json()["key"])
        for trace in (await told("GET", "/admin/api/traces", ADMINS_SECRET)).json()["data"]:
            await told("GET", f"/admin/api/traces/{trace['id']}", ADMINS_SECRET)
        await collector.until(NUM_REFUSED)
        exported = b"".join(collector.bodies)

    assert b"leaky" in exported
    written = _files_of(tmp_path)
    assert sum("bad key" in answer for answer in answers) >= 4, "the server's words are passed on, without the key"
    for secret in (EXPERTS_SECRET, ADMINS_SECRET, key, rotated.json()["key"]):
        assert [answer[:400] for answer in answers if secret in answer] == []
        assert secret not in caplog.text
        assert secret.encode() not in exported
        found = written.count(secret.encode())
        assert found == 0, f"{secret} is {found} times in the files of the data dir"
