"""OpenAI's own client for Python, unchanged, on the served zoo."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch
from pydantic import BaseModel

from tests.conformance.conftest import KEY
from tests.e2e.processes import until
from tests.fakes.services import parts
from tests.fakes.workers import Stalls
from tests.integration.api.conftest import listening

pytestmark = pytest.mark.timeout(300)

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 12}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "report", "description": "Report an answer.", "parameters": SCHEMA, "strict": True}}


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


ROMAN = said("Write MCMXCIV in Arabic numerals.")


class Verdict(BaseModel):
    sure: bool
    kind: Literal["roman", "arabic"]


def test_chat(client: OpenAI) -> None:
    made = client.chat.completions.create(model="auto", messages=ROMAN, temperature=0, user="somebody", metadata={"a": "b"})

    assert made.object == "chat.completion"
    assert made.choices[0].message.content == "1994"
    assert made.choices[0].message.refusal is None
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens > 0


def test_several_answers_with_log_probabilities(client: OpenAI) -> None:
    made = client.chat.completions.create(model="numerals", messages=ROMAN, n=2, logprobs=True, top_logprobs=3, temperature=0.5, seed=7)

    assert [choice.index for choice in made.choices] == [0, 1]
    first = made.choices[0].logprobs
    assert first is not None
    assert first.content is not None
    assert all(len(token.top_logprobs) == 3 for token in first.content)


def test_streaming(client: OpenAI) -> None:
    """By the plain interface and by the one with events, with and without usage."""
    chunks = list(client.chat.completions.create(model="auto", messages=ROMAN, stream=True, stream_options={"include_usage": True}))
    with client.chat.completions.stream(model="auto", messages=ROMAN) as stream:
        kinds = {event.type for event in stream}
        whole = stream.get_final_completion()

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "1994"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert kinds >= {"chunk", "content.delta", "content.done"}
    assert whole.choices[0].message.content == "1994"


async def test_the_client_for_asyncio(base_url: str) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
        whole = await client.chat.completions.create(model="auto", messages=ROMAN)
        pieces = [chunk async for chunk in await client.chat.completions.create(model="auto", messages=ROMAN, stream=True)]

    assert whole.choices[0].message.content == "".join(piece.choices[0].delta.content or "" for piece in pieces) == "1994"


@pytest.mark.parametrize("model", ["auto", "numerals"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "report"}}], ids=["required", "named"])
def test_a_forced_tool_call(client: OpenAI, model: str, choice: Any) -> None:
    """Whole, and in the pieces of a stream put together by the client."""
    made = client.chat.completions.create(model=model, messages=ROMAN, tools=[TOOL], tool_choice=choice)
    with client.chat.completions.stream(model=model, messages=ROMAN, tools=[TOOL], tool_choice=choice) as stream:
        streamed = stream.get_final_completion()

    for completion in (made, streamed):
        (call,) = completion.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.id
        assert call.function.name == "report"
        assert set(json.loads(call.function.arguments)) == {"answer"}
        assert completion.choices[0].finish_reason == "tool_calls"


def test_a_conversation_goes_on_after_a_tool_call(client: OpenAI) -> None:
    first = client.chat.completions.create(model="numerals", messages=ROMAN, tools=[TOOL], tool_choice="required")
    (call,) = first.choices[0].message.tool_calls or []
    told: Any = first.choices[0].message.model_dump(exclude_unset=True)
    turns = [*ROMAN, told, {"role": "tool", "tool_call_id": call.id, "content": "1994"}, *said("Write MMXX in Arabic numerals.")]

    assert client.chat.completions.create(model="numerals", messages=turns).choices[0].message.content is not None


@pytest.mark.parametrize("model", ["auto", "numerals"])
def test_a_json_schema_holds_strictly(client: OpenAI, model: str) -> None:
    """As a schema that is written out, and as a class that the client makes a schema of."""
    written: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    as_json = client.chat.completions.create(model=model, messages=ROMAN, response_format=written)
    parsed = client.chat.completions.parse(model=model, messages=ROMAN, response_format=Verdict)
    as_object = client.chat.completions.create(model=model, messages=ROMAN, response_format={"type": "json_object"})

    assert set(json.loads(as_json.choices[0].message.content or "")) == {"answer"}
    assert isinstance(parsed.choices[0].message.parsed, Verdict)
    assert isinstance(json.loads(as_object.choices[0].message.content or ""), dict)


def test_plain_completions(client: OpenAI) -> None:
    whole = client.completions.create(model="auto", prompt="Write MCMXCIV in Arabic numerals.")
    pieces = client.completions.create(model="auto", prompt="Write MCMXCIV in Arabic numerals.", stream=True)

    assert whole.choices[0].text == "".join(piece.choices[0].text for piece in pieces) == "1994"


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings(client: OpenAI, encoding: Any) -> None:
    given = {} if encoding is None else {"encoding_format": encoding}
    made = client.embeddings.create(model="all-MiniLM-L6-v2", input=["seven plus five", "five plus seven"], **given)

    assert [entry.index for entry in made.data] == [0, 1]
    if encoding == "base64":
        assert isinstance(made.data[0].embedding, str)
    else:
        assert len(made.data[0].embedding) == 384
        assert sum(value * value for value in made.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert made.usage.prompt_tokens > 0


def test_models(client: OpenAI) -> None:
    listed = client.models.list()

    assert {"auto", "consilium/panel", "numerals"} <= {model.id for model in listed}
    assert client.models.retrieve("numerals").object == "model"
    assert client.models.retrieve("consilium/panel").id == "consilium/panel"


def test_files(client: OpenAI) -> None:
    """Uploaded, listed page by page, read and deleted."""
    lines = b"".join(json.dumps(_line(number, "numerals")).encode() + b"\n" for number in range(3))
    kept = [client.files.create(file=(f"in-{number}.jsonl", io.BytesIO(lines)), purpose="batch") for number in range(3)]
    try:
        listed = [file.id for file in client.files.list(limit=2, purpose="batch")]  # the client asks for the next page by itself
        assert [file.id for file in reversed(kept)] == listed[:3]
        assert client.files.retrieve(kept[0].id).bytes == len(lines)
        assert client.files.content(kept[0].id).read() == lines
    finally:
        for file in kept:
            assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(kept[0].id)


def test_a_batch_from_upload_to_result(client: OpenAI) -> None:
    lines = [_line(1, "auto"), _line(2, "numerals"), _line(3, "no-such-model")]
    content = "\n".join(map(json.dumps, lines)).encode()
    uploaded = client.files.create(file=("in.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600})
    begun = client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"team": "a"}
    )

    def over() -> Batch | None:
        found = client.batches.retrieve(begun.id)
        return found if found.status in {"completed", "failed", "expired", "cancelled"} else None

    done = until(over, within_s=120)
    assert done.status == "completed"
    assert done.metadata == {"team": "a"}
    assert begun.id in {batch.id for batch in client.batches.list(limit=5)}
    counts = done.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    assert done.output_file_id is not None
    assert done.error_file_id is not None
    rows = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows} == {"1": "1994", "2": "1994"}
    (failed,) = [json.loads(line) for line in client.files.content(done.error_file_id).text.splitlines()]
    assert failed["custom_id"] == "3"
    assert "no-such-model" in json.dumps(failed)
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(done.id)


def test_a_batch_with_a_broken_line_is_told_which(client: OpenAI) -> None:
    uploaded = client.files.create(file=("in.jsonl", b'{"custom_id": "1"}\nnot json\n'), purpose="batch")
    begun = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")

    def failed() -> Batch | None:
        found = client.batches.retrieve(begun.id)
        return found if found.status == "failed" else None

    found = until(failed, within_s=60)
    assert found.errors is not None
    assert {entry.line for entry in found.errors.data or []} == {1, 2}


def test_errors_have_the_clients_own_types(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'numerals'") as unknown:
        client.chat.completions.create(model="numeral", messages=ROMAN)
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="auto", messages=ROMAN, temperature=7)
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="numerals", messages=said("X" * 2000))
    with pytest.raises(openai.AuthenticationError) as stranger:
        client.with_options(api_key="nobody's").models.list()
    with pytest.raises(openai.InternalServerError) as unlike:
        client.chat.completions.create(model="consilium/single", messages=said("Write a poem about autumn leaves."))
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve("file-none")
    with pytest.raises(openai.BadRequestError) as purpose:
        client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")

    assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    assert long.value.code == "context_length_exceeded"
    assert (stranger.value.code, stranger.value.type) == ("invalid_api_key", "authentication_error")
    assert (unlike.value.status_code, unlike.value.code) == (503, "no_eligible_expert")
    assert purpose.value.param == "purpose"
    assert all(error.value.request_id for error in (unknown, wrong, long, stranger, unlike))


def test_a_key_that_has_used_up_its_budget_gets_the_clients_rate_limit_error(client: OpenAI, admin: httpx.Client) -> None:
    issued = admin.post("/keys", json={"id": "small-budget", "limits": {"tokens_per_day": 1}}).raise_for_status().json()
    with pytest.raises(openai.RateLimitError) as spent:
        client.with_options(api_key=issued["key"]).chat.completions.create(model="numerals", messages=ROMAN)

    assert (spent.value.code, spent.value.type) == ("insufficient_quota", "insufficient_quota")


def test_a_timeout_is_the_clients_own_and_leaves_nothing_running(client: OpenAI, zoo: str) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.02).chat.completions.create(model="generalist", messages=ROMAN, n=8, extra_body={"ignore_eos": True})

    def idle() -> bool:
        metrics = httpx.get(f"{zoo}/metrics", headers={"authorization": f"Bearer {KEY}"}, trust_env=False).text
        return 'consilium_expert_in_flight{expert="generalist"} 0.0' in metrics or "consilium_expert_in_flight{" not in metrics

    assert until(idle, within_s=60)
    assert client.chat.completions.create(model="auto", messages=ROMAN).choices[0].message.content == "1994"


async def test_a_busy_service_is_asked_again_when_it_says_so(tmp_path: Any) -> None:
    """429 with ``Retry-After``: the client waits as long as it says, and the second try is answered."""
    from api.app import create_app
    from api.settings import Settings

    made = parts({"slow": Stalls(pieces=("4",)), "quick": "42"})
    app = create_app(Settings(_env_file=None, data_dir=tmp_path, max_requests=1), bootstrap=made.bootstrap())  # type: ignore[call-arg]
    refusals: list[httpx.Response] = []
    async with listening(app) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as first:
        stream = await first.chat.completions.create(model="slow", messages=ROMAN, stream=True)

        async def leave_when_refused(response: httpx.Response) -> None:
            if response.status_code == 429:
                refusals.append(response)
                await stream.close()

        http = httpx.AsyncClient(event_hooks={"response": [leave_when_refused]})
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=4, http_client=http) as second:
            answered = await second.chat.completions.create(model="quick", messages=ROMAN)

    assert answered.choices[0].message.content == "42"
    assert refusals
    assert refusals[0].headers["retry-after"] == "1"


def _line(number: int, model: str) -> dict[str, Any]:
    return {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": {"model": model, "messages": ROMAN}}
