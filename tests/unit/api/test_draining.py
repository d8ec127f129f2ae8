"""The end of the process, as requests see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.schemas.answers import Readied
from api.settings import Settings
from tests.fakes.services import parts
from tests.fakes.workers import Says, Stalls

ASK = {"model": "maths", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_runs_ends_and_what_comes_is_sent_elsewhere(tmp_path: Path, stream: bool) -> None:
    made = parts({"maths": Stalls(then=Says("42"))})
    app = create_app(Settings(_env_file=None, data_dir=tmp_path), bootstrap=made.bootstrap())  # type: ignore[call-arg]
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as http,
    ):
        drain = app.state.drain
        running = asyncio.create_task(http.post("/v1/chat/completions", json=ASK | {"stream": stream}))
        await made.workers.until_started("maths")
        drain.begin()
        idle = asyncio.create_task(drain.until_idle())
        late = [await http.post("/v1/chat/completions", json=ASK), await http.get("/v1/models")]
        alive, ready = await http.get("/health"), await http.get("/ready")
        is_idle_early = idle.done()
        made.workers.release("maths")
        answer = await running
        await asyncio.wait_for(idle, 30)

    assert [refused.status_code for refused in late] == [503, 503]
    for refused in late:
        assert refused.json()["error"]["code"] == "not_ready"
        assert refused.headers["retry-after"] == "1"
        assert "x-should-retry" not in refused.headers
    assert (alive.status_code, ready.status_code, ready.json()["status"]) == (200, 503, "draining")
    Readied.model_validate(ready.json())  # /openapi.json tells of it
    assert not is_idle_early
    assert answer.status_code == 200
    assert "42" in answer.text


async def test_with_nothing_running_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    app = create_app(Settings(_env_file=None, data_dir=tmp_path), bootstrap=parts({"maths": "42"}).bootstrap())  # type: ignore[call-arg]
    app.state.drain.begin()

    await asyncio.wait_for(app.state.drain.until_idle(), 30)
