"""What every worker does, whatever runs behind it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from domain.errors import ExpertOverloaded, ExpertRejected, ExpertTimeout
from tests.contract.workers.cases import ANSWER, LITELLM_WARNINGS, REASONING, Case, call_of, streamed

pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in LITELLM_WARNINGS]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": SCHEMA}}]


async def test_answers_with_text_and_finish_reason(case: Case) -> None:
    candidate = await case.pool.complete(call_of(case.speaker))

    assert candidate.expert_id == "speaker"
    assert candidate.text == ANSWER
    assert candidate.choices[0].message["role"] == "assistant"
    assert candidate.choices[0].finish_reason == "stop"
    assert candidate.latency_s > 0
    assert candidate.num_retries == 0


async def test_reasoning_is_kept_apart_from_the_answer(case: Case) -> None:
    candidate = await case.pool.complete(call_of(case.speaker))

    assert candidate.choices[0].message["reasoning_content"] == REASONING


async def test_a_stream_says_what_the_plain_answer_says(case: Case) -> None:
    plain = await case.pool.complete(call_of(case.speaker))
    stream = await streamed(case, call_of(case.speaker))

    assert stream.contents == {0: plain.text}
    assert stream.reasonings == {0: REASONING}
    assert stream.finish_reasons == {0: "stop"}
    assert any(piece.delta.get("role") == "assistant" for chunk in stream.chunks for piece in chunk.choices)


async def test_a_stream_comes_in_pieces(case: Case) -> None:
    stream = await streamed(case, call_of(case.endless, max_tokens=200))

    assert len(stream.chunks) > 3


async def test_usage_is_told_once_and_is_the_same_streamed(case: Case) -> None:
    plain = await case.pool.complete(call_of(case.endless, max_tokens=9))
    stream = await streamed(case, call_of(case.endless, max_tokens=9))
    told = [chunk.usage for chunk in stream.chunks if chunk.usage is not None]

    assert plain.usage.prompt_tokens > 0
    assert plain.usage.completion_tokens == 9
    assert told == [plain.usage]
    assert stream.chunks[-1].usage is not None


async def test_stops_before_a_stop_string(case: Case) -> None:
    plain = await case.pool.complete(call_of(case.speaker, stop=["xx", "ef"]))
    stream = await streamed(case, call_of(case.speaker, stop="ef"))

    assert plain.text == "abcd"
    assert plain.choices[0].finish_reason == "stop"
    assert stream.contents[0].rstrip("ef") == "abcd"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_stops_at_the_token_limit(case: Case, field: str) -> None:
    candidate = await case.pool.complete(call_of(case.endless, **{field: 7}))

    assert candidate.text == "klmklmk"
    assert candidate.choices[0].finish_reason == "length"


async def test_gives_several_choices(case: Case) -> None:
    plain = await case.pool.complete(call_of(case.speaker, n=3))
    stream = await streamed(case, call_of(case.speaker, n=3))

    assert [choice.index for choice in plain.choices] == [0, 1, 2]
    assert {choice.text for choice in plain.choices} == {ANSWER}
    assert stream.contents == dict.fromkeys(range(3), ANSWER)
    assert stream.finish_reasons == dict.fromkeys(range(3), "stop")


async def test_tells_log_probabilities(case: Case) -> None:
    call = call_of(case.endless, logprobs=True, max_tokens=4)
    plain = await case.pool.complete(call)
    stream = await streamed(case, call)

    assert [entry["token"] for entry in plain.choices[0].logprobs["content"]] == list("klmk")
    assert stream.logprob_tokens == list("klmk")
    assert all(entry["logprob"] <= 0 for entry in plain.choices[0].logprobs["content"])


async def test_many_at_once_are_all_right(case: Case) -> None:
    candidates = await asyncio.gather(*(case.pool.complete(call_of(case.speaker, text=f"Say it {i} times.")) for i in range(40)))
    streams = await asyncio.gather(*(streamed(case, call_of(case.endless, max_tokens=n)) for n in range(1, 25)))

    assert [candidate.text for candidate in candidates] == [ANSWER] * 40
    assert [stream.contents[0] for stream in streams] == [("klm" * 9)[:n] for n in range(1, 25)]


async def test_no_more_calls_run_than_the_card_allows(case: Case) -> None:
    card = replace(case.endless, max_in_flight=2)
    most = 0

    async def run() -> None:
        nonlocal most
        async for _ in case.pool.stream(call_of(card, max_tokens=5)):
            most = max(most, case.pool.in_flight(card.id))

    await asyncio.gather(*(run() for _ in range(10)))

    assert most == 2
    assert case.pool.in_flight(card.id) == case.pool.queued(card.id) == 0


async def test_waits_for_a_place_no_longer_than_the_card_says(case: Case) -> None:
    card = replace(case.endless, max_in_flight=1, queue_timeout_s=0.01)
    stream = case.pool.stream(call_of(card, max_tokens=2000))
    await anext(stream)

    with pytest.raises(ExpertOverloaded, match="no place") as caught:
        await case.pool.complete(call_of(card))
    await stream.aclose()

    assert caught.value.retry_after_s is not None


async def test_closing_a_stream_ends_the_work_at_once(case: Case) -> None:
    stream = case.pool.stream(call_of(case.endless, max_tokens=2000))
    await anext(stream)
    await stream.aclose()
    await asyncio.wait_for(case.until_idle(), 5)

    assert case.pool.in_flight("endless") == 0


async def test_cancelling_a_call_ends_the_work_at_once(case: Case) -> None:
    case.make_slow()
    task = asyncio.create_task(case.pool.complete(call_of(case.endless, max_tokens=4000)))
    while not case.pool.in_flight("endless"):  # true within a turn or two of the loop
        await asyncio.sleep(0)
    if case.upstream is not None:
        await case.upstream.until_open(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(case.until_idle(), 5)

    assert case.pool.in_flight("endless") == 0


async def test_a_call_ends_at_the_deadline(case: Case) -> None:
    case.make_slow()

    with pytest.raises(ExpertTimeout, match="deadline") as caught:
        await case.pool.complete(call_of(case.endless, timeout_s=0.3))
    await asyncio.wait_for(case.until_idle(), 5)

    assert not caught.value.expert_at_fault


async def test_a_stream_ends_at_the_deadline(case: Case) -> None:
    case.make_slow()

    with pytest.raises(ExpertTimeout) as caught:
        await streamed(case, call_of(case.endless, timeout_s=0.3))
    await asyncio.wait_for(case.until_idle(), 5)

    assert not caught.value.expert_at_fault


async def test_a_call_ends_at_the_card_s_own_limit(case: Case) -> None:
    case.make_slow()

    with pytest.raises(ExpertTimeout, match=r"within its 0\.3 s") as caught:
        await case.pool.complete(call_of(replace(case.endless, timeout_s=0.3)))

    assert caught.value.expert_at_fault


async def test_no_call_is_made_after_the_deadline(case: Case) -> None:
    with pytest.raises(ExpertTimeout, match="no time"):
        await case.pool.complete(call_of(case.speaker, timeout_s=0))


async def test_a_conversation_that_is_too_long_is_rejected_with_its_length(case: Case) -> None:
    with pytest.raises(ExpertRejected, match=r"context.*4096") as caught:
        await case.pool.complete(call_of(case.speaker, text="x" * 5000))

    assert "500" in caught.value.message
    assert not caught.value.retryable
    assert not caught.value.expert_at_fault


@pytest.mark.parametrize("params", [{"tool_choice": "required"}, {"tool_choice": {"type": "function", "function": {"name": "weather"}}}])
async def test_a_forced_tool_call_has_a_name_and_valid_arguments(case: Case, params: dict[str, Any]) -> None:
    call = call_of(case.speaker, tools=TOOLS, max_tokens=100, **params)
    plain = (await case.pool.complete(call)).choices[0]
    stream = await streamed(case, call)

    assert plain.finish_reason == "tool_calls"
    assert plain.message["tool_calls"][0]["type"] == "function"
    assert plain.message["tool_calls"][0]["function"]["name"] == "weather"
    jsonschema.validate(json.loads(plain.message["tool_calls"][0]["function"]["arguments"]), SCHEMA)
    assert stream.tool_names == ["weather"]
    assert stream.tool_arguments == plain.message["tool_calls"][0]["function"]["arguments"]
    assert stream.finish_reasons == {0: "tool_calls"}


async def test_a_json_schema_binds_the_answer(case: Case) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    candidate = await case.pool.complete(call_of(case.speaker, response_format=wanted, max_tokens=100))

    jsonschema.validate(json.loads(candidate.text), SCHEMA)


async def test_an_unknown_field_does_no_harm(case: Case) -> None:
    """Where there is a server, it receives the field."""
    candidate = await case.pool.complete(call_of(case.speaker, some_new_field={"a": 1}))

    assert candidate.text == ANSWER
    if case.upstream is not None:
        assert case.upstream.requests[-1].body["some_new_field"] == {"a": 1}


async def test_a_check_is_one_real_call(case: Case) -> None:
    candidate = await case.pool.check(case.endless)

    assert candidate.text == "klmk"
