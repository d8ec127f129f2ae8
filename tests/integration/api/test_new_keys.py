"""Several processes of one service: a key that was made at one of them works at the others at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.integration.api.test_bootstrap import LocalEncoder, running, settings_in, until_ready

KEY = "Authorization"


@pytest.fixture(name="both")
async def _both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Two processes' worth of service over one database, neither of which would look at it again by itself."""
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)
    settings = settings_in(tmp_path, registry_poll_s=3_600)
    async with running(settings) as one, running(settings) as other:
        await until_ready(one)
        await until_ready(other)
        yield one, other


async def made(http: httpx.AsyncClient, key_id: str, **fields: object) -> dict[str, str]:
    answer = await http.post("/admin/api/keys", json={"id": key_id, **fields})
    assert answer.status_code == 201, answer.text
    return {KEY: f"Bearer {answer.json()['key']}"}


@pytest.mark.parametrize("asked_first", ["/v1/models", "/v1/route", "/admin/api/experts"])
async def test_a_new_key_works_at_once_wherever_it_is_sent(both: tuple[httpx.AsyncClient, httpx.AsyncClient], asked_first: str) -> None:
    one, other = both
    key = await made(one, "new", role="viewer")
    question = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
    answer = await (
        other.post(asked_first, json=question, headers=key) if asked_first.endswith("route") else other.get(asked_first, headers=key)
    )

    assert answer.status_code == (503 if asked_first.endswith("route") else 200), answer.text  # there is no expert


async def test_a_rotated_secret_works_at_once_too(both: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> None:
    one, other = both
    old = await made(one, "rotated")
    assert (await other.get("/v1/models", headers=old)).status_code == 200
    rotated = await one.post("/admin/api/keys/rotated/rotate", json={})
    assert rotated.status_code == 200, rotated.text

    assert (await other.get("/v1/models", headers={KEY: f"Bearer {rotated.json()['key']}"})).status_code == 200


async def test_keys_that_there_are_not_are_refused_and_looked_for_together(both: tuple[httpx.AsyncClient, httpx.AsyncClient]) -> None:
    one, other = both
    await made(other, "first")  # as long as a process on loopback knows of no key at all, it asks for none
    key = await made(one, "real")
    unknown = [other.post("/v1/route", json={}, headers={KEY: f"Bearer ck-{number:043}"}) for number in range(100)]
    began = asyncio.get_running_loop().time()
    statuses = [answer.status_code for answer in await asyncio.gather(*unknown, other.get("/v1/models", headers=key))]
    took_s = asyncio.get_running_loop().time() - began

    assert statuses == [401] * 100 + [200]
    assert took_s < 100 * 0.2 / 2, "each has waited for a look of its own"
