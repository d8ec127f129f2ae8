"""What every worker that talks to a server does when the server misbehaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import (
    ExpertAuthFailed,
    ExpertError,
    ExpertOverloaded,
    ExpertProtocolError,
    ExpertRejected,
    ExpertUnreachable,
)
from domain.experts import Backend, ExpertCard
from tests.contract.workers.cases import ANSWER, LITELLM_WARNINGS, Case, Streamed, call_of, streamed
from tests.fakes.upstream import ErrorEvent, Fault, Garbage, HalfStream, Hangup, Status, Upstream, running_upstream
from workers.limits import PoolLimits
from workers.pool import WorkerPool

pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in LITELLM_WARNINGS]

_NOWHERE = "http://127.0.0.1:9/v1"
"""The discard port: nothing listens there."""


def upstream_of(case: Case) -> Upstream:
    assert case.upstream is not None
    return case.upstream


async def test_a_server_that_is_not_there_is_unreachable(http_case: Case) -> None:
    card = replace(http_case.speaker, base_url=_NOWHERE)

    with pytest.raises(ExpertUnreachable, match="speaker"):
        await http_case.pool.complete(call_of(card))
    with pytest.raises(ExpertUnreachable, match="speaker"):
        await streamed(http_case, call_of(card))


@pytest.mark.parametrize(
    ("fault", "expected", "num_requests"),
    [
        (Status(400, message="bad field"), ExpertRejected, 1),
        (Status(401), ExpertAuthFailed, 1),
        (Status(403), ExpertAuthFailed, 1),
        (Status(422), ExpertRejected, 1),
        (Status(404), ExpertUnreachable, 1),
        (Status(429), ExpertOverloaded, 3),
        (Status(500), ExpertProtocolError, 3),
        (Status(503), ExpertProtocolError, 3),
        (Garbage(), ExpertProtocolError, 3),
        (Garbage('{"choices": []}'), ExpertProtocolError, 3),
        (Garbage("[1, 2"), ExpertProtocolError, 3),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_each_fault_has_its_error(
    http_case: Case, fault: Fault, expected: type[ExpertError], num_requests: int, stream: bool
) -> None:
    """And is tried again only where that can help."""
    upstream = upstream_of(http_case)
    upstream.faults.extend([fault] * 5)

    call = call_of(http_case.speaker)
    with pytest.raises(expected, match="speaker"):
        await (streamed(http_case, call) if stream else http_case.pool.complete(call))

    assert len(upstream.requests) == num_requests


@pytest.mark.parametrize("fault", [Status(500), Status(429, retry_after="0"), Hangup(), HalfStream(0), HalfStream(0, cut=True)])
async def test_a_failure_before_the_first_token_is_tried_again(http_case: Case, fault: Fault) -> None:
    upstream_of(http_case).faults.append(fault)
    stream = await streamed(http_case, call_of(http_case.speaker))

    assert stream.contents[0] == ANSWER
    assert len(upstream_of(http_case).requests) == 2


async def test_the_number_of_retries_is_told(http_case: Case) -> None:
    upstream_of(http_case).faults.extend([Status(500), Status(502)])
    candidate = await http_case.pool.complete(call_of(http_case.speaker))

    assert candidate.text == ANSWER
    assert candidate.num_retries == 2


async def test_retry_after_is_not_waited_for_beyond_the_deadline(http_case: Case) -> None:
    upstream_of(http_case).faults.append(Status(429, retry_after="60"))

    with pytest.raises(ExpertOverloaded) as caught:
        await http_case.pool.complete(call_of(http_case.speaker, timeout_s=20))

    assert caught.value.retry_after_s == 60
    assert len(upstream_of(http_case).requests) == 1


@pytest.mark.parametrize("fault", [HalfStream(5), HalfStream(5, cut=True), ErrorEvent(5)])
async def test_half_a_stream_is_a_protocol_error(http_case: Case, fault: Fault) -> None:
    """After the first token nothing is tried again."""
    upstream_of(http_case).faults.append(fault)
    heard = Streamed()

    with pytest.raises(ExpertProtocolError, match="endless"):
        await streamed(http_case, call_of(http_case.endless), heard)

    assert heard.contents[0]
    assert "klmkl".startswith(heard.contents[0])
    assert len(upstream_of(http_case).requests) == 1


async def test_a_slow_trickle_is_passed_on_as_it_comes(http_case: Case) -> None:
    """Each token is heard before the server says the next."""
    upstream = upstream_of(http_case)
    upstream.pace = asyncio.Semaphore(0)
    stream = http_case.pool.stream(call_of(http_case.endless))
    heard = Streamed()
    for num in range(1, 5):
        upstream.pace.release()
        while len(heard.contents.get(0, "")) < num:
            heard.add(await anext(stream))

    assert heard.contents[0] == "klmk"
    assert upstream.num_open == 1
    await stream.aclose()
    await asyncio.wait_for(upstream.until_idle(), 5)


async def test_the_key_is_read_from_the_environment_when_it_is_needed(keyed_case: Case) -> None:
    await keyed_case.pool.complete(call_of(keyed_case.speaker))

    assert upstream_of(keyed_case).requests[0].headers["Authorization"] == "Bearer sk-stub"


async def test_a_missing_key_is_named(keyed_case: Case) -> None:
    card = replace(keyed_case.speaker, api_key="env:ABSENT_API_KEY")

    with pytest.raises(ExpertAuthFailed, match="ABSENT_API_KEY"):
        await keyed_case.pool.complete(call_of(card))


async def test_the_card_s_extra_body_wins_over_the_caller(http_case: Case) -> None:
    card = replace(http_case.speaker, extra_body={"temperature": 0.5, "seed": 1})
    await http_case.pool.complete(call_of(card, temperature=1.0, top_p=0.9))
    body = upstream_of(http_case).requests[0].body

    assert (body["temperature"], body["top_p"], body["seed"]) == (0.5, 0.9, 1)


async def test_a_caller_cannot_send_the_key_elsewhere(keyed_case: Case) -> None:
    """Whatever a body holds, address, key, headers, model and messages are the card's and the pipeline's."""
    hostile = {
        "base_url": _NOWHERE, "api_base": _NOWHERE, "api_key": "sk-caller", "api_version": "1", "extra_headers": {"X-Stolen": "yes"},
        "headers": {"X-Stolen": "yes"}, "organization": "caller", "custom_llm_provider": "anthropic", "model_list": [{"model_name": "x"}],
        "fallbacks": [{"model": "openai/other", "api_base": _NOWHERE}], "mock_response": "mocked", "mock_tool_calls": [],
        "num_retries": 9, "timeout": 0.001, "drop_params": True, "metadata": {"guardrails": ["x"]}, "deployment_id": "other",
        "model": "other", "messages": [{"role": "user", "content": "other"}], "stream": "maybe", "litellm_params": {"api_base": _NOWHERE},
        "extra_body": {"model": "other", "messages": []}, "extra_query": {"a": "b"}, "azure_ad_token": "x", "cache": {"no-cache": True},
    }  # fmt: skip
    plain = await keyed_case.pool.complete(call_of(keyed_case.speaker, temperature=0.5, **hostile))
    stream = await streamed(keyed_case, call_of(keyed_case.speaker, temperature=0.5, **hostile))

    assert (plain.text, stream.contents[0]) == (ANSWER, ANSWER)
    assert len(upstream_of(keyed_case).requests) == 2
    for request, streams in zip(upstream_of(keyed_case).requests, (False, True), strict=True):
        assert request.headers["Authorization"] == "Bearer sk-stub"
        assert "X-Stolen" not in request.headers
        assert (request.body["model"], request.body["temperature"]) == ("speaker", 0.5)
        assert [message["content"] for message in request.body["messages"]] == ["Say it."]
        assert bool(request.body.get("stream")) is streams


async def test_a_caller_of_a_card_without_an_address_cannot_name_one(keyed_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM would go to the provider itself, with the card's key; the fake stands for the caller's server."""
    monkeypatch.setenv("OPENAI_API_BASE", _NOWHERE)
    url = upstream_of(keyed_case).base_url
    card = replace(keyed_case.speaker, base_url=None)

    with pytest.raises(ExpertUnreachable):
        await keyed_case.pool.complete(call_of(card, base_url=url, api_base=url, extra_body={"api_base": url}))

    assert upstream_of(keyed_case).requests == []


