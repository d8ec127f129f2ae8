"""A served application that has done some of everything, and what it shows to a scraper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import Status, running_upstream
from tests.integration.api.test_bootstrap import LocalEncoder, running, settings_in, until_ready

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
async def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A service that has answered, streamed, aggregated, failed, embedded and been told what users think."""
    monkeypatch.setattr("api.bootstrap.Encoder", LocalEncoder)
    async with running_upstream() as upstream, running(settings_in(tmp_path)) as http:
        await until_ready(http)
        for name, model, role in (
            ("speaker", "speaker", "candidate"), ("other", "endless", "candidate"), ("reader", "speaker", "aggregator")
        ):  # fmt: skip
            card = {
                "id": name, "backend": "openai", "model": model, "base_url": upstream.base_url, "roles": [role],
                "price": {"prompt": 1.0, "completion": 2.0},
            }  # fmt: skip
            assert (await http.post("/admin/api/experts", json=card)).status_code == 201
        strategy = {
            "id": "council", "router": "random", "pick": {"kind": "top_k", "k": 2}, "aggregator": "fuse", "aggregator_expert": "reader"
        }  # fmt: skip
        assert (await http.post("/admin/api/strategies", json=strategy)).status_code == 201

        async def ask(model: str, **more: Any) -> httpx.Response:
            return await http.post("/v1/chat/completions", json={**ASK, "model": model, **more})

        assert (await ask("consilium/council")).status_code == 200
        assert (await ask("speaker", stream=True)).status_code == 200
        said = await http.post("/v1/chat/completions", json={**ASK, "model": "speaker"}, headers={"x-request-id": "judged"})
        assert said.status_code == 200
        assert (await http.post("/v1/feedback", json={"request_id": "judged", "correct": True})).status_code < 300
        upstream.faults.extend([Status(500)] * 3)
        assert (await ask("speaker")).status_code == 502
        yield http
