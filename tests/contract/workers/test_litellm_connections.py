"""Where LiteLLM may connect, looked at when it does, whatever a name meant a moment before; and how long connecting may take."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from domain.errors import ExpertTimeout, ExpertUnreachable
from domain.experts import Backend, ExpertCard
from domain.trace_context import TraceContext
from tests.contract.workers.cases import ANSWER, LITELLM_WARNINGS, call_of
from tests.fakes.anthropic import running_anthropic
from tests.fakes.upstream import running_upstream
from workers.addresses import AddressPolicy
from workers.limits import HttpLimits, PoolLimits
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


async def test_connecting_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """LiteLLM knows one time for the whole call. A server that takes the connection and never ends the TLS handshake uses up the limit for
    connecting and not the call's, whatever the provider."""
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        with suppress(ConnectionError):
            await reader.read()  # until the client has given up
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = WorkerPool(embedded_dir=tmp_path, environ={"KEY": "sk-key"}, http=HttpLimits(connect_timeout_s=0.2))
    try:
        for model in ("openai/speaker", "anthropic/speaker"):
            connected.clear()
            card = ExpertCard("mute", Backend.LITELLM, model, base_url=f"https://127.0.0.1:{port}/v1", api_key="env:KEY", timeout_s=500.0)
            with pytest.raises(ExpertTimeout, match="took too long to accept a connection"):
                async with asyncio.timeout(60):
                    await pool.complete(call_of(card, timeout_s=500.0))
            assert connected.is_set()
    finally:
        await pool.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openai/speaker", "anthropic/speaker", "mistral/speaker", "xai/speaker"])
async def test_the_provider_is_told_the_calls_span(model: str, stream: bool, tmp_path: Path) -> None:
    """W3C Trace Context beside the card's own headers; only where there is one. The last two take no ``extra_headers``."""
    context = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", state="congo=t61")
    own = {"extra_headers" if model.startswith(("openai", "anthropic")) else "headers": {"x-team": "blue"}}
    async with running_upstream() as upstream, running_anthropic() as anthropic:
        server = anthropic if model.startswith("anthropic") else upstream
        pool = WorkerPool(embedded_dir=tmp_path, environ={"KEY": "sk-key"})
        card = ExpertCard("traced", Backend.LITELLM, model, base_url=server.base_url, api_key="env:KEY", extra_body=own)
        for call in (replace(call_of(card), context=context), call_of(card)):
            if stream:
                async for _ in pool.stream(call):
                    pass
            else:
                await pool.complete(call)
        await pool.close()

    told, untold = (received.headers for received in server.requests)
    assert told["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert told["tracestate"] == "congo=t61"
    assert told["x-team"] == untold["x-team"] == "blue"
    assert not {"traceparent", "tracestate"} & {name.lower() for name in untold}
