"""``POST /v1/chat/completions``, streamed."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import orjson
import pytest

from api.app import create_app
from api.settings import Settings
from domain.errors import ExpertProtocolError, ExpertUnreachable
from domain.experts import ExpertRole
from orchestrator.limits import Limits
from tests.fakes.asgi import Exchange
from tests.fakes.services import card, parts
from tests.fakes.workers import Fails, Says, Stalls

ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "What is 6 times 7?"}], "stream": True}


def events(text: str) -> list[Any]:
    """The data of each event; ``[DONE]`` as a string. Comments are left out."""
    lines = (line for frame in text.split("\n\n") for line in frame.splitlines() if line.startswith("data: "))
    return ["[DONE]" if line == "data: [DONE]" else orjson.loads(line[6:]) for line in lines]


async def test_sdk_reads_a_stream(serve: Any, sdk: Any) -> None:
    """The OpenAI client reads the pieces; the role comes first, id, created and model never change."""
    http = await serve(parts({"maths": Says("forty two", pieces=("for", "ty ", "two"))}))
    stream = await sdk(http).chat.completions.create(**ASK)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "forty two"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert {(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, "auto", "chat.completion.chunk")
    }
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices for chunk in chunks)


async def test_stream_ends_with_done(serve: Any) -> None:
    """The content type is an event stream, proxies are told not to buffer, the last event is ``[DONE]``."""
    http = await serve(parts({"maths": "42"}))
    response = await http.post("/v1/chat/completions", json=ASK)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-consilium-experts"] == "maths"
    assert response.headers["x-consilium-skills"] == "algebra"
    assert float(response.headers["x-consilium-overhead-ms"]) >= float(response.headers["x-consilium-route-ms"])
    assert response.headers["x-request-id"]
    assert events(response.text)[-1] == "[DONE]"
    assert not any("consilium" in event or "usage" in event for event in events(response.text)[:-1])


async def test_usage_only_when_asked(serve: Any, sdk: Any) -> None:
    """With ``include_usage`` the last chunk has no choices and the sum of all calls; the others say null."""
    http = await serve(parts({"maths": "42"}))
    stream = await sdk(http).chat.completions.create(**ASK, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]

    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_usage_is_the_sum_over_the_panel(serve: Any, sdk: Any) -> None:
    """A council's usage counts every candidate and the aggregator."""
    cards = (card("a"), card("b"), card("judge", roles=frozenset({"aggregator"})))
    http = await serve(parts({"a": "1", "b": "2", "judge": "both"}, *cards))
    stream = await sdk(http).chat.completions.create(**ASK | {"model": "consilium/council"}, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "both"
    assert chunks[-1].usage.total_tokens == 24


@pytest.mark.parametrize("include_usage", [False, True])
async def test_explain_is_on_the_last_chunk(serve: Any, include_usage: bool) -> None:
    """``consilium`` stands on the last chunk before ``[DONE]``, and only there; no extra chunk is made for it."""
    http = await serve(parts({"maths": Says("42", pieces=("4", "2"))}))
    more = {"stream_options": {"include_usage": True}} if include_usage else {}
    response = await http.post("/v1/chat/completions", json=ASK | {"consilium": {"explain": True}} | more)
    *chunks, last, done = events(response.text)

    assert done == "[DONE]"
    assert last["consilium"]["calls"][0]["expert"] == "maths"
    assert last["consilium"]["aggregator"] == "single"
    assert not any("consilium" in chunk for chunk in chunks)
    if include_usage:
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == 8
    else:
        assert last["choices"][0]["finish_reason"] == "stop"
        assert "usage" not in last


async def test_reasoning_streams_apart(serve: Any, sdk: Any) -> None:
    """Reasoning comes as ``reasoning_content`` deltas, never inside the answer."""
    http = await serve(parts({"maths": Says("42", reasoning="six sevens")}))
    stream = await sdk(http).chat.completions.create(**ASK)
    deltas = [chunk.choices[0].delta async for chunk in stream]

    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "six sevens"
    assert "".join(delta.content or "" for delta in deltas) == "42"


async def test_failure_before_the_first_token_is_an_http_error(serve: Any, sdk: Any) -> None:
    """Nothing has been sent yet, so the status tells it."""
    http = await serve(parts({"maths": Fails(ExpertUnreachable("refused"))}))
    with pytest.raises(openai.InternalServerError) as caught:
        await sdk(http).chat.completions.create(**ASK)

    assert caught.value.status_code == 502


async def test_failure_after_the_first_token_is_an_error_event(serve: Any, sdk: Any) -> None:
    """Half a stream ends with an ``error`` event in OpenAI's shape, without ``[DONE]``; the OpenAI client raises."""
    half = Fails(ExpertProtocolError("connection lost"), pieces=("4",))
    http = await serve(parts({"maths": half}))
    response = await http.post("/v1/chat/completions", json=ASK)

    assert response.status_code == 200
    assert "event: error\n" in response.text
    last = events(response.text)[-1]
    assert last["error"]["code"] == "all_experts_failed"
    assert "connection lost" in last["error"]["message"]
    with pytest.raises(openai.APIError, match="connection lost"):
        async for _ in await sdk(http).chat.completions.create(**ASK):
            pass


async def test_progress_is_a_comment(settings: Settings) -> None:
    """While a panel works, SSE comments say so; the first event is still a chunk."""
    made = parts({"a": Stalls(Says("1")), "b": "2"}, limits=Limits(hold_headers_s=0.01))
    app = create_app(settings, bootstrap=made.bootstrap())
    async with app.router.lifespan_context(app):
        exchange = Exchange(app, "/v1/chat/completions", ASK | {"model": "consilium/panel"})
        task = exchange.start()
        await exchange.until(b": b answered\n\n")
        made.workers.release("a")
        await asyncio.wait_for(task, 5)

    assert events(exchange.body.decode())[0]["choices"][0]["delta"] == {"role": "assistant", "content": "1"}


async def test_tokens_are_sent_as_they_come(settings: Settings) -> None:
    """The first piece is on the wire while the expert still works."""
    made = parts({"maths": Stalls(Says("2"), pieces=("4",))})
    app = create_app(settings, bootstrap=made.bootstrap())
    async with app.router.lifespan_context(app):
        exchange = Exchange(app, "/v1/chat/completions", ASK)
        task = exchange.start()
        await exchange.until(b'"content":"4"')
        assert not task.done()
        made.workers.release("maths")
        await asyncio.wait_for(task, 5)

    assert exchange.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_caller_that_goes_away_cancels_the_experts(settings: Settings, stream: bool) -> None:
    """When the connection closes, every expert call of the request is cancelled and the trace says so."""
    made = parts({"a": Stalls(pieces=("4",)), "b": Stalls(pieces=("4",))}, limits=Limits(hold_headers_s=0.01))
    app = create_app(settings, bootstrap=made.bootstrap())
    async with app.router.lifespan_context(app):
        exchange = Exchange(app, "/v1/chat/completions", ASK | {"model": "consilium/panel", "stream": stream})
        task = exchange.start()
        await made.workers.until_started("a")
        await made.workers.until_started("b")
        exchange.leave()
        await asyncio.wait_for(task, 5)
        await made.workers.until_idle()

    assert sorted(made.workers.cancelled) == ["a", "b"]
    assert made.traces.traces[0].status == "cancelled"


async def test_caller_that_goes_away_mid_token_cancels_the_expert(settings: Settings) -> None:
    """The same in the middle of a single expert's stream."""
    made = parts({"maths": Stalls(pieces=("4",))})
    app = create_app(settings, bootstrap=made.bootstrap())
    async with app.router.lifespan_context(app):
        exchange = Exchange(app, "/v1/chat/completions", ASK)
        task = exchange.start()
        await exchange.until(b'"content":"4"')
        exchange.leave()
        await asyncio.wait_for(task, 5)
        await made.workers.until_idle()

    assert made.workers.cancelled == ["maths"]


async def test_broken_pipe_before_the_first_byte_cancels_the_expert(settings: Settings) -> None:
    """A connection that breaks while the headers are written leaves nothing running."""
    made = parts({"maths": Stalls(pieces=("4",))})
    app = create_app(settings, bootstrap=made.bootstrap())
    async with app.router.lifespan_context(app):
        exchange = Exchange(app, "/v1/chat/completions", ASK)
        exchange.refuse_writes = True
        await asyncio.wait_for(exchange.start(), 5)
        await made.workers.until_idle()

    assert made.workers.cancelled == ["maths"]


@pytest.mark.parametrize(
    ("body", "experts", "aggregator", "calls"),
    [
        ({"max_calls": 3}, "a, b", "fuse:judge", "3"),
        ({"max_calls": 2}, "a", "single", "1"),
        ({"deny": ["judge"]}, "a, b, c", "vote", "3"),
    ],
)
async def test_the_headers_are_of_the_calls_that_are_made(
    serve: Any, body: dict[str, Any], experts: str, aggregator: str, calls: str
) -> None:
    """Streamed or not: who is called, not who was selected, and the vote that stands in for a missing aggregator."""
    judge = card("judge", roles=frozenset({ExpertRole.AGGREGATOR}))
    http = await serve(parts({"a": "1", "b": "2", "c": "3", "judge": "4"}, card("a"), card("b"), card("c"), judge))
    asked = {"model": "consilium/council", "messages": [{"role": "user", "content": "hi"}], "consilium": body}
    told = []
    for stream in (False, True):
        headers = (await http.post("/v1/chat/completions", json={**asked, "stream": stream})).headers
        told.append(tuple(headers[f"x-consilium-{name}"] for name in ("experts", "aggregator", "calls")))

    assert told[0] == told[1] == (experts, aggregator, calls)