async def test_the_context_overflow_of_a_server_is_the_caller_s_to_mend(http_case: Case) -> None:
    upstream_of(http_case).faults.append(Status(400, message="too long", code="context_length_exceeded"))

    with pytest.raises(ExpertRejected, match="context"):
        await http_case.pool.complete(call_of(http_case.speaker))


SECRET = "sk-0123456789abcdef"


@pytest.mark.parametrize(("backend", "model"), [(Backend.OPENAI, "speaker"), (Backend.LITELLM, "openai/speaker")])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("padding", ["", "x" * 470, "x" * 485])
async def test_a_key_that_the_server_repeats_is_not_passed_on(
    tmp_path: Path, backend: Backend, model: str, stream: bool, padding: str
) -> None:
    """Nor a part of it, where the server's text is cut."""
    async with running_upstream() as upstream:
        pool = WorkerPool(embedded_dir=tmp_path, environ={"KEY": SECRET}, limits=PoolLimits(max_attempts=1))
        card = ExpertCard("speaker", backend, model, base_url=upstream.base_url, api_key="env:KEY")
        upstream.faults.append(Status(401, message=f"{padding} incorrect API key provided: {SECRET}."))
        call = call_of(card)
        with pytest.raises(ExpertAuthFailed, match="speaker") as caught:
            await (anext(pool.stream(call)) if stream else pool.complete(call))
        await pool.close()

        assert upstream.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET[:6] not in caught.value.message


async def test_the_field_that_the_server_refuses_is_told(http_case: Case) -> None:
    upstream_of(http_case).faults.extend([Status(400, message="too hot", param="temperature"), Status(422, message="what?")])
    refused = []
    for _ in range(2):
        with pytest.raises(ExpertRejected) as caught:
            await http_case.pool.complete(call_of(http_case.speaker))
        refused.append(caught.value.param)

    assert refused == ["temperature", None]
