"""Another provider's protocol through LiteLLM: Anthropic's, which knows neither OpenAI's choices nor its finish reasons."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.chat import Chunk
from domain.errors import ExpertAuthFailed, ExpertContextTooLong, ExpertError, ExpertOverloaded, ExpertProtocolError, ExpertRejected
from domain.experts import Backend, ExpertCard
from tests.contract.workers.cases import LITELLM_WARNINGS, Case, Streamed, call_of, new_pool, streamed
from tests.fakes.anthropic import ANSWER, THINKING, Anthropic, running_anthropic
from tests.fakes.upstream import ErrorEvent, HalfStream, Status

pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in LITELLM_WARNINGS]

MAX_ATTEMPTS = 4
"""More than the pool makes."""


@pytest.fixture
async def server() -> AsyncIterator[Anthropic]:
    async with running_anthropic() as server:
        yield server


@pytest.fixture
async def case(server: Anthropic, tmp_path: Path) -> AsyncIterator[Case]:
    pool = new_pool(tmp_path)
    await pool.start()
    card = ExpertCard("claude", Backend.LITELLM, "anthropic/claude-sonnet-4-5", base_url=server.base_url, api_key="env:STUB_API_KEY")
    try:
        yield Case(pool, card, card, None, pool.close)
    finally:
        await pool.close()


async def test_a_plain_answer(case: Case, server: Anthropic) -> None:
    """In OpenAI's shape, paid with the card's key; that no token is reasoning is LiteLLM's invention, and not passed on."""
    candidate = await case.pool.complete(call_of(case.speaker, text="hello"))

    assert (candidate.text, candidate.choices[0].finish_reason) == (ANSWER, "stop")
    assert (candidate.usage.prompt_tokens > 0, candidate.usage.completion_tokens) == (True, len(ANSWER))
    assert "completion_tokens_details" not in candidate.usage.details
    assert server.requests[0].headers["x-api-key"] == "sk-stub"
    assert server.requests[0].body["model"] == "claude-sonnet-4-5"


async def test_an_answer_that_was_cut_says_so(case: Case) -> None:
    plain = await case.pool.complete(call_of(case.speaker, max_tokens=4))
    stream = await streamed(case, call_of(case.speaker, max_tokens=4))

    assert (plain.text, plain.choices[0].finish_reason) == ("abcd", "length")
    assert (stream.contents, stream.finish_reasons) == ({0: "abcd"}, {0: "length"})


async def test_a_stream_comes_piece_by_piece(case: Case) -> None:
    """A finish reason in Anthropic's own words is one that was told, and the usage comes last."""
    result = await streamed(case, call_of(case.speaker))
    *pieces, last = result.chunks

    assert [piece.delta["content"] for chunk in pieces for piece in chunk.choices if piece.delta.get("content")] == list(ANSWER)
    assert result.finish_reasons == {0: "stop"}
    assert isinstance(last, Chunk)
    assert last.usage is not None
    assert last.usage.completion_tokens == len(ANSWER)
    assert "completion_tokens_details" not in last.usage.details


async def test_thinking_stays_apart_from_the_answer(case: Case, server: Anthropic) -> None:
    """And what is told about reasoning, when there was some, is passed on."""
    plain = await case.pool.complete(call_of(case.speaker, reasoning_effort="low"))
    stream = await streamed(case, call_of(case.speaker, reasoning_effort="low"))

    assert "thinking" in server.requests[0].body
    assert (plain.text, plain.choices[0].message["reasoning_content"]) == (ANSWER, THINKING)
    assert (stream.contents, stream.reasonings) == ({0: ANSWER}, {0: THINKING})
    assert plain.usage.details["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_half_a_stream_is_no_answer(case: Case, server: Anthropic) -> None:
    """It ends politely and without a reason; the one that LiteLLM makes up is not believed."""
    server.faults.append(HalfStream(after=3))
    result = Streamed()
    with pytest.raises(ExpertProtocolError, match="broke off"):
        await streamed(case, call_of(case.speaker), result)

    assert result.contents == {0: ANSWER[:3]}
    assert result.finish_reasons == {}


async def test_an_error_inside_a_stream(case: Case, server: Anthropic) -> None:
    server.faults.append(ErrorEvent(after=2))
    result = Streamed()
    with pytest.raises(ExpertProtocolError, match="the engine died"):
        await streamed(case, call_of(case.speaker), result)

    assert result.contents == {0: ANSWER[:2]}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Status(400, message="messages: roles must alternate"), ExpertRejected),
        (Status(400, message="prompt is too long: 208310 tokens > 200000 maximum"), ExpertContextTooLong),
        (Status(401), ExpertAuthFailed),
        (Status(429, retry_after="7"), ExpertOverloaded),
        (Status(529), ExpertProtocolError),
    ],
    ids=["bad", "too-long", "key", "rate", "overloaded"],
)
async def test_errors_are_translated(case: Case, server: Anthropic, fault: Status, kind: type[ExpertError], stream: bool) -> None:
    server.faults.extend([fault] * MAX_ATTEMPTS)
    with pytest.raises(kind) as caught:
        await (streamed(case, call_of(case.speaker)) if stream else case.pool.complete(call_of(case.speaker)))

    assert type(caught.value) is kind
    assert caught.value.retry_after_s == (7.0 if fault.retry_after else None)
    assert "sk-stub" not in str(caught.value)
