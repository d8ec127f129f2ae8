"""Where LiteLLM may connect: looked at when it does, whatever a name meant a moment before."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from domain.errors import ExpertUnreachable
from domain.experts import Backend, ExpertCard
from tests.contract.workers.cases import ANSWER, LITELLM_WARNINGS, call_of
from tests.fakes.upstream import running_upstream
from workers.addresses import AddressPolicy
from workers.limits import PoolLimits
from workers.litellm_worker import LiteLLMWorker
from workers.pool import WorkerPool

pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in LITELLM_WARNINGS]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openai/speaker", "anthropic/speaker", "hosted_vllm/speaker", "mistral/speaker"])
async def test_a_name_that_means_another_address_when_it_is_called(
    model: str, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the look before the call sees an address that is allowed, the connection would go to one that is not."""

    async def public_a_moment_ago(*_: object) -> None: ...

    monkeypatch.setattr(LiteLLMWorker, "_require_allowed", public_a_moment_ago)
    async with running_upstream() as upstream:
        pool = WorkerPool(
            embedded_dir=tmp_path,
            environ={"KEY": "sk-key"},
            limits=PoolLimits(retry_wait_initial_s=0.0, retry_wait_max_s=0.0),
            addresses=AddressPolicy({"public", "private"}),
        )
        card = ExpertCard("rebound", Backend.LITELLM, model, base_url=upstream.base_url, api_key="env:KEY")
        call = call_of(card)
        with pytest.raises(ExpertUnreachable, match="loopback addresses may not be called") as caught:
            await (anext(pool.stream(call)) if stream else pool.complete(call))
        await pool.close()

        assert upstream.num_connections == 0
        assert not caught.value.retryable


async def test_an_address_that_is_allowed_is_called(tmp_path: Path) -> None:
    async with running_upstream() as upstream:
        pool = WorkerPool(embedded_dir=tmp_path, environ={"KEY": "sk-key"}, addresses=AddressPolicy({"loopback"}))
        card = ExpertCard("near", Backend.LITELLM, "openai/speaker", base_url=upstream.base_url, api_key="env:KEY")
        answer = await pool.complete(call_of(card))
        await pool.close()

    assert answer.text == ANSWER


async def test_a_redirect_leads_nowhere_that_may_not_be_called(tmp_path: Path) -> None:
    """LiteLLM follows redirects by itself; a server must not send it to a cloud's metadata."""

    async def redirect(_: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("http://169.254.169.254/latest/meta-data")

    application = web.Application()
    application.router.add_post("/v1/chat/completions", redirect)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        pool = WorkerPool(embedded_dir=tmp_path, environ={"KEY": "sk-key"})
        card = ExpertCard("moved", Backend.LITELLM, "openai/speaker", base_url=f"http://127.0.0.1:{port}/v1", api_key="env:KEY")
        with pytest.raises(ExpertUnreachable, match="are never called"):
            await pool.complete(call_of(card))
        await pool.close()
    finally:
        await runner.cleanup()
