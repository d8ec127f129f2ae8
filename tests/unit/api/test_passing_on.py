"""What the service does not know goes both ways all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from api.answers import Envelope, chat_pieces, frames
from domain.chat import ChoiceDelta, Chunk, Usage
from domain.trace import Trace
from tests.fakes.services import parts
from tests.fakes.workers import Says
from tests.unit.api.test_chat_stream import events

PATH = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}
USAGE = Usage(3, 5, {"prompt_tokens_details": {"cached_tokens": 2}, "cost": 0.5})


@pytest.mark.parametrize(("model", "num_calls"), [("maths", 1), ("consilium/panel", 2)])
@pytest.mark.parametrize("stream", [False, True])
async def test_fields_of_choices_and_usage_come_back(serve: Any, model: str, num_calls: int, stream: bool) -> None:
    """Details of the usage are added up over the calls."""
    said = Says("42", extra={"stop_reason": 7, "token_ids": [1, 2]}, usage=USAGE)
    http = await serve(parts({"maths": said, "poetry": said}))
    body = ASK | {"model": model} | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})
    response = await http.post(PATH, json=body)
    answers = events(response.text)[:-1] if stream else [response.json()]
    choice = next(choice for answer in answers for choice in answer["choices"] if choice["finish_reason"])

    assert (choice["stop_reason"], choice["token_ids"]) == (7, [1, 2])
    assert answers[-1]["usage"] == {
        "prompt_tokens": 3 * num_calls,
        "completion_tokens": 5 * num_calls,
        "total_tokens": 8 * num_calls,
        "prompt_tokens_details": {"cached_tokens": 2 * num_calls},
        "cost": 0.5 * num_calls,
    }


async def test_plain_completions_tell_them_too(serve: Any) -> None:
    http = await serve(parts({"maths": Says("42", extra={"stop_reason": 7})}))
    body = {"model": "maths", "prompt": "What is 6 times 7?"}
    whole = await http.post("/v1/completions", json=body)
    pieces = events((await http.post("/v1/completions", json=body | {"stream": True})).text)[:-1]

    assert whole.json()["choices"][0]["stop_reason"] == 7
    assert pieces[-1]["choices"][0]["stop_reason"] == 7


async def test_options_of_a_stream_reach_the_expert(serve: Any) -> None:
    """But for ``include_usage``, which is ours; without a stream they mean nothing."""
    made = parts({"maths": "42"})
    http = await serve(made)
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    for more in ({"stream": True}, {"stream": False}):
        await http.post(PATH, json=ASK | options | more)

    assert [dict(call.params) for call in made.workers.calls] == [{"stream_options": {"continuous_usage_stats": True}}, {}]


class Scripted:
    """A stream of these chunks."""

    trace = Trace("r", "auto", None, 0.0, "ok", usage=Usage(3, 5))
    has_next = False

    def __init__(self, *chunks: Chunk) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for chunk in self._chunks:
            yield chunk


async def sent(*chunks: Chunk, include_usage: bool = False) -> list[Any]:
    envelope = Envelope("1", "chat.completion.chunk", "auto")
    frames_of = frames(cast(Any, Scripted(*chunks)), envelope, chat_pieces(), include_usage=include_usage, explain=False)
    return events("".join([frame.decode() async for frame in frames_of]))[:-1]


SAYS = Chunk((ChoiceDelta({"content": "42"}, finish_reason="stop"),), extra={"system_fingerprint": "fp"})


async def test_what_comes_without_choices_goes_out_with_the_next_that_has_some() -> None:
    (only,) = await sent(Chunk(extra={"prompt_filter_results": [1]}), SAYS, Chunk(extra={"system_fingerprint": "fp"}))

    assert (only["prompt_filter_results"], only["system_fingerprint"]) == ([1], "fp")


async def test_what_comes_last_without_choices_goes_out_last() -> None:
    """With the usage where it is asked for; else in a chunk that every client can read."""
    late = Chunk(extra={"x_groq": {"id": 1}, "id": "theirs"})
    *_, usage = await sent(SAYS, late, include_usage=True)
    _, last = await sent(SAYS, late)

    assert (usage["choices"], usage["x_groq"], usage["id"]) == ([], {"id": 1}, "1")
    assert (last["choices"][0]["delta"], last["x_groq"], last["id"]) == ({}, {"id": 1}, "1")
